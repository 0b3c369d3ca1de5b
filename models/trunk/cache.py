"""Trunk cache: activations of texts in the study's folder, under keys that reveal no text.

A folder of mode 0700 holds segments (`moo.models.trunk.segment_file`). Any number of processes read
and add to them without waiting for one another. Above the size limit, the least recently used
segments are removed. A torn segment, or one in which a text fails its checksum, is removed too; its
activations are computed and written again. Where nothing can be written, activations are computed
and not kept; `notices` says so.
"""

import errno
import hashlib
import hmac
import math
import os
import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from moo.core import validate
from moo.core.messages import Message
from moo.models.pretrained.architectures import Cut, is_causal
from moo.models.pretrained.loading import BaseModel
from moo.models.trunk.constants import Constants
from moo.models.trunk.encode import Encoded, encode, last_cut
from moo.models.trunk.packed import Packed
from moo.models.trunk.segment_file import LIMIT_GIB, ROW, SUFFIX, Entry, Segment, write_segment

Feature = Literal["mean", "pooled", "none"]
# Texts that a crash can lose.
TEXTS_A_SEGMENT = 512
# Seconds without a write after which a temporary file is abandoned.
ABANDONED = 3600.0


class TrunkCache:
    """Activations under keyed digests of weights, first live block, length, precision and text.

    The digest also covers the pooling of the output.

    Args:
        folder: Folder of the segments; created if missing, mode 0700.
        key: Secret of the data set; a plain digest would answer "was this text here?".
        base: Base model.
        max_length: Tokens kept of each text.
        cut: Live blocks; by default the last one.
        limit_gib: Size on disk in GiB above which the least recently used segments are removed; 0
            keeps nothing.

    Attributes:
        notices: Messages for a person: texts that were not kept, segments that were damaged.
    """

    def __init__(
        self,
        folder: Path,
        key: bytes,
        base: BaseModel,
        *,
        max_length: int,
        cut: Cut | None = None,
        limit_gib: float = LIMIT_GIB,
    ) -> None:
        validate.in_range(0, 1e6, limit_gib=limit_gib)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.notices: list[Message] = []
        self._folder, self._key, self._base, self._max_length = folder, key, base, max_length
        self._cut = last_cut(base) if cut is None else cut
        # Earlier entries under "whole" alone may hold a decoder's first token in place of its last.
        self._pooled = "whole, last" if is_causal(base.model) else "whole"
        self._limit = limit_gib * 2**30
        self._segments: dict[str, Segment] = {}
        self._at: dict[bytes, tuple[Segment, int]] = {}
        self._sweep()
        self._refresh()

    def __len__(self) -> int:
        return len(self._at)

    @property
    def size(self) -> int:
        """Return the size on disk in bytes."""
        return sum(size for _, _, size in self._on_disk())

    def packed(
        self,
        texts: Sequence[str],
        constants: Constants,
        *,
        feature: Feature = "mean",
        progress: Callable[[int], None] | None = None,
    ) -> Packed:
        """Return activations of the texts, computed where the cache does not hold them.

        Args:
            texts: n texts; repeats are computed once.
            constants: Public shift and scale.
            feature: Frozen feature that the head sees.
            progress: Called with the number of texts as they are done, cached ones included.
        """
        self._refresh()
        keys = [self._digest(text) for text in texts]
        wanted = dict(zip(keys, texts, strict=True))
        found = self._read(wanted)
        if progress is not None:
            progress(len(texts) - sum(1 for key in keys if key not in found))
        # Texts of like length fill batches.
        missing = sorted(wanted.keys() - found.keys(), key=lambda key: (len(wanted[key]), key))
        parts = [missing[i : i + TEXTS_A_SEGMENT] for i in range(0, len(missing), TEXTS_A_SEGMENT)]
        # Processes that need the same texts begin at different ones.
        first = os.getpid() % max(1, len(parts))
        for part in parts[first:] + parts[:first]:
            self._refresh()
            found |= self._read(part)
            rest = [key for key in part if key not in found]
            if progress is not None:
                progress(sum(1 for key in part if key in found))
            found |= self._computed(rest, [wanted[key] for key in rest], progress, in_use=wanted)
        return self._pack([found[key] for key in keys], constants, feature)

    def _pack(self, entries: list[Entry], constants: Constants, feature: Feature) -> Packed:
        lengths, width = [len(e.tokens) for e in entries], self._base.hidden
        offsets = np.cumsum([0, *lengths], dtype=np.int64)
        frozen = np.empty((len(entries), 2 * width), np.float32)
        wide = torch.float32 if any(e.exponent for e in entries) else torch.float16
        tokens = torch.empty((int(offsets[-1]), width), dtype=torch.bfloat16 if self._base.low_precision else wide)
        for i, entry in enumerate(entries):
            frozen[i] = entry.frozen
            own = torch.from_numpy(np.array(entry.tokens))
            tokens[offsets[i] : offsets[i + 1]] = own.float() * 2.0**entry.exponent if entry.exponent else own
            if i % TEXTS_A_SEGMENT == 0 or i == len(entries) - 1:
                self._release_pages()
        return Packed(
            features=torch.from_numpy(_features(frozen, constants, feature)),
            tokens=tokens,
            offsets=torch.from_numpy(offsets),
            truncated=sum(e.truncated for e in entries),
        )

    def _computed(
        self,
        keys: list[bytes],
        texts: list[str],
        progress: Callable[[int], None] | None,
        *,
        in_use: Mapping[bytes, str],
    ) -> dict[bytes, Entry]:
        """Compute and store activations; return them from the file, or from memory if not stored."""
        if not texts:
            return {}
        out = encode(self._base, texts, max_length=self._max_length, cut=self._cut, progress=progress)
        fresh = {key: _entry(out, i) for i, key in enumerate(keys)}
        return fresh | self._read(keys) if self._store(fresh, in_use=in_use) else fresh

    def _digest(self, text: str) -> bytes:
        scope = f"{self._base.digest}|{self._cut.start}|{self._max_length}|{self._base.low_precision}|{self._pooled}|"
        return hmac.new(self._key, (scope + text).encode("utf-8", "surrogatepass"), hashlib.sha256).digest()

    def _refresh(self) -> None:
        """Open segments that other processes added since the last call; forget those they removed."""
        there = {path.name: path for path, _, _ in self._on_disk()}
        if gone := self._segments.keys() - there.keys():
            self._segments = {name: s for name, s in self._segments.items() if name not in gone}
            self._at = {k: at for k, at in self._at.items() if at[0].path.name not in gone}
        for name in there.keys() - self._segments.keys():
            try:
                segment = Segment(there[name], self._base.hidden)
            except ValueError:
                self._remove(there[name], Message("was damaged"))
            except OSError:
                # Another process removed it after it was listed.
                continue
            else:
                self._segments[name] = segment
                self._at |= {key: (segment, i) for i, key in enumerate(segment.keys())}

    def _read(self, keys: Iterable[bytes]) -> dict[bytes, Entry]:
        """Return the cached entries of the keys; drop a segment in which a text fails its checksum."""
        out: dict[bytes, Entry] = {}
        used: set[Segment] = set()
        for key in keys:
            if key not in self._at:
                continue
            segment, i = self._at[key]
            entry = segment.read(i)
            if entry is None:
                self._remove(segment.path, Message("failed its checksum"))
                self._segments.pop(segment.path.name, None)
                self._at = {k: at for k, at in self._at.items() if at[0] is not segment}
                return self._read(keys)
            out[key] = entry
            used.add(segment)
        self._release_pages()
        for segment in used:
            with suppress(OSError):
                # The time of last use.
                os.utime(segment.path)
        return out

    def _release_pages(self) -> None:
        for segment in self._segments.values():
            segment.release_pages()

    def _store(self, fresh: Mapping[bytes, Entry], *, in_use: Mapping[bytes, str]) -> bool:
        """Store computed entries if they fit; return False if they do not."""
        size = sum(e.tokens.nbytes + e.frozen.nbytes + ROW.itemsize for e in fresh.values())
        if not self._make_room(size, in_use):
            self._note(
                Message(
                    "the trunk cache is full at {limit:g} GiB: texts of one masking level alone need more; "
                    "some are not kept",
                    limit=self._limit / 2**30,
                )
            )
            return False
        path = self._folder / f"{secrets.token_hex(8)}{SUFFIX}"
        try:
            write_segment(path, list(fresh), list(fresh.values()), width=self._base.hidden)
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            reason = Message("the disk is full") if full else str(error.strerror or error)
            self._note(
                Message(
                    "the trunk cache could not be written ({reason}): texts are computed again each time they "
                    "are needed",
                    reason=reason,
                )
            )
            return False
        self._refresh()
        return True

    def _make_room(self, size: int, in_use: Mapping[bytes, str]) -> bool:
        """Remove least recently used segments that are not in use; return True if `size` bytes fit."""
        busy = {at[0].path.name for key, at in self._at.items() if key in in_use}
        there = sorted(self._on_disk(), key=lambda file: file[1])
        total = sum(file[2] for file in there) + size
        for path, _, freed in there:
            if total <= self._limit:
                break
            if path.name not in busy:
                with suppress(FileNotFoundError):
                    path.unlink()
                total -= freed
        return total <= self._limit

    def _on_disk(self) -> list[tuple[Path, int, int]]:
        """Return path, time of last use (ns) and size (bytes) of every segment."""
        out = []
        for path in self._folder.glob(f"*{SUFFIX}"):
            with suppress(FileNotFoundError):
                stat = path.stat()
                out.append((path, stat.st_mtime_ns, stat.st_size))
        return out

    def _sweep(self) -> None:
        """Remove leftovers of killed writers."""
        for path in self._folder.glob(f".*{SUFFIX}.*"):
            with suppress(OSError):
                if time.time() - path.stat().st_mtime > ABANDONED:
                    path.unlink()

    def _remove(self, path: Path, reason: Message) -> None:
        self._note(Message("a file of the trunk cache {reason}: its content is computed again", reason=reason))
        with suppress(OSError):
            path.unlink()

    def _note(self, notice: Message) -> None:
        if notice not in self.notices:
            self.notices.append(notice)


def _entry(out: Encoded, i: int) -> Entry:
    """Return one text's entry as `Segment.read` would return it."""
    frozen = np.concatenate([out.mean[i], out.pooled[i]]).astype(np.float32)
    peak = float(np.abs(out.tokens[i]).max(initial=0.0))
    above = peak / float(np.finfo(np.float16).max)
    exponent = math.ceil(math.log2(above)) if 1 < above < math.inf else 0
    return Entry((out.tokens[i] / 2.0**exponent).astype(np.float16), frozen, bool(out.truncated[i]), exponent)


def _features(frozen: NDArray[np.float32], constants: Constants, feature: Feature) -> NDArray[np.float32]:
    """Return the features that the head sees, from rows of mean and pooled token of width d."""
    mean, pooled = np.split(frozen, 2, axis=1)
    if feature == "mean":
        return constants.features(mean)
    return constants.pooled_features(pooled) if feature == "pooled" else mean[:, :0]
