"""What a study would take in time, disk and epsilon, before anything is spent."""

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from moo import validate
from moo.masking import mask, mask_many
from moo.models.trunk import encode
from moo.privacy.accounting import compose_epsilon
from moo.privacy.events import Event
from moo.privacy.keys import StudyKey
from moo.privacy.policies import Policy
from moo.studies.answers import planned_answers
from moo.studies.base import StudySpec
from moo.studies.cost import budget_filter, guarantee, run_at
from moo.studies.prepare import Prepared, Stage, no_stage
from moo.studies.refusals import refuse_another_task

_SAMPLE = 48  # texts that are timed
_STEP_SECONDS = 3e-4  # of one example of one shadow at depth 1, measured on 2 cores


@dataclass(frozen=True, kw_only=True)
class Plan:
    """An estimate.

    Attributes:
        name: Of the study.
        trials: How many.
        records: Part of the data -> records.
        seconds, trunk_seconds: In all, and of masking and trunk; on this machine, from a timed sample.
        disk_bytes: In the study's folder.
        epsilon_low, epsilon_high, delta: Of a trial.
        composed_low, composed_high: Of all trials with their answers, were they all at one end.
        policy: The release policy.
        holds: What it guarantees, or how far its budget goes, in words.
    """

    name: str
    trials: int
    records: dict[str, int]
    seconds: float
    trunk_seconds: float
    disk_bytes: float
    epsilon_low: float
    epsilon_high: float
    delta: float
    composed_low: float
    composed_high: float
    policy: str
    holds: str


def plan_study(spec: StudySpec, *, n_trials: int, policy: Policy | None = None, stage: Stage = no_stage) -> Plan:
    """Time a sample of texts and compose the epsilons; the study's own folder is not touched."""
    policy = policy or Policy()
    validate.in_range(1, 1_000_000, n_trials=n_trials)
    refuse_another_task(spec)
    with tempfile.TemporaryDirectory() as folder:
        share = policy.release_share if policy.name == "proxy_then_retrain" else 0.0
        prepared = Prepared(spec, StudyKey.fresh(), Path(folder), stage, release_share=share)
        texts = prepared.records.texts
        sample = texts[:: max(1, len(texts) // _SAMPLE)][:_SAMPLE]
        encode(prepared.base, sample[:8], max_length=spec.training.max_length)
        started = time.perf_counter()
        encoded = encode(prepared.base, mask_many(sample, 3), max_length=spec.training.max_length)
        each = (time.perf_counter() - started) / len(sample)
    tokens = sum(len(t) for t in encoded.tokens) / len(sample)
    passes = _passes(spec, sample, n_trials)
    trunk = len(texts) * each * passes
    t = spec.training
    pool = len(prepared.parts["pool"])
    step = _STEP_SECONDS * t.sample_rate * pool / 2 * t.n_shadows
    return Plan(
        name=spec.name,
        trials=n_trials,
        records={part: len(records) for part, records in prepared.parts.items()},
        seconds=trunk + n_trials * step * t.steps / 2,
        trunk_seconds=trunk,
        disk_bytes=len(texts) * passes * (tokens * 2 + 8) * prepared.base.hidden,
        epsilon_low=spec.space.target_epsilon[0],
        epsilon_high=spec.space.target_epsilon[1],
        delta=t.target_delta,
        composed_low=_composed(prepared, policy, n_trials, spec.space.target_epsilon[0]),
        composed_high=_composed(prepared, policy, n_trials, spec.space.target_epsilon[1]),
        policy=str(policy),
        holds=_holds(prepared, policy, n_trials),
    )


def _passes(spec: StudySpec, sample: Sequence[str], n_trials: int) -> float:
    """Times that a text runs through the trunk: once for every cut, and again where a masking level changes it."""
    space = spec.space
    levels = range(space.masking_level[0], space.masking_level[1] + 1)
    texts = sum(len({mask(text, level) for level in levels}) for text in sample) / len(sample)
    deep = space.adapted_layers[1] - max(1, space.adapted_layers[0])  # no layer, and one, look at the same cut
    cuts = (deep + 1) * (space.layers_dropped[1] - space.layers_dropped[0] + 1)
    return min(texts * cuts, 1.0 + n_trials)


def _composed(prepared: Prepared, policy: Policy, n_trials: int, epsilon: float) -> float:
    each: list[Event] = [run_at(prepared, epsilon), *planned_answers(prepared.spec, policy, prepared.n_units)]
    return compose_epsilon(each * n_trials, delta=prepared.spec.training.target_delta)


def _holds(prepared: Prepared, policy: Policy, n_trials: int) -> str:
    answers = planned_answers(prepared.spec, policy, prepared.n_units)
    limit = budget_filter(policy, prepared, answers)
    if limit is None:
        return guarantee(prepared, policy, answers, n_trials)[1] or "an odometer, not a guarantee: results stay inside"
    low, high = prepared.spec.space.target_epsilon
    ends = {f"{e:g}": run_at(prepared, e) for e in (low, (low * high) ** 0.5, high)}
    fits = [str(int(limit.budget / limit.spent([run, *answers]))) for run in ends.values()]
    return f"the budget admits {', '.join(fits)} trials, were all at epsilon {', '.join(ends)}"
