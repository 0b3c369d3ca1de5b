"""Training of a trial: a plan in, evidence out."""

import dataclasses
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from moo.core.errors import TrialError
from moo.core.evidence import PrivacyEvidence, TrialEvidence, UtilityEvidence
from moo.core.messages import Message
from moo.data.keyed_split import complementary_pairs
from moo.models.bank.lightning_module import is_out_of_memory, log_probs
from moo.models.train import Trained, TrainingData, train
from moo.models.training.memory import release_free_memory
from moo.objectives.compliance.facts import privacy_facts, utility_facts
from moo.privacy.composition import epsilon_pld
from moo.privacy.keys import StudyKey
from moo.studies.setup.masking_measured import measured_masking
from moo.studies.setup.partition import PARTS
from moo.studies.setup.prepared import PreparedStudy
from moo.studies.setup.release_context import BUDGETED
from moo.studies.setup.trunk_features import MaskedPart
from moo.studies.spec.study import StudySpec
from moo.studies.trial.baseline import base_losses
from moo.studies.trial.evidence import attribute_of, losses_of, membership_of
from moo.studies.trial.paths import checkpoint_of, logs_of
from moo.studies.trial.plan import TrialPlan, observed_run

Parts = dict[str, MaskedPart]
Predictions = dict[str, NDArray[np.float64]]


def run_trial(
    plan: TrialPlan, prepared: PreparedStudy, *, number: int, replicate: int = 0, attempt: str = ""
) -> TrialEvidence:
    """Train K shadows on complementary halves of the pool, and gather the evidence.

    Args:
        plan: Plan of the trial.
        prepared: The study.
        number: Number of the trial; every stream of randomness is the trial's own.
        replicate: Earlier trials of the same configuration.
        attempt: Name of the attempt in its checkpoints.

    Raises:
        TrialError: If training fails; with its cause.
    """
    seconds: dict[str, float] = {}
    key = prepared.streams.trial_key(plan.params, number=number, replicate=replicate)
    # Nobody needs the other parts, held from the trial before, until the shadows are trained.
    prepared.features.release_features("test", "unseen")
    with _timed(seconds, "masking and trunk"):
        parts = _masked(prepared, plan, "pool")
        masking = measured_masking(prepared, plan.params.masking_level)
    members = {part: _members(prepared, part, key) for part in ("pool", "unseen")}
    trained = _train(plan, prepared, parts["pool"], members["pool"], key=key, number=number, attempt=attempt)
    seconds["training"] = trained.seconds
    with _timed(seconds, "masking and trunk"):
        parts |= _masked(prepared, plan, *PARTS)
    with _timed(seconds, "prediction"):
        predicted = _predict(trained, parts)
        losses = {part: losses_of(prepared, part, predicted[part]) for part in PARTS}
        hardness = base_losses(prepared, {part: parts[part].packed for part in PARTS})
    privacy, utility = _privacy(plan, prepared, trained), _utility(prepared, predicted)
    return TrialEvidence(
        params=plan.params,
        membership=membership_of(prepared, "pool", losses, members["pool"], hardness, population="unseen"),
        unseen=membership_of(prepared, "unseen", losses, members["unseen"], hardness, population="test"),
        utility=utility,
        privacy=privacy,
        facts={**_study_facts(prepared, masking, privacy, utility), **_training_facts(parts, trained)},
        attribute=attribute_of(prepared, predicted["pool"], members["pool"]),
        outputs=predicted["pool"] if prepared.data.parts["pool"].groups else None,
        seconds=seconds,
        resumed_at=trained.resumed_at,
        notices=_notices(parts, trained, prepared.spec),
    )


@contextmanager
def within_memory() -> Iterator[None]:
    """Turn the end of memory into a failed trial, so that the study goes on.

    Raises:
        TrialError: If memory ends inside the block.
    """
    try:
        yield
    except TrialError:
        raise
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise TrialError("The trial must fit into memory, but: {error}", error=error, cause="out of memory") from error


@contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    """Add the time of a block to its entry."""
    started = time.perf_counter()
    yield
    seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - started


def _masked(prepared: PreparedStudy, plan: TrialPlan, *parts: str) -> Parts:
    level = plan.params.masking_level
    return {part: prepared.features.masked(part, level, plan.params) for part in parts}


