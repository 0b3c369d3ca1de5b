"""Clipping of per-unit gradients kept as factors, without ever forming the gradients.

The gradient of a matrix W that maps x to W x is, for one record, the outer product of the output's
gradient and x. The gradient of a unit of privacy (a user with m records, or one record in several
heads) is a sum of m such products,

    G_u = sum_i left[u, i] (x) right[u, i],        left: (..., U, m, a), right: (..., U, m, b).

Source: the norm through Gram matrices is "ghost clipping" (Li et al. 2022, "Large Language Models
Can Be Strong Differentially Private Learners", section 4). Keeping the factors of one backward pass
for the clipped sum is book-keeping (Bu et al. 2023, "Differentially Private Optimization on Large
Model at Small Cost").

Rounding. Where the m products of a unit nearly cancel, the sum of their lengths, S = sum_i |left_i|
|right_i|, is far above the norm. With u = 2^-24, the unit's sum formed in fp32 is then off by up to
e S, e = (m + 1) u, in any order of summation, and a norm through Gram matrices in fp32 by about
sqrt(u) S. These norms are therefore computed in float64. Its own error, (a + b + m^2) 2^-53 S^2 of
the square, is far below the term that is added:

    norm^2 = |G|^2 + e^2 / (2 SLACK) S^2
    (|G| + e S) / norm <= sqrt(1 + 2 SLACK) <= 1 + SLACK        (Cauchy-Schwarz)

This holds over all parameters together, since each side is a sum of squares over them. Where
nothing cancels, S^2 is about m |G|^2, and the norm grows by less than a millionth for 10 products,
by a hundred-thousandth for 40.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

# Largest excess of a contribution's norm over the clip by rounding, as a fraction. The rounding of norm and
# coefficient themselves is below 2e-6.
SLACK = 8e-6
# Unit round-off of fp32.
_UNIT_ROUNDOFF = 2.0**-24
# Numbers copied to float64 at a time on the CPU, so that the copies stay in its cache.
_PIECE = 2**17


@dataclass(frozen=True)
class Factors:
    """Per-unit gradients of one parameter of shape (K, *lead, a, b), as outer products.

    Attributes:
        left: Shape (K, *lead, U, m, a), fp32 or bf16.
        right: Shape (K, *lead, U, m, b), fp32 or bf16. In padded places one of the two is zero, or
            not finite if the unit is not finite.
    """

    left: Tensor
    right: Tensor

    def reduced(self) -> "Factors | Gradients":
        """Return the form used for clipping, in fp32: gradients where they are smaller than factors.

        A product of bf16 factors has fp32 sums and is rounded before it is clipped. Norm and sum
        then use the same numbers, so the bound holds exactly. A norm of rounded factors would not
        be the norm of the sum, so kept factors are converted to fp32 first.
        """
        m, a, b = self.left.shape[-2], self.left.shape[-1], self.right.shape[-1]
        if m > 1 and a * b <= m * (a + b):
            return Gradients((self.left.mT.to(self.right.dtype) @ self.right).float())
        return Factors(self.left.float(), self.right.float())

    def squared_norms(self) -> Tensor:
        """Return the squared Frobenius norm of each unit's gradient, summed over the leading axes.

        Never below the squared norm of the unit's part of `clipped_sum`, up to `SLACK`. Not finite
        exactly where a factor is not: 0 x NaN and 0 x Inf are NaN.

        Returns:
            Shape (K, U), float64.
        """
        if self.left.shape[-2] == 1:
            lengths = [torch.linalg.vector_norm(s, dim=(-2, -1), dtype=torch.float64) for s in (self.left, self.right)]
            return _over_leading_axes((lengths[0] * lengths[1]).square())
        # (K * lead * U, m, .)
        left, right = self.left.flatten(0, -3), self.right.flatten(0, -3)
        at_once = max(1, _PIECE // (left[0].numel() + right[0].numel())) if left.device.type == "cpu" else len(left)
        pieces = zip(torch.split(left, at_once), torch.split(right, at_once), strict=True)
        return _over_leading_axes(torch.cat([_squared(*piece) for piece in pieces]).view(self.left.shape[:-2]))

    def clipped_sum(self, coefficients: Tensor) -> Tensor:
        """Return the sum over units of coefficient times gradient.

        Args:
            coefficients: Shape (K, U).

        Returns:
            Shape (K, *lead, a, b).
        """
        scaled = (self.left * _broadcast(coefficients, self.left)).flatten(-3, -2)
        return scaled.mT @ self.right.flatten(-3, -2)

    def without(self, bad: Tensor) -> "Factors":
        """Return the factors with zeros for the units where `bad` is true.

        Both factors are zeroed, since 0 x NaN is NaN.

        Args:
            bad: Shape (K, U), boolean.
        """
        blank = _broadcast(bad, self.left)
        return Factors(torch.where(blank, 0.0, self.left), torch.where(blank, 0.0, self.right))


@dataclass(frozen=True)
class Gradients:
    """Per-unit gradients of one parameter, formed in full.

    Attributes:
        value: Shape (K, *lead, U, a, b), fp32.
    """

    value: Tensor

    def squared_norms(self) -> Tensor:
        """Return squared norms as `Factors` does; not finite also if the square overflows fp32.

        Summed by rows: one running sum of all squares in fp32 loses accuracy.
        """
        return _over_leading_axes(torch.linalg.vector_norm(self.value, dim=-1).square().sum(-1).double())

    def clipped_sum(self, coefficients: Tensor) -> Tensor:
        """Return the sum over units of coefficient times gradient; see `Factors.clipped_sum`."""
        # (K, *1, 1, U)
        row = _broadcast(coefficients, self.value).squeeze(-1).mT
        return (row @ self.value.flatten(-2)).view(*self.value.shape[:-3], *self.value.shape[-2:])

    def without(self, bad: Tensor) -> "Gradients":
        """Return the gradients with zeros for the units where `bad` is true."""
        return Gradients(torch.where(_broadcast(bad, self.value), 0.0, self.value))


def _squared(left: Tensor, right: Tensor) -> Tensor:
    """Return squared norms of sums of m outer products plus the largest rounding error, float64.

    Args:
        left: Shape (n, m, a).
        right: Shape (n, m, b).

    Returns:
        Shape (n,).
    """
    left, right = left.double(), right.double()
    # Inner products of the outer products with one another.
    products = (left @ left.mT) * (right @ right.mT)
    lengths = products.diagonal(dim1=-2, dim2=-1).sqrt().sum(-1)
    rounding = (left.shape[-2] + 1) * _UNIT_ROUNDOFF * lengths
    return products.sum((-2, -1)) + rounding.square() / (2 * SLACK)


@contextmanager
def products_in_fp32() -> Iterator[None]:
    """Disable TF32 and bf16 inside matrix products, regardless of the process-wide setting.

    Both keep three digits, so no bound on a clipped contribution would hold.
    """
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
    """Reshape (K, U) to (K, *1, U, 1, 1), with as many axes as `to` has."""
    return by_unit.reshape(by_unit.shape[0], *[1] * (to.dim() - 4), by_unit.shape[1], 1, 1)


@dataclass(frozen=True)
class ClippedSums:
    """Result of clipping one batch or chunk.

    Attributes:
        sums: One tensor per parameter, of the parameter's shape.
        norms: Shape (K, U). Norm of each unit's gradient before clipping.
        non_finite: Number of units, over all shadows, that contributed zero because their gradient
            was not finite.
    """

    sums: dict[str, Tensor]
    norms: Tensor
    non_finite: int


def clip_and_sum(factors: dict[str, Factors], *, max_grad_norm: float, present: Tensor) -> ClippedSums:
    """Clip every unit's gradient to `max_grad_norm` over all parameters together, and sum.

    Args:
        factors: One entry per parameter. Entries of non-finite units are zeroed here.
        max_grad_norm: Clip, > 0; `math.inf` sums without clipping.
        present: Shape (K, U). True for sampled units.

    Returns:
        Sums in which each unit's contribution has norm <= max_grad_norm (1 + 1e-5) for any data;
        the excess is rounding.
    """
    found = {name: f.reduced() for name, f in factors.items()}
    squared = torch.stack([f.squared_norms() for f in found.values()]).sum(0)
    # Infinite where the square exceeds fp32's range.
    norms = squared.float().sqrt()
    bad = ~torch.isfinite(norms)
    coefficients = torch.where(present & ~bad, (max_grad_norm / norms.clamp_min(1e-12)).clamp(max=1.0), 0.0)
    if bool(bad.any()):
        found = {name: f.without(bad) for name, f in found.items()}
    with products_in_fp32():
        sums = {name: f.clipped_sum(coefficients) for name, f in found.items()}
    return ClippedSums(sums=sums, norms=norms, non_finite=int((bad & present).sum()))
