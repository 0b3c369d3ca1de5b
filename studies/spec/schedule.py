"""How often and in which batches a trial's shadows step: the study's recipe, its batches halved as the trial says."""

from dataclasses import dataclass

from moo.core.errors import InputError
from moo.core.trial_record import TrialParams
from moo.studies.spec.study import TrainingSpec


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Of one training.

    Attributes:
        steps: Optimizer steps.
        sample_rate: Probability with which a unit enters a step's batch.
        head_learning_rate: Step size of the head.
    """

    steps: int
    sample_rate: float
    head_learning_rate: float


def recipe_of(params: TrialParams, training: TrainingSpec) -> Recipe:
    """Each halving takes half of the expected batch, twice the steps and half of the head's step size (ADR 27).

    Passes over the data stay the same, and so does how far the head can go.
    """
    times = 2**params.batch_halvings
    return Recipe(
        steps=training.steps * times,
        sample_rate=training.sample_rate / times,
        head_learning_rate=training.head_learning_rate / times,
    )


def refuse_empty_batches(training: TrainingSpec, halvings: int, expected_units: int) -> None:
    """Halvings after which less than one unit is expected in a batch.

    Raises:
        InputError: With the most that leave one.
    """
    expected = training.sample_rate * expected_units
    if halvings and expected < 2**halvings:
        most = max(0, int(expected).bit_length() - 1)
        raise InputError(
            "batch_halvings <= {most} must hold for one of {expected_units} units to be expected in "
            "a batch, but got {halvings}; lower space.batch_halvings, or raise training.sample_rate.",
            most=most,
            expected_units=expected_units,
            halvings=halvings,
        )
