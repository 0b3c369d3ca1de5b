"""Where candidates are evaluated. Whichever it is, in whatever order they finish, the result is the same."""

import multiprocessing
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing.queues import SimpleQueue
from typing import Any

from moo import validate
from moo.errors import TrialError
from moo.search.types import Candidate, Outcome

Evaluate = Callable[[Candidate], Outcome]
NAMES = ("inline", "processes")


def safely(evaluate: Evaluate, candidate: Candidate) -> Outcome:
    """The outcome; a trial that fails with `TrialError` becomes an outcome with its cause."""
    try:
        return evaluate(candidate)
    except TrialError as error:
        return Outcome(values={}, constraints={}, payload={"error": str(error)}, cause=error.cause)


def run(
    evaluate: Evaluate,
    candidates: Sequence[Candidate],
    *,
    executor: str,
    workers: int,
    environments: Sequence[Mapping[str, str]] = (),
) -> Iterator[tuple[Candidate, Outcome]]:
    """Outcomes as they are finished.

    Args:
        evaluate: For "processes" it must be picklable.
        candidates: What to evaluate.
        executor: "inline" or "processes" (spawned, so that no thread pool or CUDA context is inherited).
        workers: Processes at a time.
        environments: Variables of each process, set before it imports anything of the evaluation: a device of its own, say.
    """
    validate.one_of(NAMES, executor=executor)
    validate.in_range(1, 4096, workers=workers)
    if executor == "inline" or not candidates:
        for candidate in candidates:
            yield candidate, safely(evaluate, candidate)
        return
    context = multiprocessing.get_context("spawn")
    free = context.SimpleQueue()
    for environment in environments:
        free.put(dict(environment))
    own: dict[str, Any] = {"initializer": _enter, "initargs": (free,)} if environments else {}
    with ProcessPoolExecutor(workers, mp_context=context, **own) as pool:
        futures = {pool.submit(safely, evaluate, c): c for c in candidates}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _enter(free: "SimpleQueue[dict[str, str]]") -> None:
    """Take one environment for the life of this process."""
    os.environ.update(free.get())
