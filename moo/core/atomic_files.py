"""Text files that are there whole or not at all."""

import os
from pathlib import Path


def write_whole(path: Path, text: str) -> Path:
    """Write a text file whole: to a temporary file first, which then takes the name.

    A reader, or a run that was killed, never leaves half a file behind.

    Raises:
        OSError: If the folder cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)
    return path
