"""GPU of each worker of a study: one a process."""

import os
from collections.abc import Mapping

import torch

from moo.core.errors import InputError
from moo.studies.spec.runtime import RuntimeSettings

VISIBLE = "CUDA_VISIBLE_DEVICES"


def worker_environments(machine: RuntimeSettings, *, executor: str, workers: int) -> tuple[Mapping[str, str], ...]:
    """Return the environment that gives each worker its GPU; empty on the CPU or inline.

    Raises:
        InputError: If there are more workers than GPUs: two trainings on one would slow or starve each other.
    """
    if executor == "inline" or machine.accelerator == "cpu" or not torch.cuda.is_available():
        return ()
    named = os.environ.get(VISIBLE)
    gpus = named.split(",") if named else [str(i) for i in range(torch.cuda.device_count())]
    if workers > len(gpus):
        raise InputError(
            "workers must be <= {n_gpus}, the GPUs that torch sees, got workers={workers}. Take fewer workers.",
            n_gpus=len(gpus),
            workers=workers,
        )
    return tuple({VISIBLE: name} for name in gpus[:workers])
