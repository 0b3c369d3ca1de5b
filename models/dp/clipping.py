"""Per-unit gradients kept as factors: their norms and clipped sums without ever forming the gradients.

The gradient of a matrix W that maps x to W x is, for one record, the outer product of the output's gradient and x. The
gradient of a unit of privacy (a user with m records, or one record in several heads) is a sum of m such products,

    G_u = sum_i left[u, i] (x) right[u, i],        left: (..., U, m, a), right: (..., U, m, b).

Source: the norm through Gram matrices is "ghost clipping" (Li et al. 2022, "Large Language Models Can Be Strong
Differentially Private Learners", section 4); keeping the factors of one backward pass for the clipped sum is
book-keeping (Bu et al. 2023, "Differentially Private Optimization on Large Model at Small Cost").

Rounding. Where the m products of a unit all but cancel, the sum of their lengths, S = sum_i |left_i| |right_i|, is far above
the norm. With u = 2^-24, the unit's sum formed in fp32 is then off by up to e S, e = (m + 1) u, in any order of summation, and
a norm through Gram matrices in fp32 by about sqrt(u) S. So these are made in float64, whose own error, (a + b + m^2) 2^-53 S^2
of the square, is far below what is added:

    norm^2 = |G|^2 + e^2 / (2 SLACK) S^2,   hence   (|G| + e S) / norm <= sqrt(1 + 2 SLACK) <= 1 + SLACK    (Cauchy-Schwarz),

over all parameters together, since each side is a sum of squares over them. Where nothing cancels, S^2 is about m |G|^2, and
the norm grows by less than a millionth for 10 products, by a hundred-thousandth for 40.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

SLACK = 8e-6  # of a contribution's norm over the clip, by rounding; what norm and coefficient themselves are rounded by is below 2e-6
_UNIT_ROUNDOFF = 2.0**-24  # of fp32
_PIECE = 2**17  # numbers of which float64 copies are made at a time on the CPU: they stay in its cache


@dataclass(frozen=True)
class Factors:
    """Per-unit gradients of one parameter of shape (K, *lead, a, b), as outer products.

    Attributes:
        left: Shape (K, *lead, U, m, a), fp32 or bf16.
        right: Shape (K, *lead, U, m, b), likewise. In padded places one of both is zero, or not finite as the unit is.
    """

    left: Tensor
    right: Tensor

    def reduced(self) -> "Factors | Gradients":
        """Ready for clipping, in fp32: the gradients themselves where they are smaller than their factors, made once.

        A product of bf16 factors has fp32 sums and is rounded before it is clipped: norm and sum see the same numbers, so that the
        bound holds exactly. A norm told from rounded factors would not be that of the sum, so those are made fp32 first.
        """
        m, a, b = self.left.shape[-2], self.left.shape[-1], self.right.shape[-1]
        if m > 1 and a * b <= m * (a + b):
            return Gradients((self.left.mT.to(self.right.dtype) @ self.right).float())
        return Factors(self.left.float(), self.right.float())

    def squared_norms(self) -> Tensor:
        """Squared Frobenius norm of each unit's gradient, summed over the leading axes: shape (K, U), float64.

        Never below that of what `clipped_sum` makes of the unit, but for `SLACK`. Not finite exactly where a factor is not: 0 x NaN and
        0 x Inf are NaN.
        """
        if self.left.shape[-2] == 1:
            lengths = [torch.linalg.vector_norm(s, dim=(-2, -1), dtype=torch.float64) for s in (self.left, self.right)]
            return _over_leading_axes((lengths[0] * lengths[1]).square())
        left, right = self.left.flatten(0, -3), self.right.flatten(0, -3)  # (K * lead * U, m, .)
        at_once = max(1, _PIECE // (left[0].numel() + right[0].numel())) if left.device.type == "cpu" else len(left)
        pieces = zip(torch.split(left, at_once), torch.split(right, at_once), strict=True)
        return _over_leading_axes(torch.cat([_squared(*piece) for piece in pieces]).view(self.left.shape[:-2]))

    def clipped_sum(self, coefficients: Tensor) -> Tensor:
        """Sum over units of coefficient times gradient: shape (K, *lead, a, b).

        Args:
            coefficients: Shape (K, U).
        """
        scaled = (self.left * _broadcast(coefficients, self.left)).flatten(-3, -2)
        return scaled.mT @ self.right.flatten(-3, -2)

    def without(self, bad: Tensor) -> "Factors":
        """Zero in place of the units where `bad`, shape (K, U), is true: both factors, since 0 x NaN is NaN."""
        blank = _broadcast(bad, self.left)
        return Factors(torch.where(blank, 0.0, self.left), torch.where(blank, 0.0, self.right))


@dataclass(frozen=True)
class Gradients:
    """Per-unit gradients of one parameter as they are.

    Attributes:
        value: Shape (K, *lead, U, a, b), fp32.
    """

    value: Tensor

    def squared_norms(self) -> Tensor:
        """As of `Factors`; not finite also where the square overflows fp32. By rows: one running sum of all squares falls behind."""
        return _over_leading_axes(torch.linalg.vector_norm(self.value, dim=-1).square().sum(-1).double())

    def clipped_sum(self, coefficients: Tensor) -> Tensor:
        """As of `Factors`."""
        row = _broadcast(coefficients, self.value).squeeze(-1).mT  # (K, *1, 1, U)
        return (row @ self.value.flatten(-2)).view(*self.value.shape[:-3], *self.value.shape[-2:])

    def without(self, bad: Tensor) -> "Gradients":
        """As of `Factors`."""
        return Gradients(torch.where(_broadcast(bad, self.value), 0.0, self.value))


def _squared(left: Tensor, right: Tensor) -> Tensor:
    """Squared norms of sums of m outer products, with what rounding adds at most: (n, m, a) and (n, m, b) to (n,), float64."""
    left, right = left.double(), right.double()
    products = (left @ left.mT) * (right @ right.mT)  # of the outer products with one another
    lengths = products.diagonal(dim1=-2, dim2=-1).sqrt().sum(-1)
    rounding = (left.shape[-2] + 1) * _UNIT_ROUNDOFF * lengths
    return products.sum((-2, -1)) + rounding.square() / (2 * SLACK)


@contextmanager
def products_in_fp32() -> Iterator[None]:
    """No TF32 and no bf16 inside matrix products, whatever the process allows elsewhere: they keep three digits, and no bound."""
    on_cpu: Any = torch.backends.mkldnn
    before = [(backend, backend.fp32_precision) for backend in (torch.backends.cuda.matmul, on_cpu.matmul)]
    for backend, _ in before:
        backend.fp32_precision = "ieee"
    try:
        yield
    finally:
        for backend, precision in before:
            backend.fp32_precision = precision


def _over_leading_axes(norms: Tensor) -> Tensor:
    return norms.flatten(1, -2).sum(1) if norms.dim() > 2 else norms


def _broadcast(by_unit: Tensor, to: Tensor) -> Tensor:
    """(K, U) to (K, *1, U, 1, 1), as many axes as `to` has."""
    return by_unit.reshape(by_unit.shape[0], *[1] * (to.dim() - 4), by_unit.shape[1], 1, 1)


@dataclass(frozen=True)
class ClippedSums:
    """What leaves a step: the sums, and what was seen on the way.

    Attributes:
        sums: One tensor a parameter, of the parameter's shape.
        norms: Shape (K, U). Norm of each unit's gradient before clipping.
        non_finite: Units, over all shadows, whose gradient was not finite and which therefore contributed zero.
    """

    sums: dict[str, Tensor]
    norms: Tensor
    non_finite: int


def clip_and_sum(factors: dict[str, Factors], *, max_grad_norm: float, present: Tensor) -> ClippedSums:
    """Clip every unit's gradient, over all parameters together, to `max_grad_norm`, and sum.

    Args:
        factors: One entry a parameter. Entries of non-finite units are zeroed here.
        max_grad_norm: > 0; `math.inf` sums without clipping.
        present: Shape (K, U). True for units that were sampled.

    Returns:
        Sums in which each unit's contribution has norm <= max_grad_norm, whatever the data hold, but for a hundred-thousandth of it by
        rounding.
    """
    found = {name: f.reduced() for name, f in factors.items()}
    squared = torch.stack([f.squared_norms() for f in found.values()]).sum(0)
    norms = squared.float().sqrt()  # infinite where the square is beyond fp32
    bad = ~torch.isfinite(norms)
    coefficients = torch.where(present & ~bad, (max_grad_norm / norms.clamp_min(1e-12)).clamp(max=1.0), 0.0)
    if bool(bad.any()):
        found = {name: f.without(bad) for name, f in found.items()}
    with products_in_fp32():
        sums = {name: f.clipped_sum(coefficients) for name, f in found.items()}
    return ClippedSums(sums=sums, norms=norms, non_finite=int((bad & present).sum()))
