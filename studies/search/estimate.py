"""Estimate of a study's time, disk and epsilon, before anything is spent."""

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from moo.core import validate
from moo.core.messages import Message, joined
from moo.core.trial_record import describe_steps
from moo.masking import mask, mask_many
from moo.models.pretrained.architectures import supports_fast_lane
from moo.models.trunk.encode import encode
from moo.privacy.caps import describe_cap
from moo.privacy.composed_epsilon import ComposedEpsilon
from moo.privacy.composition import compose_epsilon, compose_worst
from moo.privacy.events import Event
from moo.privacy.keys import StudyKey
from moo.privacy.release_policy import Policy
from moo.studies.accounting.account import cap_and_charges
from moo.studies.accounting.cost import budget_filter, guarantee, runs_at
from moo.studies.setup.legal_gates import check_data_gates, check_dossier_gates, notes_of
from moo.studies.setup.preflight import check_halvings, check_specification
from moo.studies.setup.prepared import PreparedStudy, prepare_study
from moo.studies.setup.rare_classes import check_class_sizes
from moo.studies.setup.study_data import Stage, no_stage
from moo.studies.spec.study import StudySpec
from moo.studies.trial.noised_record import counts, expected_floors, planned_answers

# Texts that are timed.
_SAMPLE = 48
# The four below: one example of one shadow in one step, in passes of a text through one block of the trunk;
# e5-small, two cores (docs/experiments/engine-speed.md).
# The bank: its last block for the pooled token alone, and each of more blocks.
_ONE_TOKEN, _ALL_TOKENS = 0.13, 2.2
# The Opacus engine: each block of the model, and each adapted block in addition.
_WHOLE, _ADAPTED = 3.0, 6.5
# Share of a step that a text costs which a shadow reads and does not learn from.
_READ = 1 / 3
# Seconds of a step of the bank for any batch: many steps of small batches cost more than as many passes of few.
_STEP = 0.007


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Estimate of a study.

    Attributes:
        name: Name of the study.
        trials: Number of trials.
        records: Part of the data -> number of records.
        preparation: Steps that dropped or changed records, in words.
        seconds: Time in all, on this machine, from a timed sample.
        trunk_seconds: Time of masking and trunk alone.
        disk_bytes: Size of the study's folder.
        epsilon_low: Lowest epsilon of a trial.
        epsilon_high: Highest epsilon of a trial.
        delta: Delta of a trial.
        composed_low: Epsilon of all trials with their answers and of the status quo, if all trials were the cheapest.
        composed_high: The same, if all trials were the dearest.
        policy: Release policy.
        holds: Guarantee of the policy, or reach of its budget, in words.
        notes: Gates that are not judged, and facts that are declared.
    """

    name: str
    trials: int
    records: dict[str, int]
    preparation: tuple[str, ...]
    seconds: float
    trunk_seconds: float
    disk_bytes: float
    epsilon_low: float
    epsilon_high: float
    delta: float
    composed_low: ComposedEpsilon
    composed_high: ComposedEpsilon
    policy: str
    holds: str
    notes: tuple[str, ...] = ()


def plan_study(spec: StudySpec, *, n_trials: int, policy: Policy | None = None, stage: Stage = no_stage) -> Plan:
    """Return the estimate of a study from a timed sample; its folder is not touched."""
    policy = policy or Policy()
    validate.whole(1, 1_000_000, n_trials=n_trials)
    check_specification(spec, policy)
    with tempfile.TemporaryDirectory() as folder:
        prepared = prepare_study(spec, StudyKey.fresh(), Path(folder), stage, policy=policy)
        check_data_gates(prepared)
        check_dossier_gates(prepared)
        check_class_sizes(prepared.data.records, spec)
        check_halvings(prepared)
        texts = prepared.data.records.texts
        sample = texts[:: max(1, len(texts) // _SAMPLE)][:_SAMPLE]
        encode(prepared.model.base, sample[:8], max_length=spec.training.max_length)
        started = time.perf_counter()
        encoded = encode(prepared.model.base, mask_many(sample, 3), max_length=spec.training.max_length)
        each = (time.perf_counter() - started) / len(sample)
    tokens = sum(len(t) for t in encoded.tokens) / len(sample)
    passes = _passes(spec, sample, n_trials)
    trunk = len(texts) * each * passes
    t = spec.training
    pool = len(prepared.data.parts["pool"])
    cheap, dear = (_kinds(prepared, policy, epsilon) for epsilon in spec.space.target_epsilon)
    # halved batches see as many examples
    examples = t.n_shadows * (t.steps * t.sample_rate * pool / 2 + _READ * len(texts))
    trial = examples * each * _passes_a_step(prepared) + (
        _STEP * _steps(spec) if prepared.model.engine == "bank" else 0.0
    )
    once = counts(policy)
    low = min(compose_epsilon([*kind * n_trials, *once], delta=t.target_delta) for kind in cheap)
    high = compose_worst(dear, trials=n_trials, delta=t.target_delta, once=once)
    return Plan(
        name=spec.name,
        trials=n_trials,
        records={part: len(records) for part, records in prepared.data.parts.items()},
        preparation=describe_steps(prepared.data.records.transformations),
        seconds=trunk + n_trials * trial,
        trunk_seconds=trunk,
        disk_bytes=len(texts) * passes * (tokens * 2 + 8) * prepared.model.base.hidden,
        epsilon_low=spec.space.target_epsilon[0],
        epsilon_high=spec.space.target_epsilon[1],
        delta=t.target_delta,
        composed_low=_planned(low, policy, t.target_delta),
        composed_high=_planned(high, policy, t.target_delta),
        policy=str(policy),
        holds=joined("; ", [_holds(prepared, policy, n_trials), describe_cap(*cap_and_charges(spec.data))]),
        notes=tuple(notes_of(spec.to_json())),
    )


def _passes(spec: StudySpec, sample: Sequence[str], n_trials: int) -> float:
    """Return the passes of a text through the trunk: one for each cut and each masked form."""
    space = spec.space
    levels = range(space.masking_level[0], space.masking_level[1] + 1)
    texts = sum(len({mask(text, level) for level in levels}) for text in sample) / len(sample)
    # no adapted layer, and one, read the same cut
    deep = max(1, space.adapted_layers[1]) - max(1, space.adapted_layers[0])
    cuts = (deep + 1) * (space.layers_dropped[1] - space.layers_dropped[0] + 1)
    return min(texts * cuts, 1.0 + n_trials)


def _steps(spec: StudySpec) -> float:
    """Return the steps of a trial: the mean over the space's halvings of the batch."""
    low, high = spec.space.batch_halvings
    return spec.training.steps * sum(1 << halvings for halvings in range(low, high + 1)) / (high + 1 - low)


