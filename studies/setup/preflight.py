"""What of a specification is refused before anything is spent, beside its types and bounds."""

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
from moo.studies.setup.prepared import Prepared, trial_depth
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
    """Raise if an argument of a search is unfit, whatever the study."""
    validate.whole(1, 1_000_000, n_trials=n_trials)
    check_storage(storage)
    validate.whole(-(2**63), 2**63 - 1, seed=seed)
    validate.one_of(EXECUTORS, executor=executor)
    validate.whole(1, 4096, workers=workers)
    for callback in callbacks:
        if not callable(callback):
            raise validate.argument_error("{name} must be functions", "callbacks", callback)
    if weighed and policy.name == "select_one":
        raise PolicyError("no weights must be given under select_one: the policy's guarantee is of its own choice.")


def check_specification(spec: StudySpec, policy: Policy) -> None:
    """Raise if a specification names what does not exist, or its policy forbids it. Nothing is read but rule packs."""
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
            raise InputError("{name} must be a readable file, but got {path} (no such file).", name=name, path=path)


def check_flags(spec: StudySpec) -> None:
    """Raise if a flag of `applies` switches no rule on."""
    rules = load_rules(tuple(dict.fromkeys((*BUILT_IN, *spec.packs)))).rules
    known = sorted({rule.applies_if for rule in rules} - {""} - {f"{RULE}{rule.id}" for rule in rules})
    for flag in spec.applies:
        if flag not in known:
            raise InputError(
                "applies must hold flags of {known}, but got {flag!r}.{nearest}",
                known=known,
                flag=flag,
                nearest=validate.nearest(flag, known),
            )


def check_task(spec: StudySpec) -> None:
    """A study that writes, where one that tells classes apart is wanted."""
    if spec.task != "classification":
        raise InputError(
            "task = 'classification' must hold, but {name} has {task!r}: `moo memorise` runs it.",
            name=spec.name,
            task=spec.task,
        )


def check_attack_name(spec: StudySpec) -> None:
    """A name that is no attack, or one that needs more shadows."""
    if spec.attack != CHOSEN:
        check_attack(spec.attack, n_shadows=spec.training.n_shadows)


def check_policy_allows(policy: Policy, spec: StudySpec) -> None:
    """What would read private units without noise is refused where something leaves."""
    if policy.answer_noise and policy.name != "internal" and not spec.consent_filter:
        raise PolicyError(
            "consent_filter = true must hold under {name}, but got false: the legal gates would tell "
            "exact shares of records.",
            name=policy.name,
        )
    if policy.answer_noise and policy.name != "internal" and spec.sensitive_rows == "keep":
        raise PolicyError(
            "sensitive_rows = 'drop' must hold under {name}, but got 'keep': a gate would tell their "
            "exact share of records.",
            name=policy.name,
        )
    if policy.answer_noise and spec.attribute:
        raise PolicyError(
            "attribute = '' must hold where risk is told with noise, but got {attribute!r}: its "
            "leakage has no noised answer.",
            attribute=spec.attribute,
        )
    if policy.answer_noise and (spec.attack == CHOSEN or not ATTACKS[spec.attack].own_losses):
        own = sorted(name for name, attack in ATTACKS.items() if attack.own_losses)
        raise PolicyError(
            "attack in {own} must hold where risk is told with noise, but got attack={attack!r}: it "
            "looks at other users' losses, which the noise does not cover.",
            own=own,
            attack=spec.attack,
        )


def sampled(spec: StudySpec, sampler: Sampler | None, policy: Policy) -> tuple[StudySpec, Sampler]:
    """Return the specification with the sampler that was asked for, and what draws: at random under `select_one`.

    Raises:
        InputError: If there is no such sampler.
        PolicyError: If `select_one` is asked to draw by another.
    """
    if sampler is not None:
        check_sampler(sampler)
    spec = dataclasses.replace(spec, sampler=sampler) if isinstance(sampler, str) else spec
    if policy.name != "select_one":
        return spec, spec.sampler if sampler is None else sampler
    if sampler not in (None, "random") or spec.sampler not in (DEFAULT, "random"):
        asked = spec.sampler if sampler is None else check_sampler(sampler)
        raise PolicyError(
            "sampler must be 'random' under select_one, whose guarantee is of independent draws, got "
            "{asked!r}; leave it out.",
            asked=asked,
        )
    return spec, "random"


