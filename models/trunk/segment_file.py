r"""Segments of the trunk cache: immutable files, written whole, read through memory maps.

One file (mode 0600) holds the activations of some texts, little-endian:

    "moo trunk 1\\n" padded to 16 bytes | u32 texts | u32 width d | u32 checksum of the rows | u32 zero
    | per text: key, first token, tokens, truncated + 2 exponent, checksum of its data
    | float32 (texts, 2 d): mean and pooled token of the frozen output
    | float16 (tokens, d): inputs of the first live block over 2^exponent, so that none exceeds fp16's range

The file gets its name at the end (`os.replace`), so that a reader sees a whole file or none. A
process that has a segment mapped keeps reading it when another process removes it.
"""

import mmap
import os
import struct
import zlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

ROW = np.dtype([("key", "V32"), ("start", "<u8"), ("length", "<u4"), ("truncated", "<u4"), ("data", "<u4")])
SUFFIX = ".segment"
# Default size limit of a cache, GiB.
LIMIT_GIB = 20.0
_MAGIC = b"moo trunk 1\n".ljust(16, b"\0")
_HEAD = struct.Struct("<16sIIII")


@dataclass(frozen=True)
class Entry:
    """Activations of one text.

    Attributes:
        tokens: Shape (length, d), fp16, over 2^exponent.
        frozen: Shape (2 d,), fp32. Mean over tokens, then the pooled token.
        truncated: True if the text was longer than the part that was kept.
        exponent: Power of two, >= 0; above 0 where an activation exceeds fp16's range, as that of a
            decoder's first token can.
    """

    tokens: NDArray[np.float16]
    frozen: NDArray[np.float32]
    truncated: bool
    exponent: int = 0


class Segment:
    """One segment file, mapped into memory.

    Args:
        path: The file.
        width: Width d of an activation.

    Raises:
        ValueError: If the file is torn or foreign.
        OSError: If it cannot be opened; another process may have removed it.
    """

    def __init__(self, path: Path, width: int) -> None:
        self.path, self._width = path, width
        self.size = path.stat().st_size
        if self.size < _HEAD.size:
            raise ValueError(f"{path} must be a whole segment, but is shorter than its head.")
        with path.open("rb") as file:
            self._mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        raw = np.frombuffer(self._mapped, np.uint8)
        magic, n, d, checksum, _ = _HEAD.unpack(raw[: _HEAD.size].tobytes())
        features = _HEAD.size + n * ROW.itemsize
        tokens = features + n * 8 * width
        if magic != _MAGIC or d != width or tokens > self.size:
            raise ValueError(f"{path} must be a whole segment of width {width}, but is not.")
        rows = raw[_HEAD.size : features].tobytes()
        if zlib.crc32(rows) != checksum:
            raise ValueError(f"{path} must be a whole segment, but its rows are damaged.")
        self.rows = np.frombuffer(rows, ROW)
        self._features = raw[features:tokens].view("<f4").reshape(n, 2 * width)
        whole = (self.size - tokens) // (2 * width)
        if n and int(self.rows[-1]["start"]) + int(self.rows[-1]["length"]) > whole:
            raise ValueError(f"{path} must be a whole segment, but ends within its tokens.")
        self._tokens = raw[tokens : tokens + 2 * width * whole].view("<f2").reshape(whole, width)

    def keys(self) -> list[bytes]:
        """Return the keys in the order of the rows."""
        return [key.tobytes() for key in self.rows["key"]]

    def release_pages(self) -> None:
        """Drop read pages from this process's memory; rereading them from the page cache is cheap."""
        if hasattr(mmap, "MADV_DONTNEED"):
            self._mapped.madvise(mmap.MADV_DONTNEED)

    def read(self, i: int) -> Entry | None:
        """Return a text's activations, as views of the file; None if they fail their checksum."""
        row = self.rows[i]
        tokens = self._tokens[int(row["start"]) : int(row["start"]) + int(row["length"])]
        if _checksum(tokens, self._features[i]) != row["data"]:
            return None
        return Entry(tokens, self._features[i], bool(row["truncated"] & 1), int(row["truncated"]) >> 1)


def write_segment(path: Path, keys: Sequence[bytes], entries: Sequence[Entry], *, width: int) -> None:
    """Write a whole segment, or leave nothing.

    Args:
        path: Final name of the file.
        keys: One key of 32 bytes per text.
        entries: One entry per text.
        width: Width d of an activation.

    Raises:
        OSError: If the disk is full or the folder is not writable.
    """
    rows, start = np.zeros(len(keys), ROW), 0
    for i, (key, entry) in enumerate(zip(keys, entries, strict=True)):
        marks = entry.truncated + 2 * entry.exponent
        rows[i] = (np.void(key), start, len(entry.tokens), marks, _checksum(entry.tokens, entry.frozen))
        start += len(entry.tokens)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with os.fdopen(os.open(temporary, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "wb") as out:
            out.write(_HEAD.pack(_MAGIC, len(rows), width, zlib.crc32(rows.tobytes()), 0))
            out.write(rows.tobytes())
            for entry in entries:
                out.write(_bytes(entry.frozen, "<f4"))
            for entry in entries:
                out.write(_bytes(entry.tokens, "<f2"))
        os.replace(temporary, path)
    finally:
        with suppress(OSError):
            temporary.unlink()


def _checksum(tokens: NDArray[np.float16], frozen: NDArray[np.float32]) -> int:
    return zlib.crc32(_bytes(frozen, "<f4"), zlib.crc32(_bytes(tokens, "<f2")))


def _bytes(array: NDArray[np.generic], kind: str) -> bytes:
    return np.ascontiguousarray(array, kind).tobytes()
