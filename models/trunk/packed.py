"""Activations of a set of texts: packed without padding, laid out for a bank's step."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# A slice of the records, their tokens (K, p, L, d) and mask (K, p, L).
TokenChunk = tuple[slice, Tensor, Tensor]

# Tokens that the CPU lays out and reads at a time, so that they stay in its cache.
CHUNK_TOKENS = 4096
# Sizes are rounded up to multiples of this at least: oneDNN compiles and keeps code for every new shape of a product.
STEP = 8


class RecordBatch(Protocol):
    """Records as (K, P), with tokens that are read from first to last, in one or more chunks."""

    @property
    def features(self) -> Tensor:
        """Return the frozen features, shape (K, P, d), fp32."""

    @property
    def first(self) -> Tensor:
        """Return each record's first token, shape (K, P, d)."""

    def token_chunks(self) -> Iterator[TokenChunk]:
        """Yield the tokens; each chunk is valid until the next one is requested."""


@dataclass(frozen=True)
class Activations:
    """Records laid out as (K, P), all tokens in memory.

    Attributes:
        features: Shape (K, P, d), fp32. Frozen mean-pooled top layer, scaled by public constants.
        tokens: Shape (K, P, L, d), fp32 or bf16. Inputs of the first live block; empty (L = 0)
            where the depth does not need them.
        mask: Shape (K, P, L). True at real tokens.
    """

    features: Tensor
    tokens: Tensor
    mask: Tensor

    @property
    def first(self) -> Tensor:
        """Return each record's first token, shape (K, P, d)."""
        return self.tokens[..., 0, :]

    def token_chunks(self) -> Iterator[TokenChunk]:
        """Yield all records in one chunk."""
        yield slice(None), self.tokens, self.mask


class Workspace:
    """Memory for laid-out tokens, reused from chunk to chunk."""

    def __init__(self) -> None:
        self._held: Tensor | None = None

    def rows_like(self, tokens: Tensor, rows: int) -> Tensor:
        """Return memory of shape (rows, d), uninitialised."""
        held = self._held
        if held is None or len(held) < rows or held.dtype != tokens.dtype or held.device != tokens.device:
            held = self._held = tokens.new_empty(rows, tokens.shape[1])
        return held[:rows]


@dataclass(frozen=True, kw_only=True)
class Packed:
    """Activations of n texts.

    Attributes:
        features: Shape (n, d), fp32, scaled by public constants.
        tokens: Shape (total, d), fp16, bf16 or fp32. Inputs of the first live block, text after
            text.
        offsets: Shape (n + 1,). Text i is tokens[offsets[i] : offsets[i + 1]].
        truncated: Number of texts that were longer than max_length.
        ids: Token ids of each text; filled for the Opacus engine alone.
    """

    features: Tensor
    tokens: Tensor
    offsets: Tensor
    truncated: int = 0
    ids: tuple[tuple[int, ...], ...] = ()

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Return the tokens of each text, shape (n,)."""
        out: NDArray[np.int64] = self.offsets.diff().cpu().numpy()
        return out

    def to(self, device: torch.device) -> "Packed":
        """Return the activations on a device."""
        return Packed(
            features=self.features.to(device),
            tokens=self.tokens.to(device),
            offsets=self.offsets.to(device),
            truncated=self.truncated,
            ids=self.ids,
        )

    def take(self, rows: NDArray[np.intp]) -> "Packed":
        """Return the activations of some of the texts, in the given order."""
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
            tokens: True if the inputs of the live blocks are needed.
            workspace: Memory for the tokens, which are valid until it is used again.
        """
        rows = self.sampled_rows(index, workspace=workspace)
        if not tokens:
            nothing = rows.features.new_zeros((*index.shape, 0, rows.features.shape[-1]))
            return Activations(rows.features, nothing, nothing[..., 0].bool())
        return Activations(rows.features, *rows.materialise(slice(None), rounded_up(int(rows.lengths.max()))))

    def sampled_rows(self, index: Tensor, *, workspace: Workspace | None = None) -> "SampledRows":
        """Return records with tokens that are laid out one chunk at a time, whenever they are read.

        Args:
            index: Shape (K, P). Positions of texts.
            workspace: Memory for the tokens of a chunk.
        """
        features = self.features.index_select(0, index.flatten()).view(*index.shape, -1)
        starts = self.offsets[index]
        return SampledRows(features, self.tokens, starts, self.offsets[index + 1] - starts, workspace or Workspace())


def rounded_up(size: int) -> int:
    """Return the next multiple of `STEP`, or of about a sixteenth of the size if that is more."""
    step = max(STEP, 1 << max(0, size.bit_length() - 5))
    return -(-size // step) * step


@dataclass(frozen=True)
class SampledRows:
    """Records as (K, P) with tokens still packed.

    Attributes:
        features: Shape (K, P, d), fp32.
        packed: Shape (total, d).
        starts, lengths: Shape (K, P). A record's tokens are packed[starts : starts + lengths].
        workspace: Memory for one laid-out chunk.
    """

    features: Tensor
    packed: Tensor
    starts: Tensor
    lengths: Tensor
    workspace: Workspace

    @property
    def first(self) -> Tensor:
        """Return each record's first token, shape (K, P, d)."""
        return self.packed.index_select(0, self.starts.flatten()).view(*self.starts.shape, -1)

    def token_chunks(self) -> Iterator[TokenChunk]:
        """Yield whole records that fit the CPU's cache, padded to the longest; all on a device."""
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
        """Lay out the tokens of some of the records.

        Args:
            part: Records, a slice of 0..P.
            width: Tokens per record, padding included.

        Returns:
            Tokens (K, p, width, d) and mask (K, p, width).
        """
        start, length = self.starts[:, part, None], self.lengths[:, part, None]
        steps = torch.arange(width, device=start.device)
        mask = steps < length
        position = torch.where(mask, start + steps, start)
        out = self.workspace.rows_like(self.packed, position.numel())
        # Ten times faster than [position].
        torch.index_select(self.packed, 0, position.flatten(), out=out)
        laid_out = out.view(*position.shape, -1)
        return laid_out.float() if laid_out.dtype == torch.float16 else laid_out, mask
