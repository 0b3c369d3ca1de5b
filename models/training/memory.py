"""Release of freed memory to the operating system."""

import ctypes
import sys


def release_free_memory() -> None:
    """Return free heap pages to the operating system (glibc only; a no-op elsewhere).

    glibc keeps pages below a block in use.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)
