"""One trial: parameters in, evidence out, and the record that the objectives make of it."""

import dataclasses
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal, cast

import numpy as np
from numpy.typing import NDArray

from moo.core.errors import TrialError
from moo.core.evidence import PrivacyEvidence, TrialEvidence, UtilityEvidence
from moo.core.measurement import Measurement
from moo.core.trial_record import (
    ABOVE_MAJORITY,
    ACCURACY,
    ALARM,
    MAJORITY,
    PENALTY,
    RISK,
    STATUS_QUO_TRIAL,
    TrialParams,
    TrialRecord,
)
from moo.data.keyed_split import complementary_pairs
from moo.models.bank.lightning_module import OptimizerSettings, is_out_of_memory, log_probs
from moo.models.dp.optimizer import DPSettings
from moo.models.train import Trained, TrainingData, TrainingSettings, train
from moo.models.training.memory import release_free_memory
from moo.objectives.compliance import evaluate as judge_compliance
from moo.objectives.compliance.facts import privacy_facts, utility_facts
from moo.objectives.utility.accuracy import above_majority, accuracy, majority_accuracy
from moo.privacy.calibration import calibrate_noise
from moo.privacy.claims import claim
from moo.privacy.composition import epsilon_pld
from moo.privacy.events import TrainingRun
from moo.privacy.keys import StudyKey
from moo.privacy.tradeoff import advantage_ceiling, tpr_ceiling
from moo.studies.setup.legal_gates import without_gates
from moo.studies.setup.partition import PARTS
from moo.studies.setup.prepared import MaskedPart, Prepared, trial_depth
from moo.studies.spec.schedule import check_batches, training_schedule
from moo.studies.spec.study import StudySpec
from moo.studies.trial.baseline import base_losses, baseline_accuracy
from moo.studies.trial.evidence import attribute_of, losses_of, membership_of
from moo.studies.trial.membership import judge_membership
from moo.studies.trial.paths import checkpoint_of, logs_of

if TYPE_CHECKING:
    from moo.models.generation.generator import TrainedGenerator

VALID_SHARE = 0.05  # policy: of records that masking may leave without a word
FEW = 10  # degrees of freedom of a risk's error below which its interval is said to be widened
VALIDITY = "validity"
BUDGETED = "budgeted"  # flag of a study whose policy fixes a budget before the first trial
CONSTRAINTS = ("max_risk", "max_penalty", VALIDITY)


def planned_run(
    params: TrialParams,
    spec: StudySpec,
    expected_units: int,
    unit: str,
    *,
    shadows_per_unit: int | None = None,
    part: str = "pool",
) -> TrainingRun:
    """The event of one model's training, known before it starts: noise calibrated so that epsilon <= target.

    Args:
        params: The configuration.
        spec: The study.
        expected_units: That the model is trained on; public.
        unit: What is protected.
        shadows_per_unit: Models of the trial that a unit takes part in; K / 2 by default.
        part: Whose units they are.

    Raises:
        InputError: If batches are halved until less than one unit is expected in one.
    """
    t = spec.training
    schedule = training_schedule(params, t)
    check_batches(t, params.batch_halvings, expected_units)
    noise = calibrate_noise(
        target_epsilon=params.target_epsilon,
        delta=t.target_delta,
        sample_rate=schedule.sample_rate,
        steps=schedule.steps,
    )
    return TrainingRun(
        sample_rate=schedule.sample_rate,
        steps=schedule.steps,
        noise_multiplier=noise,
        max_grad_norm=t.max_grad_norm,
        delta=t.target_delta,
        n_units=expected_units,
        unit=unit,
        shadows_per_unit=t.n_shadows // 2 if shadows_per_unit is None else shadows_per_unit,
        part=part,
    )


