"""Where candidates are evaluated. Whichever it is, in whatever order they finish, the result is the same."""

import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing.queues import SimpleQueue

from moo import validate
from moo.errors import TrialError
from moo.search.types import Candidate, Outcome

Evaluate = Callable[[Candidate], Outcome]
NAMES = ("inline", "processes")
_LOOK = 0.2  # seconds between two looks of a worker whether its driver lives


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
    entered = (free if environments else None, os.getpid())
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_enter, initargs=entered) as pool:
        futures = {pool.submit(safely, evaluate, c): c for c in candidates}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _enter(free: "SimpleQueue[dict[str, str]] | None", driver: int) -> None:
    """Take one environment for the life of this process, and end with the driver: what trains on after it is charged to nobody."""
    if free is not None:
        os.environ.update(free.get())
    threading.Thread(target=_end_with, args=(driver,), daemon=True).start()


def _end_with(driver: int) -> None:
    while os.getppid() == driver:
        time.sleep(_LOOK)
    os._exit(1)