def _members(prepared: PreparedStudy, part: str, key: StudyKey) -> NDArray[np.bool_]:
    """Draw the members of each shadow, shape (K, n): coins of units, tossed for every trial."""
    records, k = prepared.data.parts[part], prepared.spec.training.n_shadows
    return complementary_pairs(records.unit_ids, k, key.derive("pairs", part))[:, records.units]


def _train(
    plan: TrialPlan,
    prepared: PreparedStudy,
    masked: MaskedPart,
    members: NDArray[np.bool_],
    *,
    key: StudyKey,
    number: int,
    attempt: str,
) -> Trained:
    """Train the shadows on their members of the pool."""
    pool = prepared.data.parts["pool"]
    data = TrainingData(
        packed=masked.packed, labels=pool.labels, units=pool.units, members=members, n_classes=len(pool.classes)
    )
    # pages that the trunk has freed
    release_free_memory()
    prepared.stage(f"training {prepared.spec.training.n_shadows} shadows", 0, 0)
    settings = dataclasses.replace(
        plan.settings, checkpoint=checkpoint_of(prepared, number, attempt), logs=logs_of(prepared, number)
    )
    return train(data, settings, prepared.model.frozen(plan.params), key.generator)


def _predict(trained: Trained, parts: Mapping[str, MaskedPart]) -> Predictions:
    """Return each part's log-probabilities, shape (K, n, C).

    Raises:
        TrialError: If one of them is not finite.
    """
    predicted = {part: log_probs(trained.bank, parts[part].packed).numpy().astype(np.float64) for part in PARTS}
    if not all(np.isfinite(p).all() for p in predicted.values()):
        raise TrialError(
            "The losses must be finite, but some are not. Lower the learning rate.", cause="non-finite loss"
        )
    return predicted


def _privacy(plan: TrialPlan, prepared: PreparedStudy, trained: Trained) -> PrivacyEvidence:
    run, data = observed_run(plan.run, trained), prepared.data
    return PrivacyEvidence(
        epsilon_spent=epsilon_pld(run),
        delta=run.delta,
        n_units=data.all_units,
        records_per_user=data.records_per_user,
        noise_multiplier=run.noise_multiplier,
        sample_rate=run.sample_rate,
        steps=run.steps,
        claim=data.claim(run, prepared.context.covered),
    )


def _utility(prepared: PreparedStudy, predicted: Predictions) -> UtilityEvidence:
    test = prepared.data.parts["test"]
    return UtilityEvidence(log_probs=predicted["test"], labels=test.labels, units=test.units, groups=dict(test.groups))


def _study_facts(
    prepared: PreparedStudy,
    masking: Mapping[str, float | None],
    privacy: PrivacyEvidence,
    utility: UtilityEvidence,
) -> dict[str, float | None]:
    # A trial of a budgeted study was admitted before it trained, or is not here.
    budget = {"privacy.over_budget": 0.0} if BUDGETED in prepared.context.flags else {}
    return {**prepared.data.facts, **masking, **privacy_facts(privacy), **utility_facts(utility), **budget}


def _training_facts(parts: Parts, trained: Trained) -> dict[str, float | None]:
    return {
        "masking.wordless_share": float(parts["pool"].wordless.mean()),
        "training.truncated": float(sum(p.packed.truncated for p in parts.values())),
        "training.non_finite": float(trained.non_finite),
    }


def _notices(parts: Parts, trained: Trained, spec: StudySpec) -> tuple[str, ...]:
    """Return remarks for a person on how the trial ran."""
    out = [notice for part in parts.values() for notice in part.notices] + list(trained.notices)
    texts, cut = sum(len(p.spans) for p in parts.values()), sum(p.packed.truncated for p in parts.values())
    if cut:
        template = "{n} of {total} texts were longer than {tokens} tokens and were cut there"
        out.append(Message(template, n=cut, total=texts, tokens=spec.training.max_length))
    if trained.chunk < spec.machine.chunk:
        template = "memory ended: {n} records of a shadow were computed at a time in place of {planned}"
        out.append(Message(template, n=trained.chunk, planned=spec.machine.chunk))
    if trained.non_finite:
        out.append(Message("{n} gradients of units were not finite and contributed zero", n=trained.non_finite))
    return tuple(dict.fromkeys(out))
