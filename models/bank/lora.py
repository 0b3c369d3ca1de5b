"""LoRA matrices of K shadows side by side, and frozen linear layers that carry them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

# Factors (left, right) of per-record gradients; see `moo.models.dp.clipping`.
Pair = tuple[Tensor, Tensor]


@dataclass(frozen=True, kw_only=True)
class LoraShape:
    """Shape shared by every LoRA of a bank.

    Attributes:
        ranks: Rank of each of the K shadows, >= 1. Matrices are as wide as the largest; entries
            beyond a shadow's rank stay zero.
        alpha: Scale: a shadow's LoRA is multiplied by alpha / rank.
        generators: One per shadow; draws its A. B starts at zero, so that every shadow starts as
            the unmodified model.
    """

    ranks: tuple[int, ...]
    alpha: float
    generators: Sequence[torch.Generator]


class Lora(nn.Module):
    """LoRA of K shadows, y -> y + scale B A x, with scale alpha / rank.

    `lora_a` has shape (K, r, n_in), `lora_b` has shape (K, n_out, r).
    """

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
    """Frozen linear layer with LoRA; inputs (K * rows, ..., n_in), shadow after shadow.

    Products run in the frozen layer's precision, with sums in fp32. While `capture` is true, a call
    keeps the tensors that the factors are made of; the layer must then be called once per pass.
    """

    def __init__(self, frozen: "FrozenLinear", shape: LoraShape) -> None:
        n_out, n_in = frozen.weight.shape
        super().__init__(n_in, n_out, shape)
        self.frozen = frozen
        self.capture = False
        self._taken: tuple[_Pass, Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Return the frozen layer's output plus LoRA's, for inputs (K * rows, ..., n_in)."""
        work = self.frozen.weight.dtype
        taken = _Pass(x.to(work).reshape(len(self.lora_a), -1, x.shape[-1]))
        a, b = self.lora_a.to(work), (self.scale * self.lora_b).to(work)
        # Their gradients are made of factors.
        if self.capture:
            a, b = a.detach(), b.detach()
        weight, bias = self.frozen.weight, self.frozen.bias
        out: Tensor = _Adapted.apply(taken.x, weight, bias, a, b, taken)  # type: ignore[no-untyped-call]
        if self.capture:
            self._taken = taken, out if out.requires_grad else out.requires_grad_()
        return out.view(*x.shape[:-1], -1)

    @property
    def tap(self) -> Tensor:
        """Return the last captured output, (K, rows, n_out), at which the gradient is needed."""
        assert self._taken is not None
        return self._taken[1]

    def factors(self, grad: Tensor, n_records: int) -> dict[str, Pair]:
        """Return gradient factors by parameter, each (K, n_records, m, .); forget the captured pass.

        Args:
            grad: Gradient of the output, shape (K, rows, n_out).
            n_records: Records per shadow.
        """
        assert self._taken is not None
        (taken, _), self._taken = self._taken, None
        assert taken.u is not None
        back = grad @ (self.scale * self.lora_b).to(grad.dtype) if taken.back is None else taken.back
        pairs = {"lora_a": (back, taken.x.detach()), "lora_b": (grad, (self.scale * taken.u).to(taken.u.dtype))}
        shape = (len(grad), n_records, -1)
        return {n: tuple(split_axis(s, 1, shape[1:]) for s in pair) for n, pair in pairs.items()}  # type: ignore[misc]


@dataclass
class _Pass:
    """Tensors that a layer's pass leaves for its factors, all (K, rows, .).

    Attributes:
        x: Inputs.
        u: Product of A and the inputs.
        back: Gradient of the outputs through the scaled B, if the backward pass went on to the
            inputs.
    """

    x: Tensor
    u: Tensor | None = None
    back: Tensor | None = None


class _Adapted(torch.autograd.Function):
    """x -> W x + b + B A x of K shadows, with fewer passes over memory than autograd's own.

    Fills `_Pass` on the way.
    """

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
        """Return W x + b in the layer's precision."""
        return _linear(x.to(self.weight.dtype), self.weight, self.bias)


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Compute W x + b, adding the bias to the product in place.

    Passed to the product, the bias would be written out first and read again.
    """
    out = functional.linear(x, weight)
    return out if bias is None else out.add_(bias)


def split_axis(x: Tensor, axis: int, shape: tuple[int, ...]) -> Tensor:
    """Return the tensor with one axis split into several."""
    out: Tensor = x.unflatten(axis, shape)  # type: ignore[no-untyped-call]
    return out


def _transposed(layer: Any) -> bool:
    return type(layer).__name__ == "Conv1D"


def rank_view(name: str, parameter: Tensor, shadows: slice, rank: int) -> Tensor:
    """Return the part of a bank's parameter that belongs to neighbouring shadows of one rank.

    The result is a view, without the zeros beyond the rank.
    """
    own = parameter[shadows]
    if name.endswith("lora_a"):
        return own[:, :rank]
    return own[..., :rank] if name.endswith("lora_b") else own
