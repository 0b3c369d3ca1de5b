"""Lock on a study's folder: one process at a time writes to it."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from moo.core.errors import StorageError


@contextmanager
def locked_folder(home: Path) -> Iterator[None]:
    """Create a study's folder, mode 0700, and hold it for one process until the block ends.

    Raises:
        StorageError: If another process holds the folder, or it cannot be written.
    """
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        home.chmod(0o700)
        # held until the end of the block
        lock = open(home / ".lock", "w")  # noqa: SIM115
    except OSError as error:
        raise _unwritable(home, error) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StorageError(
                "The study's folder allows one run at a time, but another holds {home}. Wait until it ends.",
                home=home,
            ) from None
        try:
            yield
        except OSError as error:
            if isinstance(error, StorageError) or error.errno is None:
                raise
            raise _unwritable(home, error) from error


def _unwritable(home: Path, error: OSError) -> StorageError:
    return StorageError(
        "The study's folder must be writable, but {home} is not: {strerror}. Free the disk, or name another folder.",
        home=home,
        strerror=error.strerror,
    )
