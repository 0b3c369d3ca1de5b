"""One GPU a process: which one each worker of a study sees."""

import os
from collections.abc import Mapping

import torch

from moo.core.errors import InputError
from moo.studies.spec.runtime import RuntimeSettings

VISIBLE = "CUDA_VISIBLE_DEVICES"


def devices(machine: RuntimeSettings, *, executor: str, workers: int) -> tuple[Mapping[str, str], ...]:
    """The environment of each worker, which names the one GPU that it sees; empty on the CPU and in one process.

    Raises:
        InputError: If there are more workers than GPUs: two trainings on one would slow, and could starve, each other.
    """
    if executor == "inline" or machine.accelerator == "cpu" or not torch.cuda.is_available():
        return ()
    named = os.environ.get(VISIBLE)
    found = named.split(",") if named else [str(i) for i in range(torch.cuda.device_count())]
    if workers > len(found):
        raise InputError(
            "workers <= {n_found}, the GPUs that torch sees, must hold, but got workers={workers}.",
            n_found=len(found),
            workers=workers,
        )
    return tuple({VISIBLE: name} for name in found[:workers])
