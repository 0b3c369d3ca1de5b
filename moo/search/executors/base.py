"""Contract of executors, and the evaluation of one candidate."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Self

from moo.core.errors import InputError, TrialError
from moo.search.types import Candidate, Outcome

Evaluate = Callable[[Candidate], Outcome]

# First words of the note of an error that the evaluation itself raised.
RAISED = "raised by evaluate"


def safely(evaluate: Evaluate, candidate: Candidate) -> Outcome:
    """Return the outcome; `TrialError` becomes an outcome with its cause.

    Raises:
        InputError: If the evaluation returns anything else.
    """
    try:
        outcome = evaluate(candidate)
    except TrialError as error:
        return Outcome(values={}, constraints={}, payload={"error": str(error)}, cause=error.cause)
    except OSError as error:
        # not to be taken for an error of the storage
        error.add_note(f"{RAISED} for trial {candidate.number}")
        raise
    if not isinstance(outcome, Outcome):
        raise InputError(
            "evaluate must return an Outcome, got {outcome!r} for trial {number}.",
            outcome=outcome,
            number=candidate.number,
        )
    return outcome


class Executor(ABC):
    """A place of evaluation with a life: entered once for a whole search."""

    def __enter__(self) -> Self:
        return self

    @abstractmethod
    def start(self, jobs: int) -> None:
        """Make ready for this many candidates, before anything is charged for them."""

    @abstractmethod
    def run(self, candidates: Sequence[Candidate]) -> Iterator[tuple[Candidate, Outcome | None]]:
        """Yield outcomes as they are finished; None where the process that evaluated died."""

    @abstractmethod
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End all processes, at once where an error ends the search."""