def check_loggers(policy: Policy, spec: StudySpec) -> None:
    """Refuse loggers of one's own under `select_one`: each training would show in them, and they may lie elsewhere.

    Raises:
        PolicyError: If the machine's Trainer arguments name one.
    """
    if policy.name == "select_one" and spec.machine.trainer.get("logger"):
        raise PolicyError(
            "machine.trainer must hold no logger under select_one: it would show how many trials there were; use machine.logger, "
            "whose files stay in the study's folder."
        )


def check_model_supports(spec: StudySpec, prepared: Prepared, *, reference: bool) -> None:
    """A depth that the search could draw, or the status quo's where it runs, and the engine cannot train."""
    for params in [*depths(spec.space), *([STATUS_QUO] if reference else [])]:
        prepared.cut(params)
        if prepared.engine == "opacus":
            check_trainable(_adapter_spec(params, prepared), prepared.frozen(params))
    largest, hidden = 2 ** spec.space.lora_rank_log2[1], prepared.base.hidden
    if spec.space.adapted_layers[1] and largest > hidden:
        raise InputError(
            "every rank must be <= {hidden}, the hidden size of {model}, but space.lora_rank_log2 "
            "goes to {lora_rank_log2} (rank {largest}); lower it.",
            hidden=hidden,
            model=spec.model,
            lora_rank_log2=spec.space.lora_rank_log2[1],
            largest=largest,
        )


def check_halvings(prepared: Prepared) -> None:
    """Batches that the search could halve until less than one unit is expected in one, of a shadow or of the release users."""
    spec = prepared.spec
    sizes = [prepared.expected_units, *([prepared.release_units] if prepared.release else [])]
    check_batches(spec.training, spec.space.batch_halvings[1], min(sizes))


def _adapter_spec(params: TrialParams, prepared: Prepared) -> AdapterSpec:
    t = prepared.spec.training
    return AdapterSpec(
        depth=trial_depth(params, prepared.spec),
        adaptation=cast(Adaptation, t.adaptation),
        rank=params.lora_rank,
        alpha=t.lora_alpha,
        n_frozen=prepared.base.hidden if t.head == "with_mean" else 0,
        n_classes=len(prepared.parts["pool"].classes),
    )


def check_attributes(prepared: Prepared) -> None:
    """An attribute that the data do not hold, or that the attacker is taken to know."""
    spec, known = prepared.spec, sorted(prepared.records.groups)
    for name in (spec.attribute, *spec.attribute_auxiliary):
        if name and name not in known:
            near = validate.nearest(name, known)
            raise InputError(
                "attribute among {known} of {data} must hold, but got {name!r}.{near}",
                known=known,
                data=spec.data,
                name=name,
                near=near,
            )
    if spec.attribute and spec.attribute in spec.attribute_auxiliary:
        raise InputError(
            "attribute_auxiliary must hold others than the attribute itself, but got {attribute!r} in it.",
            attribute=spec.attribute,
        )
    if spec.attribute:
        _check_one_value_per_user(spec.attribute, prepared.records)


def _check_one_value_per_user(name: str, records: Records) -> None:
    values = records.groups[name]
    told = values >= 0
    pairs = len(np.unique(np.stack([records.units[told], values[told]]), axis=1).T)
    users = len(np.unique(records.units[told]))
    if pairs > users:
        raise InputError(
            "one value of attribute {name!r} a {unit_name} must hold, but {users} of them have {pairs} different ones.",
            name=name,
            unit_name=records.unit_name,
            users=users,
            pairs=pairs,
        )
