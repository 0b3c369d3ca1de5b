"""Which point of a front to take."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moo.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A chosen point and why.

    Attributes:
        index: Its row.
        reason: One sentence.
    """

    index: int
    reason: str


def knee(values: NDArray[np.floating], names: Sequence[str], weights: Sequence[float] = ()) -> Choice:
    """The point nearest to the ideal one, each objective scaled to its range on the front.

    Args:
        values: Shape (n, d), n >= 1, all minimised: the front.
        names: Length d, for the reason.
        weights: Length d, >= 0, not all 0: what a step along each objective counts; all alike where none are given.

    Raises:
        InputError: If there is no point, or the weights are unfit.

    Source:
        The compromise solution of Zeleny 1973 with the Euclidean distance.
    """
    if len(values) == 0:
        raise InputError("a front must hold at least one point, but got none; loosen the limits.")
    w = np.asarray(weights or np.ones(values.shape[1]), dtype=float)
    if len(w) != values.shape[1] or not np.isfinite(w).all() or (w < 0).any() or not w.any():
        raise InputError(f"{values.shape[1]} weights >= 0, not all 0, must hold, but got weights={list(weights)}.")
    low, high = values.min(axis=0), values.max(axis=0)
    spread = np.where(high > low, high - low, 1.0)
    scaled = (values - low) / spread
    index = int(np.sqrt(((w * scaled) ** 2).sum(axis=1)).argmin())
    if len(values) == 1:
        return Choice(index=0, reason="it is the only feasible point on the front")
    given = ", ".join(f"{name} {100 * s:.0f} %" for name, s in zip(names, scaled[index], strict=True))
    if not weights:
        return Choice(
            index=index,
            reason=f"nearest to the best of every objective at once; it gives up, of the front's range: {given}",
        )
    weighed = ", ".join(f"{name} {weight:g}" for name, weight in zip(names, w, strict=True))
    return Choice(
        index=index,
        reason=f"nearest to the best of every objective at once, weighed {weighed}; it gives up, of the front's range: {given}",
    )
