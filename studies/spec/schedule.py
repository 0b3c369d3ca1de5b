"""Training schedule of a trial: the study's steps and batches, halved as often as the trial says."""

from dataclasses import dataclass

from moo.core.errors import InputError
from moo.core.trial_record import TrialParams
from moo.studies.spec.training import TrainingSpec


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Steps and batches of one training.

    Attributes:
        steps: Optimizer steps.
        sample_rate: Probability with which a unit enters a step's batch.
        head_learning_rate: Step size of the head.
    """

    steps: int
    sample_rate: float
    head_learning_rate: float


def training_schedule(params: TrialParams, training: TrainingSpec) -> Schedule:
    """Return a trial's schedule: each halving halves the batch and the head's step size, and doubles the steps.

    Passes over the data stay the same, and so does the reach of the head (ADR 27).
    """
    times = 2**params.batch_halvings
    return Schedule(
        steps=training.steps * times,
        sample_rate=training.sample_rate / times,
        head_learning_rate=training.head_learning_rate / times,
    )


def check_batches(training: TrainingSpec, halvings: int, expected_units: int) -> None:
    """Raise if so many halvings leave less than one expected unit in a batch.

    Args:
        training: Training of the study.
        halvings: Number of halvings.
        expected_units: Number of units that a shadow is expected to train on.

    Raises:
        InputError: If they do; names the largest number that does not.
    """
    expected = training.sample_rate * expected_units
    if halvings and expected < 2**halvings:
        most = max(0, int(expected).bit_length() - 1)
        raise InputError(
            "batch_halvings must be <= {most} for one of {expected_units} units to be expected in a batch, "
            "got {halvings}; lower space.batch_halvings, or raise training.sample_rate.",
            most=most,
            expected_units=expected_units,
            halvings=halvings,
        )
