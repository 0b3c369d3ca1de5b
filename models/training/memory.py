"""Freed memory, given back to the system."""

import ctypes
import sys


def release_free_memory() -> None:
    """Let the system have the pages that are free; glibc keeps those that lie below a block in use, others have no such call."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)
