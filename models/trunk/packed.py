"""Activations of a prepared set of texts: packed without padding, gathered in the layout that a bank step wants."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

TokenChunk = tuple[slice, Tensor, Tensor]  # of the records, their tokens (K, p, L, d) and mask (K, p, L)

CHUNK_TOKENS = 4096  # tokens that the CPU lays out, looks at and forgets at a time, so that they stay in its cache
STEP = 8  # sizes are rounded up to it at least: for every shape of a product that it meets, oneDNN compiles code and keeps it


class RecordBatch(Protocol):
    """Records laid out as (K, P), whose tokens are looked at from first to last, perhaps in parts."""

    @property
    def features(self) -> Tensor:
        """Shape (K, P, d), fp32."""

    @property
    def first(self) -> Tensor:
        """Shape (K, P, d). Each record's first token."""

    def token_chunks(self) -> Iterator[TokenChunk]:
        """The tokens; what is handed out is good until the next is asked for."""


@dataclass(frozen=True)
class Activations:
    """Records laid out as (K, P).

    Attributes:
        features: Shape (K, P, d), fp32. Frozen mean-pooled top layer, scaled by public constants.
        tokens: Shape (K, P, L, d), fp32 or bf16. Inputs of the first live block; empty (L = 0) where the depth does not need them.
        mask: Shape (K, P, L). True at real tokens.
    """

    features: Tensor
    tokens: Tensor
    mask: Tensor

    @property
    def first(self) -> Tensor:
        """Shape (K, P, d). Each record's first token."""
        return self.tokens[..., 0, :]

    def token_chunks(self) -> Iterator[TokenChunk]:
        """All records at once."""
        yield slice(None), self.tokens, self.mask


class Workspace:
    """Memory for laid-out tokens that is used again from chunk to chunk, in place of being asked for each time."""

    def __init__(self) -> None:
        self._held: Tensor | None = None

    def rows_like(self, tokens: Tensor, rows: int) -> Tensor:
        """Memory of shape (rows, d), with what was there before."""
        held = self._held
        if held is None or len(held) < rows or held.dtype != tokens.dtype or held.device != tokens.device:
            held = self._held = tokens.new_empty(rows, tokens.shape[1])
        return held[:rows]


@dataclass(frozen=True, kw_only=True)
class Packed:
    """Activations of n texts.

    Attributes:
        features: Shape (n, d), fp32, scaled by public constants.
        tokens: Shape (total, d): inputs of the first live block, text after text; fp16, bf16 or fp32.
        offsets: Shape (n + 1,). Text i is tokens[offsets[i] : offsets[i + 1]].
        truncated: Number of texts that were longer than max_length.
        ids: Token ids of each text; filled for the reference path alone.
    """

    features: Tensor
    tokens: Tensor
    offsets: Tensor
    truncated: int = 0
    ids: tuple[tuple[int, ...], ...] = ()

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Shape (n,), tokens of each text."""
        out: NDArray[np.int64] = self.offsets.diff().cpu().numpy()
        return out

    def to(self, device: torch.device) -> "Packed":
        return Packed(
            features=self.features.to(device),
            tokens=self.tokens.to(device),
            offsets=self.offsets.to(device),
            truncated=self.truncated,
            ids=self.ids,
        )

    def take(self, rows: NDArray[np.intp]) -> "Packed":
        """The same for some of the texts, in the given order."""
        lengths = self.lengths[rows]
        starts = np.concatenate([[0], np.cumsum(lengths)])
        position = np.repeat(self.offsets.cpu().numpy()[rows] - starts[:-1], lengths) + np.arange(starts[-1])
        return Packed(
            features=self.features[torch.from_numpy(rows)],
            tokens=self.tokens[torch.from_numpy(position)],
            offsets=torch.from_numpy(starts),
            truncated=self.truncated,
            ids=tuple(self.ids[i] for i in rows) if self.ids else (),
        )

    def gather(self, index: Tensor, *, tokens: bool, workspace: Workspace | None = None) -> Activations:
        """Lay records out as (K, P), padded to the longest among them.

        Args:
            index: Shape (K, P). Positions of texts.
            tokens: Whether the inputs of the live blocks are wanted.
            workspace: Where the tokens go; they are good until it is used again.
        """
        rows = self.sampled_rows(index, workspace=workspace)
        if not tokens:
            nothing = rows.features.new_zeros((*index.shape, 0, rows.features.shape[-1]))
            return Activations(rows.features, nothing, nothing[..., 0].bool())
        return Activations(rows.features, *rows.materialise(slice(None), rounded_up(int(rows.lengths.max()))))

    def sampled_rows(self, index: Tensor, *, workspace: Workspace | None = None) -> "SampledRows":
        """Records whose tokens are laid out a stretch at a time, whenever they are looked at; arguments as of `gather`."""
        features = self.features.index_select(0, index.flatten()).view(*index.shape, -1)
        starts = self.offsets[index]
        return SampledRows(features, self.tokens, starts, self.offsets[index + 1] - starts, workspace or Workspace())


def rounded_up(size: int) -> int:
    """The next multiple of `STEP`, or of about a sixteenth of the size where that is more."""
    step = max(STEP, 1 << max(0, size.bit_length() - 5))
    return -(-size // step) * step


@dataclass(frozen=True)
class SampledRows:
    """Records as (K, P) whose tokens still lie where they were packed.

    Attributes:
        features: Shape (K, P, d), fp32.
        packed: Shape (total, d).
        starts, lengths: Shape (K, P). Record's tokens are packed[starts : starts + lengths].
        workspace: Where a stretch is laid out.
    """

    features: Tensor
    packed: Tensor
    starts: Tensor
    lengths: Tensor
    workspace: Workspace

    @property
    def first(self) -> Tensor:
        """Shape (K, P, d). Each record's first token."""
        return self.packed.index_select(0, self.starts.flatten()).view(*self.starts.shape, -1)

    def token_chunks(self) -> Iterator[TokenChunk]:
        """As many whole records as the CPU's cache holds, padded to the longest of them; elsewhere all at once."""
        longest = [rounded_up(n) for n in self.lengths.amax(0).tolist()]
        room = CHUNK_TOKENS // len(self.lengths) if self.lengths.device.type == "cpu" else len(longest) * max(longest)
        begin = 0
        while begin < len(longest):
            end, width = begin + 1, longest[begin]
            while end < len(longest) and (end + 1 - begin) * max(width, longest[end]) <= room:
                width = max(width, longest[end])
                end += 1
            if end - begin > STEP and end < len(longest):
                end -= (end - begin) % STEP
                width = max(longest[begin:end])
            part = slice(begin, end)
            yield part, *self.materialise(part, width)
            begin = end

    def materialise(self, part: slice, width: int) -> tuple[Tensor, Tensor]:
        """Tokens (K, p, width, d) and mask (K, p, width) of some of the records."""
        start, length = self.starts[:, part, None], self.lengths[:, part, None]
        steps = torch.arange(width, device=start.device)
        mask = steps < length
        position = torch.where(mask, start + steps, start)
        out = self.workspace.rows_like(self.packed, position.numel())
        torch.index_select(self.packed, 0, position.flatten(), out=out)  # ten times faster than [position]
        laid_out = out.view(*position.shape, -1)
        return laid_out.float() if laid_out.dtype == torch.float16 else laid_out, mask
