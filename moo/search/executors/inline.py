"""Executor that evaluates in the driver itself."""

from collections.abc import Iterator, Sequence
from types import TracebackType

from moo.search.executors.base import Evaluate, Executor, safely
from moo.search.types import Candidate, Outcome


class Inline(Executor):
    """Evaluates in the driver itself."""

    def __init__(self, evaluate: Evaluate) -> None:
        self._evaluate = evaluate

    def start(self, jobs: int) -> None:
        """Nothing is to be made ready."""

    def run(self, candidates: Sequence[Candidate]) -> Iterator[tuple[Candidate, Outcome | None]]:
        for candidate in candidates:
            yield candidate, safely(self._evaluate, candidate)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing is to be ended."""
