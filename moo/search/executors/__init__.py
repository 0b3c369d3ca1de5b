"""Executors: places of evaluation. The result is the same in any of them and in any order."""

from collections.abc import Mapping, Sequence

from moo.core import validate
from moo.core.errors import InputError
from moo.search.executors.base import RAISED, Evaluate, Executor
from moo.search.executors.inline import Inline
from moo.search.executors.processes import Processes

__all__ = ["NAMES", "RAISED", "Evaluate", "Executor", "Inline", "Processes", "executor_of"]

NAMES = ("inline", "processes")


def executor_of(
    evaluate: Evaluate, *, executor: str, workers: int, environments: Sequence[Mapping[str, str]] = ()
) -> Executor:
    """Return the executor of this name.

    Args:
        evaluate: From a candidate to its outcome. For "processes" it must be picklable; each worker
            loads it once.
        executor: "inline" or "processes" (spawned, so that no thread pool or CUDA context is
            inherited).
        workers: Processes at a time.
        environments: Variables of each process, set before it imports anything of the evaluation,
            e.g. its own device.

    Raises:
        InputError: If an argument is out of bounds.
    """
    validate.one_of(NAMES, executor=executor)
    validate.in_range(1, 4096, workers=workers)
    if executor == "inline":
        return Inline(evaluate)
    if environments and workers > len(environments):
        raise InputError(
            "workers must be <= {n_environments}, one for each environment, got {workers}.",
            n_environments=len(environments),
            workers=workers,
        )
    return Processes(evaluate, workers, environments)
