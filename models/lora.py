"""LoRA matrices of K shadows side by side, and frozen linear layers that carry them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

Pair = tuple[Tensor, Tensor]  # factors (left, right) of per-record gradients, see `moo.models.clipping`


@dataclass(frozen=True, kw_only=True)
class LoraShape:
    """What every LoRA of a bank has in common.

    Attributes:
        ranks: Rank of each of the K shadows, >= 1. Matrices are as wide as the largest; what a shadow has beyond its rank stays zero.
        alpha: A shadow's scale is alpha / rank.
        generators: One for each shadow; draws its A. B starts at zero, so that every shadow starts as the unmodified model.
    """

    ranks: tuple[int, ...]
    alpha: float
    generators: Sequence[torch.Generator]


class Lora(nn.Module):
    """y -> y + scale B A x, for K shadows: `lora_a` (K, r, n_in), `lora_b` (K, n_out, r), scale alpha / rank."""

    scale: Tensor

    def __init__(self, n_in: int, n_out: int, shape: LoraShape) -> None:
        super().__init__()
        k, widest = len(shape.ranks), max(shape.ranks)
        a = torch.zeros(k, widest, n_in)
        for i, (rank, generator) in enumerate(zip(shape.ranks, shape.generators, strict=True)):
            a[i, :rank] = (torch.rand(rank, n_in, generator=generator) * 2 - 1) * n_in**-0.5
        self.lora_a = nn.Parameter(a)
        self.lora_b = nn.Parameter(torch.zeros(k, n_out, widest))
        self.register_buffer("scale", shape.alpha / torch.tensor(shape.ranks).float()[:, None, None])


class LoraLinear(Lora):
    """A frozen linear layer with LoRA; inputs (K * rows, ..., n_in), shadow after shadow.

    Products run in the frozen layer's precision, with sums in fp32. While `capture` is true, a call
    keeps what the factors are made of; the layer must then be called once a pass.
    """

    def __init__(self, frozen: Any, shape: LoraShape) -> None:
        n_out, n_in = sizes(frozen)
        super().__init__(n_in, n_out, shape)
        self.frozen = frozen
        self.capture = False
        self._taken: tuple[Tensor, Tensor, Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        plain: Tensor = self.frozen(x)
        flat = x.to(plain.dtype).reshape(len(self.lora_a), -1, x.shape[-1])
        u = flat @ self.lora_a.mT.to(plain.dtype)
        b = (self.scale * self.lora_b).mT.to(plain.dtype)
        out = torch.baddbmm(plain.view(len(flat), -1, plain.shape[-1]), u, b).view(plain.shape)
        if self.capture:
            self._taken = (flat.detach(), u.detach(), out)
        return out

    @property
    def tap(self) -> Tensor:
        """The last captured output: the gradient is wanted here."""
        assert self._taken is not None
        return self._taken[2]

    def factors(self, grad: Tensor, n_records: int) -> dict[str, Pair]:
        """Gradient factors by parameter, each (K, n_records, m, .), from the output's gradient; forgets the pass."""
        assert self._taken is not None
        x, u, _ = self._taken
        self._taken = None
        g = self.scale * grad.float().reshape(*x.shape[:2], -1)
        pairs = {"lora_a": (g @ self.lora_b, x), "lora_b": (g, u)}
        shape = (len(x), n_records, -1)
        return {n: tuple(split_axis(s, 1, shape[1:]) for s in pair) for n, pair in pairs.items()}  # type: ignore[misc]


class FrozenLinear(nn.Module):
    """x -> W x + b with frozen W in the given precision."""

    weight: Tensor
    bias: Tensor | None

    def __init__(self, layer: Any, dtype: torch.dtype) -> None:
        super().__init__()
        weight = layer.weight.detach()
        weight = weight.T if _transposed(layer) else weight
        self.register_buffer("weight", weight.to(dtype).contiguous().clone())
        self.register_buffer("bias", None if layer.bias is None else layer.bias.detach().to(dtype).clone())

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x.to(self.weight.dtype), self.weight, self.bias)


def split_axis(x: Tensor, axis: int, shape: tuple[int, ...]) -> Tensor:
    """One axis as several."""
    out: Tensor = x.unflatten(axis, shape)  # type: ignore[no-untyped-call]
    return out


def sizes(layer: Any) -> tuple[int, int]:
    """(n_out, n_in) of a linear layer, GPT-2's transposed one included."""
    out, inside = layer.weight.shape
    return (inside, out) if _transposed(layer) else (out, inside)


def _transposed(layer: Any) -> bool:
    return type(layer).__name__ == "Conv1D"


def active(name: str, parameter: Tensor, shadow: int, rank: int) -> Tensor:
    """The part of a bank's parameter that is one shadow's own: a view without what stands beyond its rank."""
    own = parameter[shadow]
    if name.endswith("lora_a"):
        return own[:rank]
    return own[..., :rank] if name.endswith("lora_b") else own
