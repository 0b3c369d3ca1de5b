"""Progress of a running study, as its callbacks receive it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from moo.core.trial_record import TrialRecord
from moo.privacy.composed_epsilon import ComposedEpsilon, compose

if TYPE_CHECKING:
    from moo.search import Progress, SearchTrial

NOTHING_SPENT = compose([], delta=0.0)


@dataclass(frozen=True, kw_only=True)
class StudyProgress:
    """Progress of a study; every callback receives it.

    Attributes:
        trials: Finished trials, without the status quo.
        reference: Status quo, once it has run.
        newest: Trial that has just finished; None between trials.
        n_trials: Trials in all.
        composed_epsilon: Epsilon of the trials so far and those reserved for their generation, for a unit in K/2
            shadows of each.
        stage: Name of the step that runs now.
        stage_done: Items of the step that are done.
        stage_total: Items of the step in all; 0 if they are not counted.
    """

    trials: tuple[TrialRecord, ...]
    reference: TrialRecord | None
    newest: TrialRecord | None
    n_trials: int
    composed_epsilon: ComposedEpsilon = NOTHING_SPENT
    stage: str = ""
    stage_done: int = 0
    stage_total: int = 0


Callback = Callable[[StudyProgress], None]


@dataclass
class Watch:
    """Source of `StudyProgress` for the callbacks.

    Attributes:
        callbacks: Receivers.
        n_trials: Trials in all.
        trials: Finished trials.
        reference: Status quo, once it has run.
        compose: Function that returns the composed epsilon.
        composed_epsilon: Epsilon at the newest trial.
        secret: Stage to report instead of all else if trials and their number stay secret; empty reports all.
    """

    callbacks: Sequence[Callback]
    n_trials: int
    trials: tuple[TrialRecord, ...] = ()
    reference: TrialRecord | None = None
    compose: Callable[[], ComposedEpsilon] = lambda: NOTHING_SPENT
    composed_epsilon: ComposedEpsilon = NOTHING_SPENT
    secret: str = ""

    def stage(self, what: str, done: int, total: int) -> None:
        self._tell(None, self.secret or what, 0 if self.secret else done, 0 if self.secret else total)

    def trial(self, progress: "Progress") -> None:
        if self.secret:
            return
        self.trials = tuple(record_of(t) for t in progress.done)
        self.composed_epsilon = self.compose()
        self._tell(record_of(progress.newest), "", 0, 0)

    def _tell(self, newest: TrialRecord | None, what: str, done: int, total: int) -> None:
        for callback in self.callbacks:
            callback(
                StudyProgress(
                    trials=self.trials,
                    reference=self.reference,
                    newest=newest,
                    n_trials=self.n_trials,
                    composed_epsilon=self.composed_epsilon,
                    stage=what,
                    stage_done=done,
                    stage_total=total,
                )
            )


def record_of(trial: "SearchTrial") -> TrialRecord:
    """Return the record that the evaluator left in a trial of the search."""
    return TrialRecord.from_json(trial.outcome.payload)
