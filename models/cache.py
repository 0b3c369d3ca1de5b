"""The trunk cache: activations of texts, in the study's folder, under keys that do not tell whose they are.

Three append-only files (mode 0600 in a folder of mode 0700):

    tokens.f16     inputs of the first live block, text after text
    features.f32   mean and pooled token of the frozen output: one row of 2 d numbers a text
    index.bin      key, place of the first token, tokens, truncated, checksum of the data, checksum of this row

The index is written last, so what it lists is there. A torn tail, after a crash or on a full disk, is cut off
when the cache is next opened; a row whose data fail their checksum is computed again. One writer at a
time, by a lock on the folder.
"""

import fcntl
import hashlib
import hmac
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from moo.models.activations import Packed
from moo.models.base_models import BaseModel
from moo.models.blocks import Cut
from moo.models.scaling import Constants
from moo.models.trunk import Encoded, encode, last_cut

_ROW = np.dtype(
    [("key", "V32"), ("start", "<u8"), ("length", "<u4"), ("truncated", "<u4"), ("data", "<u4"), ("row", "<u4")]
)
_CHECKED = _ROW.itemsize - 4
_Half = tuple[NDArray[np.float16], NDArray[np.float32], int]  # tokens, mean and pooled, truncated
Feature = Literal["mean", "pooled", "none"]
TEXTS_A_WRITE = 512  # texts computed between two writes: what a crash can lose


