"""An evaluation of workers' devices, in a module that does not import PyTorch: each worker imports it."""

import os

from moo.search import Candidate, Outcome


def seen_device(candidate: Candidate) -> Outcome:
    """Return the device that the worker sees, and its process."""
    payload = {"device": os.environ["CUDA_VISIBLE_DEVICES"], "process": os.getpid(), "number": candidate.number}
    return Outcome(values={}, constraints={}, payload=payload)
