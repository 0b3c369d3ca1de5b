"""LoRA matrices of K shadows side by side, and frozen linear layers that carry them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

Pair = tuple[Tensor, Tensor]  # factors (left, right) of per-record gradients, see `moo.models.dp.clipping`


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

    def __init__(self, frozen: "FrozenLinear", shape: LoraShape) -> None:
        n_out, n_in = frozen.weight.shape
        super().__init__(n_in, n_out, shape)
        self.frozen = frozen
        self.capture = False
        self._taken: tuple[_Pass, Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        work = self.frozen.weight.dtype
        taken = _Pass(x.to(work).reshape(len(self.lora_a), -1, x.shape[-1]))
        a, b = self.lora_a.to(work), (self.scale * self.lora_b).to(work)
        if self.capture:  # their gradients are made of factors
            a, b = a.detach(), b.detach()
        out: Tensor = _Adapted.apply(taken.x, self.frozen.weight, self.frozen.bias, a, b, taken)  # type: ignore[no-untyped-call]
        if self.capture:
            self._taken = taken, out if out.requires_grad else out.requires_grad_()
        return out.view(*x.shape[:-1], -1)

    @property
    def tap(self) -> Tensor:
        """The last captured output, (K, rows, n_out): the gradient is wanted here."""
        assert self._taken is not None
        return self._taken[1]

    def factors(self, grad: Tensor, n_records: int) -> dict[str, Pair]:
        """Gradient factors by parameter, each (K, n_records, m, .), from the output's gradient; forgets the pass."""
        assert self._taken is not None
        (taken, _), self._taken = self._taken, None
        assert taken.u is not None
        back = grad @ (self.scale * self.lora_b).to(grad.dtype) if taken.back is None else taken.back
        pairs = {"lora_a": (back, taken.x.detach()), "lora_b": (grad, (self.scale * taken.u).to(taken.u.dtype))}
        shape = (len(grad), n_records, -1)
        return {n: tuple(split_axis(s, 1, shape[1:]) for s in pair) for n, pair in pairs.items()}  # type: ignore[misc]


@dataclass
class _Pass:
    """What a layer's pass leaves for its factors: all (K, rows, .).

    Attributes:
        x: Inputs.
        u: What A makes of them.
        back: The outputs' gradient through the scaled B, where the backward pass went on to the inputs.
    """

    x: Tensor
    u: Tensor | None = None
    back: Tensor | None = None


class _Adapted(torch.autograd.Function):
    """x -> W x + b + B A x, K shadows side by side: autograd's own, with fewer passes over memory, and `_Pass` filled on the way."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, taken: _Pass) -> Tensor:
        ctx.save_for_backward(weight, a, b)
        ctx.taken = taken
        taken.u = x @ a.mT
        return _linear(x, weight, bias).baddbmm_(taken.u, b.mT)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        weight, a, b = ctx.saved_tensors
        taken = ctx.taken
        taken.back = grad @ b
        for_x = (grad @ weight).baddbmm_(taken.back, a) if ctx.needs_input_grad[0] else None
        for_a = taken.back.mT @ taken.x if ctx.needs_input_grad[3] else None
        for_b = grad.mT @ taken.u if ctx.needs_input_grad[4] else None
        return for_x, None, None, for_a, for_b, None


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
        return _linear(x.to(self.weight.dtype), self.weight, self.bias)


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """W x + b; the bias is added to the product where it lies, since handed over it would be written out first and read again."""
    out = functional.linear(x, weight)
    return out if bias is None else out.add_(bias)


def split_axis(x: Tensor, axis: int, shape: tuple[int, ...]) -> Tensor:
    """One axis as several."""
    out: Tensor = x.unflatten(axis, shape)  # type: ignore[no-untyped-call]
    return out


def _transposed(layer: Any) -> bool:
    return type(layer).__name__ == "Conv1D"


def rank_view(name: str, parameter: Tensor, shadows: slice, rank: int) -> Tensor:
    """The part of a bank's parameter that belongs to neighbouring shadows of one rank: a view without what stands beyond it."""
    own = parameter[shadows]
    if name.endswith("lora_a"):
        return own[:, :rank]
    return own[..., :rank] if name.endswith("lora_b") else own