def _passes_a_step(prepared: PreparedStudy) -> float:
    """Return the cost of an example of a shadow in a step, in passes through the trunk.

    It is the mean over the depths of the space.
    """
    model, (low, high) = prepared.model.base.model, prepared.spec.space.adapted_layers
    blocks = int(model.config.num_hidden_layers)

    def of(layers: int) -> float:
        if layers == 0:
            return 0.0
        if prepared.model.engine == "opacus":
            adapted = blocks if prepared.spec.training.adaptation in ("prefix", "full") else layers
            return _WHOLE + _ADAPTED * adapted / blocks
        return (_ONE_TOKEN if layers == 1 and supports_fast_lane(model) else _ALL_TOKENS * layers) / blocks

    return sum(of(layers) for layers in range(low, high + 1)) / (high + 1 - low)


def _kinds(prepared: PreparedStudy, policy: Policy, epsilon: float) -> list[list[Event]]:
    """Return the events of one trial at an epsilon, for each number of halvings."""
    answers = planned_answers(policy, expected_floors(prepared.spec, prepared.data.n_units))
    return [[run, *answers] for run in runs_at(prepared, epsilon)]


def _planned(private_part: float, policy: Policy, delta: float) -> ComposedEpsilon:
    """Add the status quo, which trains without DP if the policy allows it."""
    return ComposedEpsilon(private_part=private_part, delta=delta, includes_non_private=policy.allows_reference)


def _holds(prepared: PreparedStudy, policy: Policy, n_trials: int) -> str:
    answers = planned_answers(policy, expected_floors(prepared.spec, prepared.data.n_units))
    limit = budget_filter(policy, prepared, answers)
    if limit is None:
        return guarantee(prepared, policy, answers, n_trials)[1] or "an odometer, not a guarantee: results stay inside"
    low, high = prepared.spec.space.target_epsilon
    ends = {f"{e:g}": _kinds(prepared, policy, e) for e in (low, (low * high) ** 0.5, high)}
    fits = [str(min(limit.room(kind, counts(policy)) for kind in kinds)) for kinds in ends.values()]
    several = len(next(iter(ends.values()))) > 1
    return Message(
        "the budget admits at least {trials} trials, were all at epsilon {epsilons}"
        if several
        else "the budget admits {trials} trials, were all at epsilon {epsilons}",
        trials=joined(", ", fits),
        epsilons=joined(", ", ends),
    )
