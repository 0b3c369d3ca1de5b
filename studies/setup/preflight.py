"""Checks of a study before anything is spent, beyond the types and bounds of its fields."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np

from moo.core import validate
from moo.core.errors import InputError, PolicyError
from moo.core.trial_record import TrialParams
from moo.data.catalogue import DATASETS, Records, unknown_data
from moo.models.reference.adapters import AdapterSpec
from moo.models.reference.train import check_trainable
from moo.models.training.settings import Adaptation
from moo.objectives.compliance.loader import load_rules
from moo.objectives.compliance.pack import BUILT_IN
from moo.objectives.compliance.rule import RULE
from moo.objectives.membership.attacks.registry import ATTACKS, check_attack
from moo.objectives.membership.choice import CHOSEN
from moo.privacy.release_policy import Policy
from moo.search.executors import NAMES as EXECUTORS
from moo.search.sampler import DEFAULT, Sampler, check_sampler
from moo.search.storage import Storage, check_storage
from moo.studies.setup.legal_gates import check_data_gates, check_dossier_gates
from moo.studies.setup.prepared import PreparedStudy
from moo.studies.setup.rare_classes import check_class_sizes
from moo.studies.setup.study_model import trial_depth
from moo.studies.spec.schedule import check_batches
from moo.studies.spec.search_space import STATUS_QUO, depths
from moo.studies.spec.study import StudySpec


def check_arguments(
    *,
    n_trials: int,
    storage: Storage,
    seed: int,
    executor: str,
    workers: int,
    callbacks: Sequence[object],
    policy: Policy,
    weighed: bool,
) -> None:
    """Raise if an argument of a search is unfit for every study."""
    validate.whole(1, 1_000_000, n_trials=n_trials)
    check_storage(storage)
    validate.whole(-(2**63), 2**63 - 1, seed=seed)
    validate.one_of(EXECUTORS, executor=executor)
    validate.whole(1, 4096, workers=workers)
    for callback in callbacks:
        if not callable(callback):
            raise validate.argument_error("{name} must be functions", "callbacks", callback)
    if weighed and policy.name == "select_one":
        raise PolicyError(
            "Weights must be left out under select_one: its guarantee holds for the policy's choice alone."
        )


def check_specification(spec: StudySpec, policy: Policy) -> None:
    """Raise if a specification names something unknown, or its policy forbids it.

    Reads rule packs alone.
    """
    check_task(spec)
    check_attack_name(spec)
    check_flags(spec)
    check_policy_allows(policy, spec)
    sampled(spec, None, policy)
    check_loggers(policy, spec)
    if spec.data not in DATASETS and not Path(spec.data).suffix:
        raise unknown_data(spec.data)
    for name in ("dossier", "withdrawals"):
        path = getattr(spec, name)
        if path and not Path(path).expanduser().is_file():
            raise InputError("{name} must be a readable file, got {path} (no such file).", name=name, path=path)


def check_flags(spec: StudySpec) -> None:
    """Raise if a flag of `applies` switches no rule on."""
    rules = load_rules(tuple(dict.fromkeys((*BUILT_IN, *spec.packs)))).rules
    known = sorted({rule.applies_if for rule in rules} - {""} - {f"{RULE}{rule.id}" for rule in rules})
    for flag in spec.applies:
        if flag not in known:
            raise InputError(
                "applies must hold flags of {known}, got {flag!r}.{nearest}",
                known=known,
                flag=flag,
                nearest=validate.nearest(flag, known),
            )


def check_task(spec: StudySpec) -> None:
    """Raise if the study is not a classification."""
    if spec.task != "classification":
        raise InputError(
            "task must be 'classification', but {name} has {task!r}. Run it by `moo memorise`.",
            name=spec.name,
            task=spec.task,
        )


def check_attack_name(spec: StudySpec) -> None:
    """Raise if the attack is unknown, or needs more shadows."""
    if spec.attack != CHOSEN:
        check_attack(spec.attack, n_shadows=spec.training.n_shadows)


def check_policy_allows(policy: Policy, spec: StudySpec) -> None:
    """Raise if a number would leave that reads private units without noise."""
    if policy.answer_noise and policy.name != "internal" and not spec.consent_filter:
        raise PolicyError(
            "consent_filter must be true under {name}, got false: the legal gates would reveal exact "
            "shares of records. Set consent_filter = true.",
            name=policy.name,
        )
    if policy.answer_noise and policy.name != "internal" and spec.sensitive_rows == "keep":
        raise PolicyError(
            "sensitive_rows must be 'drop' under {name}, got 'keep': a gate would reveal their exact "
            "share of records. Set sensitive_rows = 'drop'.",
            name=policy.name,
        )
    if policy.answer_noise and spec.attribute:
        raise PolicyError(
            "attribute must be '' if risk carries noise, got {attribute!r}: its leakage has no noised "
            "answer. Leave it out, or search under internal without answer_noise.",
            attribute=spec.attribute,
        )
    if policy.answer_noise and (spec.attack == CHOSEN or not ATTACKS[spec.attack].own_losses):
        covered = sorted(name for name, attack in ATTACKS.items() if attack.own_losses)
        raise PolicyError(
            "attack must be one of {covered} if risk carries noise, got {attack!r}: it reads other users' "
            "losses, which the noise does not cover.",
            covered=covered,
            attack=spec.attack,
        )


def sampled(spec: StudySpec, sampler: Sampler | None, policy: Policy) -> tuple[StudySpec, Sampler]:
    """Return the specification and its sampler: always "random" under `select_one`.

    Raises:
        InputError: If there is no such sampler.
        PolicyError: If another sampler is wanted under `select_one`.
    """
    if sampler is not None:
        check_sampler(sampler)
    spec = dataclasses.replace(spec, sampler=sampler) if isinstance(sampler, str) else spec
    if policy.name != "select_one":
        return spec, spec.sampler if sampler is None else sampler
    if sampler not in (None, "random") or spec.sampler not in (DEFAULT, "random"):
        raise PolicyError(
            "sampler must be 'random' under select_one, got {wanted!r}: its guarantee is for independent "
            "draws. Leave the sampler out.",
            wanted=spec.sampler if sampler is None else check_sampler(sampler),
        )
    return spec, "random"


def check_loggers(policy: Policy, spec: StudySpec) -> None:
    """Raise if `select_one` is to log by a user's logger, which would show each training.

    Raises:
        PolicyError: If the machine's Trainer arguments name one.
    """
    if policy.name == "select_one" and spec.machine.trainer.get("logger"):
        raise PolicyError(
            "machine.trainer must hold no logger under select_one: it would show the number of trials. "
            "Use machine.logger: its files stay in the study's folder."
        )


def check_prepared(prepared: PreparedStudy) -> None:
    """Raise if the data or the base model do not fit the study. Nothing is trained."""
    check_data_gates(prepared)
    check_dossier_gates(prepared)
    check_model_supports(prepared)
    check_class_sizes(prepared.data.records, prepared.spec)
    check_halvings(prepared)
    check_attributes(prepared)


def check_model_supports(prepared: PreparedStudy) -> None:
    """Raise if the engine cannot train a depth of the space, or of a status quo that runs."""
    spec, status_quo = prepared.spec, prepared.context.policy.allows_reference
    for params in [*depths(spec.space), *([STATUS_QUO] if status_quo else [])]:
        prepared.model.cut(params)
        if prepared.model.engine == "opacus":
            check_trainable(_adapter_spec(params, prepared), prepared.model.frozen(params))
    largest, hidden = 2 ** spec.space.lora_rank_log2[1], prepared.model.base.hidden
    if spec.space.adapted_layers[1] and largest > hidden:
        raise InputError(
            "Every rank must be <= {hidden}, the hidden size of {model}, but space.lora_rank_log2 "
            "goes to {lora_rank_log2} (rank {largest}). Lower it.",
            hidden=hidden,
            model=spec.model,
            lora_rank_log2=spec.space.lora_rank_log2[1],
            largest=largest,
        )


def check_halvings(prepared: PreparedStudy) -> None:
    """Raise if a halved batch of a shadow or a retraining could expect less than one unit."""
    spec = prepared.spec
    sizes = [prepared.data.expected_units, *([prepared.data.release_units] if "release" in prepared.data.parts else [])]
    check_batches(spec.training, spec.space.batch_halvings[1], min(sizes))


def _adapter_spec(params: TrialParams, prepared: PreparedStudy) -> AdapterSpec:
    t = prepared.spec.training
    return AdapterSpec(
        depth=trial_depth(params, prepared.spec),
        adaptation=cast(Adaptation, t.adaptation),
        rank=params.lora_rank,
        alpha=t.lora_alpha,
        n_frozen=prepared.model.base.hidden if t.head == "with_mean" else 0,
        n_classes=len(prepared.data.parts["pool"].classes),
    )


def check_attributes(prepared: PreparedStudy) -> None:
    """Raise if the data lack an attribute, or the attacked one is also auxiliary."""
    spec, known = prepared.spec, sorted(prepared.data.records.groups)
    for name in (spec.attribute, *spec.attribute_auxiliary):
        if name and name not in known:
            near = validate.nearest(name, known)
            raise InputError(
                "attribute must be one of {known} of {data}, got {name!r}.{near}",
                known=known,
                data=spec.data,
                name=name,
                near=near,
            )
    if spec.attribute and spec.attribute in spec.attribute_auxiliary:
        raise InputError(
            "attribute_auxiliary must not hold the attribute itself, but holds {attribute!r}. Take it out.",
            attribute=spec.attribute,
        )
    if spec.attribute:
        _check_one_value_per_user(spec.attribute, prepared.data.records)


def _check_one_value_per_user(name: str, records: Records) -> None:
    values = records.groups[name]
    known = values >= 0
    pairs = len(np.unique(np.stack([records.units[known], values[known]]), axis=1).T)
    users = len(np.unique(records.units[known]))
    if pairs > users:
        raise InputError(
            "Attribute {name!r} must have one value per {unit_name}, but {users} of them have {pairs} "
            "different values.",
            name=name,
            unit_name=records.unit_name,
            users=users,
            pairs=pairs,
        )