class TrunkCache:
    """Activations under a keyed digest of (weights, cut, max length, text).

    Args:
        folder: Made if missing, mode 0700.
        key: Secret of the data set; a plain digest would answer "was this text here?".
        base: The base model.
        max_length: Tokens kept of each text.
        cut: The live blocks; by default the last one.
    """

    def __init__(self, folder: Path, key: bytes, base: BaseModel, *, max_length: int, cut: Cut | None = None) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder, self._key, self._base, self._max_length = folder, key, base, max_length
        self._cut = last_cut(base) if cut is None else cut
        self._width = base.hidden
        self._index: NDArray[np.void] = np.zeros(0, _ROW)
        self._at: dict[bytes, int] = {}
        with self._locked():
            self._cut_torn_tail()

    def __len__(self) -> int:
        return len(self._at)

    @property
    def size(self) -> int:
        """Size on disk."""
        return sum(self._path(name).stat().st_size for name in ("tokens.f16", "features.f32", "index.bin"))

    def packed(
        self,
        texts: Sequence[str],
        constants: Constants,
        *,
        feature: Feature = "mean",
        progress: Callable[[int], None] | None = None,
    ) -> Packed:
        """Activations of the texts, computed where the cache does not hold them.

        Args:
            texts: n texts; repeats are computed once.
            constants: Public shift and scale.
            feature: Frozen feature that the head sees.
            progress: Called with the number of texts as they are done, cached ones included.
        """
        keys = [self._digest(text) for text in texts]
        fresh: dict[bytes, Encoded] = {}
        missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in self._at}
        if progress is not None:
            progress(len(texts) - len(missing))
        wanted = sorted(missing, key=lambda key: len(missing[key]))  # texts of like length fill batches best
        for start in range(0, len(wanted), TEXTS_A_WRITE):
            part = wanted[start : start + TEXTS_A_WRITE]
            encoded = self._encode([missing[k] for k in part], progress)
            if not self._store(part, encoded):
                fresh |= {k: _one(encoded, i) for i, k in enumerate(part)}
        return self._collect(
            keys, dict(zip(keys, texts, strict=True)), fresh, lambda h: _features(h, constants, feature)
        )

    def _collect(
        self,
        keys: list[bytes],
        texts: dict[bytes, str],
        fresh: dict[bytes, Encoded],
        features_of: Callable[[NDArray[np.float32]], NDArray[np.float32]],
    ) -> Packed:
        with open(self._path("tokens.f16"), "rb") as tokens, open(self._path("features.f32"), "rb") as features:
            found = {}
            for key in dict.fromkeys(keys):
                row = self._read(key, tokens.fileno(), features.fileno()) if key in self._at else None
                found[key] = row or _half(fresh.get(key) or self._encode([texts[key]]))
        tokens_of = [found[k][0] for k in keys]
        frozen = np.stack([found[k][1] for k in keys]) if keys else np.empty((0, 2 * self._width), np.float32)
        lengths = [len(t) for t in tokens_of]
        packed = np.concatenate(tokens_of) if keys else np.empty((0, self._width), np.float16)
        return Packed(
            features=torch.from_numpy(features_of(frozen)),
            tokens=torch.from_numpy(packed).to(torch.bfloat16 if self._base.low_precision else torch.float16),
            offsets=torch.from_numpy(np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype(np.int64)),
            truncated=sum(found[k][2] for k in keys),
        )

    def _encode(self, texts: list[str], progress: Callable[[int], None] | None = None) -> Encoded:
        return encode(self._base, texts, max_length=self._max_length, cut=self._cut, progress=progress)

    def _digest(self, text: str) -> bytes:
        scope = f"{self._base.digest}|{self._cut.start}|{self._cut.stop}|{self._max_length}|{self._base.low_precision}|".encode()
        return hmac.new(self._key, scope + text.encode("utf-8", "surrogatepass"), hashlib.sha256).digest()

    def _read(self, key: bytes, tokens: int, features: int) -> _Half | None:
        row = self._index[self._at[key]]
        size = int(row["length"]) * self._width * 2
        raw = os.pread(tokens, size, int(row["start"]) * self._width * 2)
        top = os.pread(features, self._width * 8, self._at[key] * self._width * 8)
        if len(raw) != size or zlib.crc32(top, zlib.crc32(raw)) != row["data"]:
            return None
        frozen = np.frombuffer(top, "<f4")
        return np.frombuffer(raw, "<f2").reshape(-1, self._width), frozen, int(row["truncated"])

    def _store(self, keys: list[bytes], encoded: Encoded) -> bool:
        """Append; False if the disk is full, in which case what was written is cut off again."""
        try:
            with self._locked():
                self._cut_torn_tail()
                self._append(keys, encoded)
        except OSError:
            with suppress(OSError), self._locked():
                self._cut_torn_tail()
            return False
        return True

    def _append(self, keys: list[bytes], encoded: Encoded) -> None:
        start = self._path("tokens.f16").stat().st_size // (self._width * 2)
        rows = np.zeros(len(keys), _ROW)
        with (
            open(self._path("tokens.f16"), "ab") as tokens,
            open(self._path("features.f32"), "ab") as features,
        ):
            for i, key in enumerate(keys):
                raw = encoded.tokens[i].astype("<f2").tobytes()
                top = np.concatenate([encoded.mean[i], encoded.pooled[i]]).astype("<f4").tobytes()
                tokens.write(raw)
                features.write(top)
                length = len(encoded.tokens[i])
                data = zlib.crc32(top, zlib.crc32(raw))
                rows[i] = (np.void(key), start, length, encoded.truncated[i], data, 0)
                rows[i]["row"] = zlib.crc32(rows[i].tobytes()[:_CHECKED])
                start += length
        with open(self._path("index.bin"), "ab") as index:
            index.write(rows.tobytes())
        self._take_in(rows)

    def _cut_torn_tail(self) -> None:
        """Read what other processes wrote; cut each file to the rows that are whole."""
        raw = self._path("index.bin").read_bytes()
        rows = np.frombuffer(raw[: len(raw) // _ROW.itemsize * _ROW.itemsize], _ROW)
        n = min(len(rows), self._path("features.f32").stat().st_size // (self._width * 8))
        have = self._path("tokens.f16").stat().st_size // (self._width * 2)
        whole = 0
        while whole < n and self._is_whole(rows[whole], have):
            whole += 1
        end = int(rows[whole - 1]["start"]) + int(rows[whole - 1]["length"]) if whole else 0
        for name, size in (
            ("index.bin", whole * _ROW.itemsize),
            ("features.f32", whole * self._width * 8),
            ("tokens.f16", end * self._width * 2),
        ):
            if self._path(name).stat().st_size != size:
                os.truncate(self._path(name), size)
        self._index, self._at = np.zeros(0, _ROW), {}
        self._take_in(rows[:whole])

    @staticmethod
    def _is_whole(row: np.void, have: int) -> bool:
        return zlib.crc32(row.tobytes()[:_CHECKED]) == row["row"] and int(row["start"]) + int(row["length"]) <= have

    def _take_in(self, rows: NDArray[np.void]) -> None:
        first = len(self._index)
        self._index = np.concatenate([self._index, rows])
        self._at |= {row["key"].tobytes(): first + i for i, row in enumerate(rows)}

    def _path(self, name: str) -> Path:
        path = self._folder / name
        if not path.exists():
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
        return path

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with open(self._path("lock"), "wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _one(encoded: Encoded, i: int) -> Encoded:
    return Encoded(
        tokens=[encoded.tokens[i]],
        mean=encoded.mean[i : i + 1],
        pooled=encoded.pooled[i : i + 1],
        truncated=encoded.truncated[i : i + 1],
    )


def _half(one: Encoded) -> _Half:
    """What `_read` would give for a text that the cache does not hold."""
    return one.tokens[0].astype(np.float16), np.concatenate([one.mean[0], one.pooled[0]]), int(one.truncated[0])


def _features(frozen: NDArray[np.float32], constants: Constants, feature: Feature) -> NDArray[np.float32]:
    """What the head sees, from rows of mean and pooled token, each of width d."""
    mean, pooled = np.split(frozen, 2, axis=1)
    if feature == "mean":
        return constants.features(mean)
    return constants.pooled_features(pooled) if feature == "pooled" else mean[:, :0]