def run_trial(
    params: TrialParams, prepared: Prepared, *, number: int, replicate: int = 0, attempt: str = ""
) -> TrialEvidence:
    """Train K shadows on complementary halves of the pool, and gather what the objectives judge.

    Args:
        params: The configuration.
        prepared: The study.
        number: Of the trial; every stream of randomness is the trial's own.
        replicate: How often the configuration ran before.
        attempt: What its checkpoints name it by.

    Raises:
        TrialError: If training fails; with its cause.
    """
    seconds: dict[str, float] = {}
    spec, key = prepared.spec, prepared.trial_key(params, number=number, replicate=replicate)
    started = time.perf_counter()
    prepared.let_go("test", "unseen")  # of a trial before; nobody needs them until the shadows are trained
    parts = {"pool": prepared.masked("pool", params.masking_level, params)}
    masking = prepared.masking_facts(params.masking_level)
    seconds["masking and trunk"] = time.perf_counter() - started

    run = planned_run(params, spec, prepared.expected_units, prepared.records.unit_name)
    members = {part: _members(prepared, part, key) for part in ("pool", "unseen")}
    pool = prepared.parts["pool"]
    data = TrainingData(
        packed=parts["pool"].packed,
        labels=pool.labels,
        units=pool.units,
        members=members["pool"],
        n_classes=len(pool.classes),
    )
    release_free_memory()  # what the trunk has freed
    prepared.stage(f"training {spec.training.n_shadows} shadows", 0, 0)
    settings = training_settings(params, spec, run, engine=prepared.engine)
    trained = train(
        data,
        dataclasses.replace(
            settings, checkpoint=checkpoint_of(prepared, number, attempt), logs=logs_of(prepared, number)
        ),
        prepared.frozen(params),
        key.generator,
    )
    seconds["training"] = trained.seconds

    started = time.perf_counter()
    parts |= {part: prepared.masked(part, params.masking_level, params) for part in PARTS}
    seconds["masking and trunk"] += time.perf_counter() - started

    started = time.perf_counter()
    predicted = {part: log_probs(trained.bank, parts[part].packed).numpy().astype(np.float64) for part in PARTS}
    if not all(np.isfinite(p).all() for p in predicted.values()):
        raise TrialError(
            "the losses must be finite, but some are not; lower the learning rate.", cause="non-finite loss"
        )
    losses = {part: losses_of(prepared, part, predicted[part]) for part in PARTS}
    hardness = base_losses(prepared, {part: parts[part].packed for part in PARTS})
    seconds["prediction"] = time.perf_counter() - started
    done = as_it_ran(run, trained)
    privacy = PrivacyEvidence(
        epsilon_spent=epsilon_pld(done),
        delta=done.delta,
        n_units=prepared.all_units,
        records_per_user=prepared.records_per_user,
        noise_multiplier=done.noise_multiplier,
        sample_rate=done.sample_rate,
        steps=done.steps,
        claim=claim(
            done, prepared.records.transformations, ledger_covered=prepared.covered, n_units=prepared.all_units
        ),
    )
    test = prepared.parts["test"]
    utility = UtilityEvidence(
        log_probs=predicted["test"], labels=test.labels, units=test.units, groups=dict(test.groups)
    )
    facts = {
        **prepared.data_facts,
        **masking,
        **privacy_facts(privacy),
        **utility_facts(utility),
        **(
            {"privacy.over_budget": 0.0} if BUDGETED in prepared.flags else {}
        ),  # admitted before it trained, or not here
        "masking.wordless_share": float(parts["pool"].wordless.mean()),
        "training.truncated": float(sum(p.packed.truncated for p in parts.values())),
        "training.non_finite": float(trained.non_finite),
    }
    return TrialEvidence(
        params=params,
        membership=membership_of(prepared, "pool", losses, members["pool"], hardness, population="unseen"),
        unseen=membership_of(prepared, "unseen", losses, members["unseen"], hardness, population="test"),
        utility=utility,
        privacy=privacy,
        facts=facts,
        attribute=attribute_of(prepared, predicted["pool"], members["pool"]),
        outputs=predicted["pool"] if pool.groups else None,
        seconds=seconds,
        resumed_at=trained.resumed_at,
        notices=_notices(parts, trained, spec),
    )


@contextmanager
def within_memory() -> Iterator[None]:
    """Where memory ends, the trial has failed and not the study.

    Raises:
        TrialError: In its place.
    """
    try:
        yield
    except TrialError:
        raise
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise TrialError("the trial must fit into memory, but: {error}", error=error, cause="out of memory") from error


def _notices(parts: Mapping[str, MaskedPart], trained: Trained, spec: StudySpec) -> tuple[str, ...]:
    """What a person should know of how the trial ran."""
    out = [notice for part in parts.values() for notice in part.notices] + list(trained.notices)
    texts, cut = sum(len(p.spans) for p in parts.values()), sum(p.packed.truncated for p in parts.values())
    if cut:
        out.append(f"{cut} of {texts} texts were longer than {spec.training.max_length} tokens and were cut there")
    if trained.chunk < spec.machine.chunk:
        out.append(
            f"memory ended: {trained.chunk} records of a shadow were computed at a time in place of {spec.machine.chunk}"
        )
    if trained.non_finite:
        out.append(f"{trained.non_finite} gradients of units were not finite and contributed zero")
    return tuple(dict.fromkeys(out))


def _members(prepared: Prepared, part: str, key: StudyKey) -> NDArray[np.bool_]:
    """Who is trained on what, shape (K, n): coins of units, tossed anew for every trial."""
    records, k = prepared.parts[part], prepared.spec.training.n_shadows
    return complementary_pairs(records.unit_ids, k, key.derive("pairs", part))[:, records.units]


