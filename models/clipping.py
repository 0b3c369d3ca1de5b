"""Per-unit gradients kept as factors: their norms and clipped sums without ever forming the gradients.

The gradient of a matrix W that maps x to W x is, for one record, the outer product of the output's gradient and x. The
gradient of a unit of privacy (a user with m records, or one record in several heads) is a sum of m such products,

    G_u = sum_i left[u, i] (x) right[u, i],        left: (..., U, m, a), right: (..., U, m, b).

Source: the norm through Gram matrices is "ghost clipping" (Li et al. 2022, "Large Language Models Can Be Strong
Differentially Private Learners", section 4); keeping the factors of one backward pass for the clipped sum is
book-keeping (Bu et al. 2023, "Differentially Private Optimization on Large Model at Small Cost").
"""

from dataclasses import dataclass

import torch
from torch import Tensor


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
        """Squared Frobenius norm of each unit's gradient, summed over the leading axes: shape (K, U).

        Not finite exactly where a factor is not, or where the square overflows: 0 x NaN and 0 x Inf are NaN.
        """
        if self.left.shape[-2] == 1:
            norms = self.left.square().sum(dim=(-2, -1)) * self.right.square().sum(dim=(-2, -1))
        else:
            norms = ((self.left @ self.left.mT) * (self.right @ self.right.mT)).sum(dim=(-2, -1))
        return _over_leading_axes(norms)

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
        """As of `Factors`."""
        return _over_leading_axes(torch.linalg.vector_norm(self.value.flatten(-2), dim=-1).square())

    def clipped_sum(self, coefficients: Tensor) -> Tensor:
        """As of `Factors`."""
        row = _broadcast(coefficients, self.value).squeeze(-1).mT  # (K, *1, 1, U)
        return (row @ self.value.flatten(-2)).view(*self.value.shape[:-3], *self.value.shape[-2:])

    def without(self, bad: Tensor) -> "Gradients":
        """As of `Factors`."""
        return Gradients(torch.where(_broadcast(bad, self.value), 0.0, self.value))


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
        Sums in which each unit's contribution has norm <= max_grad_norm, whatever the data hold.
    """
    found = {name: f.reduced() for name, f in factors.items()}
    norms = torch.stack([f.squared_norms() for f in found.values()]).sum(0).sqrt()
    bad = ~torch.isfinite(norms)
    coefficients = torch.where(present & ~bad, (max_grad_norm / norms.clamp_min(1e-12)).clamp(max=1.0), 0.0)
    if bool(bad.any()):
        found = {name: f.without(bad) for name, f in found.items()}
    sums = {name: f.clipped_sum(coefficients) for name, f in found.items()}
    return ClippedSums(sums=sums, norms=norms, non_finite=int((bad & present).sum()))
