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


def knee(values: NDArray[np.floating], names: Sequence[str]) -> Choice:
    """The point nearest to the ideal one, each objective scaled to its range on the front.

    Args:
        values: Shape (n, d), n >= 1, all minimised: the front.
        names: Length d, for the reason.

    Source:
        The compromise solution of Zeleny 1973 with the Euclidean distance.
    """
    if len(values) == 0:
        raise InputError("a front must hold at least one point, but got none; loosen the limits.")
    low, high = values.min(axis=0), values.max(axis=0)
    spread = np.where(high > low, high - low, 1.0)
    scaled = (values - low) / spread
    distance = np.sqrt((scaled**2).sum(axis=1))
    index = int(distance.argmin())
    if len(values) == 1:
        return Choice(index=0, reason="it is the only feasible point on the front")
    given = ", ".join(f"{name} {100 * s:.0f} %" for name, s in zip(names, scaled[index], strict=True))
    return Choice(
        index=index,
        reason=f"nearest to the best of every objective at once; it gives up, of the front's range: {given}",
    )


def topsis(values: NDArray[np.floating], weights: Sequence[float]) -> NDArray[np.float64]:
    """Closeness to the ideal point, in [0, 1], higher is better, with weights (Hwang and Yoon 1981).

    Args:
        values: Shape (n, d), all minimised.
        weights: Length d, >= 0, not all 0.
    """
    w = np.asarray(weights, dtype=float)
    if (w < 0).any() or w.sum() <= 0 or len(w) != values.shape[1]:
        raise InputError(f"{values.shape[1]} weights >= 0, not all 0, must hold, but got weights={list(weights)}.")
    length = np.sqrt((values**2).sum(axis=0))
    scaled = values / np.where(length > 0, length, 1.0) * (w / w.sum())
    best, worst = scaled.min(axis=0), scaled.max(axis=0)
    to_best = np.sqrt(((scaled - best) ** 2).sum(axis=1))
    to_worst = np.sqrt(((scaled - worst) ** 2).sum(axis=1))
    total = to_best + to_worst
    out: NDArray[np.float64] = np.where(total > 0, to_worst / np.where(total > 0, total, 1.0), 1.0)
    return out