def training_settings(
    params: TrialParams, spec: StudySpec, run: TrainingRun, *, engine: Literal["bank", "opacus"]
) -> TrainingSettings:
    """The run of a configuration as the engine takes it."""
    t, schedule = spec.training, training_schedule(params, spec.training)
    return TrainingSettings(
        depth=trial_depth(params, spec),
        lora_rank=params.lora_rank,
        lora_alpha=t.lora_alpha,
        sample_rate=schedule.sample_rate,
        steps=schedule.steps,
        dp=DPSettings(
            noise_multiplier=run.noise_multiplier,
            max_grad_norm=t.max_grad_norm if params.private else math.inf,
            expected_batch_size=schedule.sample_rate * run.n_units,
        ),
        optimizer=OptimizerSettings(
            learning_rate=params.learning_rate,
            head_learning_rate=schedule.head_learning_rate,
            head_momentum=t.head_momentum,
            chunk=spec.machine.chunk,
        ),
        accelerator=spec.machine.accelerator,
        trainer=spec.machine.trainer,
        engine=engine,
        adaptation=cast(Literal["lora", "prefix", "bottleneck", "full"], t.adaptation),
    )


def as_it_ran(run: TrainingRun, trained: "Trained | TrainedGenerator") -> TrainingRun:
    """Return the planned event with what was seen of the engine: its steps, sampler, divisor, and steps that lacked noise."""
    public = math.isclose(trained.expected_batch_size, run.sample_rate * run.n_units)
    seen, claimed = trained.observed, run.noise_multiplier * run.max_grad_norm
    asked = math.isclose(seen.noise_std, claimed) or seen.noise_std > claimed
    return dataclasses.replace(
        run,
        steps=seen.steps,
        sampler=seen.drawn.sampler(run.sample_rate),
        normaliser="public" if public else "private",
        zero_noise_steps=seen.steps - (seen.noisy_steps if asked else 0) if run.private else 0,
        bare_tensors=(seen.bare if asked else "every tensor") if run.private else "",
    )


def judge(evidence: TrialEvidence, prepared: Prepared, *, number: int) -> TrialRecord:
    """Objectives, constraints and breakdown of one trial."""
    spec = prepared.spec
    compliance = without_gates(judge_compliance(evidence.facts, spec.packs, applies=prepared.flags), spec)
    told = judge_membership(evidence, spec)
    run = planned_run(evidence.params, spec, prepared.expected_units, prepared.records.unit_name)
    extras = {
        **told.extras,
        "epsilon_spent": Measurement(value=evidence.privacy.epsilon_spent),
        "noise_multiplier": Measurement(value=evidence.privacy.noise_multiplier),
        "risk_ceiling": ceiling_of(advantage_ceiling(run), told.advantage),
        MAJORITY: majority_accuracy(evidence.utility),
        ABOVE_MAJORITY: above_majority(evidence.utility),
    }
    extras["tpr_ceiling"] = ceiling_of(tpr_ceiling(run, 0.01), extras["tpr_at_1pct_fpr"])
    if number == STATUS_QUO_TRIAL:
        extras["baseline_accuracy"] = baseline_accuracy(prepared, evidence)
    constraints = {
        "max_risk": over_limit(told.risk, spec.max_risk),
        "max_penalty": compliance.penalty.value - spec.max_penalty,
        VALIDITY: (evidence.facts["masking.wordless_share"] or 0.0) - VALID_SHARE,
        **compliance.gates,
    }
    return TrialRecord(
        number=number,
        params=evidence.params,
        state="complete",
        objectives={ACCURACY: accuracy(evidence.utility), RISK: told.risk, PENALTY: compliance.penalty},
        constraints=constraints,
        extras=extras,
        contributions=compliance.contributions,
        claim=evidence.privacy.claim,
        seconds=evidence.seconds,
        resumed_at=evidence.resumed_at,
        notices=(*evidence.notices, *_widened(told.advantage, len(evidence.membership.members))),
    )


def _widened(advantage: Measurement, n_shadows: int) -> tuple[str, ...]:
    """Say that an interval is wide because its shadows are few for how much training varies."""
    if not advantage.df < FEW:
        return ()
    return (f"{n_shadows} shadows tell little of how much training varies: the interval of risk is widened for it",)


def over_limit(risk: Measurement, limit: float) -> float:
    """Return by how much the upper bound of a risk passes its limit; <= 0 is feasible.

    A point estimate would let the lucky ones of many noisy trials through. A risk that is not assessed, or whose error is not
    known, is not held: 1.
    """
    return risk.upper - limit if math.isfinite(risk.upper) else 1.0


def ceiling_of(ceiling: float, measured: Measurement) -> Measurement:
    """The largest value that the claimed epsilon allows any attack, with an alarm where the measured one's interval lies above."""
    alarm = f"{ALARM}: the attack is above what the claimed epsilon allows ({measured.low:.3f} > {ceiling:.3f})"
    return Measurement(value=ceiling, note=alarm if measured.low > ceiling else "")
