"""Activations of a prepared set of texts: packed without padding, gathered in the layout that a bank step wants."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


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
        features = self.features.index_select(0, index.flatten()).view(*index.shape, -1)
        if not tokens:
            nothing = features.new_zeros((*index.shape, 0, features.shape[-1]))
            return Activations(features, nothing, nothing[..., 0].bool())
        start = self.offsets[index]
        length = self.offsets[index + 1] - start
        steps = torch.arange(int(length.max()), device=index.device)
        mask = steps < length[..., None]
        position = torch.where(mask, start[..., None] + steps, start[..., None])
        out = (workspace or Workspace()).rows_like(self.tokens, position.numel())
        torch.index_select(self.tokens, 0, position.flatten(), out=out)  # ten times faster than [position]
        laid_out = out.view(*position.shape, -1)
        return Activations(features, laid_out.float() if laid_out.dtype == torch.float16 else laid_out, mask)
