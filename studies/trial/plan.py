"""Plan of a trial: made once, then charged, trained and judged from."""

import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, cast

from moo.core.trial_record import TrialParams
from moo.models.bank.lightning_module import OptimizerSettings
from moo.models.dp.optimizer import DPSettings
from moo.models.train import Trained, TrainingSettings
from moo.privacy.calibration import calibrate_noise
from moo.privacy.events import TrainingRun
from moo.studies.setup.prepared import PreparedStudy
from moo.studies.setup.study_model import Engine, trial_depth
from moo.studies.spec.schedule import Schedule, check_batches, training_schedule
from moo.studies.spec.study import StudySpec

if TYPE_CHECKING:
    from moo.models.generation.generator import TrainedGenerator


@dataclass(frozen=True, kw_only=True)
class TrialPlan:
    """Plan of one training, known before it starts.

    Attributes:
        params: Configuration.
        schedule: Steps, batches and step sizes.
        run: Event that the ledger charges.
        settings: Settings of the engine.
    """

    params: TrialParams
    schedule: Schedule
    run: TrainingRun
    settings: TrainingSettings


def plan_trial(params: TrialParams, prepared: PreparedStudy) -> TrialPlan:
    """Return the plan of a trial of the search; calibrates its noise."""
    data = prepared.data
    return plan_training(
        params, prepared.spec, engine=prepared.model.engine, expected_units=data.expected_units, unit=data.unit
    )


def plan_training(
    params: TrialParams,
    spec: StudySpec,
    *,
    engine: Engine,
    expected_units: int,
    unit: str,
    shadows_per_unit: int | None = None,
    part: str = "pool",
) -> TrialPlan:
    """Return the plan of one training; arguments as in `planned_run`, and the engine."""
    run = planned_run(params, spec, expected_units, unit, shadows_per_unit=shadows_per_unit, part=part)
    settings = training_settings(params, spec, run, engine=engine)
    return TrialPlan(params=params, schedule=training_schedule(params, spec.training), run=run, settings=settings)


def planned_run(
    params: TrialParams,
    spec: StudySpec,
    expected_units: int,
    unit: str,
    *,
    shadows_per_unit: int | None = None,
    part: str = "pool",
) -> TrainingRun:
    """Return the event of one model's training: its noise is calibrated so that epsilon <= target.

    Args:
        params: Configuration.
        spec: The study.
        expected_units: Units that the model is trained on, expected; public.
        unit: Name of the unit of privacy.
        shadows_per_unit: Models of the trial that a unit takes part in; K / 2 by default.
        part: Part of the data that the units belong to.

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


def training_settings(params: TrialParams, spec: StudySpec, run: TrainingRun, *, engine: Engine) -> TrainingSettings:
    """Return the training of a configuration, as the engine takes it."""
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


def observed_run(run: TrainingRun, trained: "Trained | TrainedGenerator") -> TrainingRun:
    """Return the planned event with what the engine did.

    It takes steps, sampler, divisor, and steps without noise from what was observed.
    """
    public = math.isclose(trained.expected_batch_size, run.sample_rate * run.n_units)
    seen, claimed = trained.observed, run.noise_multiplier * run.max_grad_norm
    noisy_enough = math.isclose(seen.noise_std, claimed) or seen.noise_std > claimed
    return dataclasses.replace(
        run,
        steps=seen.steps,
        sampler=seen.drawn.sampler(run.sample_rate),
        normaliser="public" if public else "private",
        zero_noise_steps=seen.steps - (seen.noisy_steps if noisy_enough else 0) if run.private else 0,
        bare_tensors=(seen.bare if noisy_enough else "every tensor") if run.private else "",
    )
