"""What a study would take in time, disk and epsilon, before anything is spent."""

import math
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from moo import validate
from moo.masking import mask_many
from moo.models.trunk import encode
from moo.privacy.accounting import compose_epsilon
from moo.privacy.keys import StudyKey
from moo.records import TrialParams
from moo.studies.base import StudySpec
from moo.studies.prepare import Prepared, Stage, no_stage
from moo.studies.trial import planned_run

_SAMPLE = 48  # texts that are timed
_CHANGED = 0.6  # share of texts that one more masking level changes, measured on the reviews
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
        composed_low, composed_high: Of all trials, were they all at one end.
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


def plan_study(spec: StudySpec, *, n_trials: int, stage: Stage = no_stage) -> Plan:
    """Time a sample of texts and compose the epsilons; the study's own folder is not touched."""
    validate.in_range(1, 1_000_000, n_trials=n_trials)
    with tempfile.TemporaryDirectory() as folder:
        prepared = Prepared(spec, StudyKey.fresh(), Path(folder), stage)
        texts = prepared.records.texts
        sample = texts[:: max(1, len(texts) // _SAMPLE)][:_SAMPLE]
        encode(prepared.base, sample[:8], max_length=spec.training.max_length)
        started = time.perf_counter()
        encoded = encode(prepared.base, mask_many(sample, 3), max_length=spec.training.max_length)
        each = (time.perf_counter() - started) / len(sample)
    tokens = sum(len(t) for t in encoded.tokens) / len(sample)
    low, high = spec.space.masking_level
    passes = 1 + _CHANGED * min(high - low, n_trials)
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
        composed_low=_composed(spec, prepared, n_trials, spec.space.target_epsilon[0]),
        composed_high=_composed(spec, prepared, n_trials, spec.space.target_epsilon[1]),
    )


def _composed(spec: StudySpec, prepared: Prepared, n_trials: int, epsilon: float) -> float:
    params = TrialParams(target_epsilon=epsilon, masking_level=0, lora_rank=1, learning_rate=1e-3, adapted_layers=0)
    run = planned_run(params, spec, prepared.expected_units, prepared.records.unit_name)
    total = compose_epsilon([run] * n_trials, delta=spec.training.target_delta)
    return total if math.isfinite(total) else math.inf
