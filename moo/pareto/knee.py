"""Choice of one point of a front."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moo.core.errors import InputError
from moo.core.messages import Message, joined


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A chosen point and why.

    Attributes:
        index: Its row.
        reason: One sentence.
    """

    index: int
    reason: str


def knee(
    values: NDArray[np.floating],
    names: Sequence[str],
    weights: Sequence[float] = (),
    errors: NDArray[np.floating] | None = None,
) -> Choice:
    """Return the point of a front that is nearest to the ideal one.

    Each objective is scaled to its range on the front, but to noise where that is wider.

    An objective in which the points of a front differ by chance alone would otherwise decide as
    much as one in which they differ.

    Args:
        values: Shape (n, d), n >= 1, all minimised: the front.
        names: Length d, for the reason.
        weights: Length d, >= 0, not all 0: what a step along each objective counts; all alike where
            none are given.
        errors: Shape (n, d), standard errors of the values; exact where none are given. The noise
            is twice that of a difference.

    Raises:
        InputError: If there is no point, or the weights are unfit.

    Source:
        The compromise solution of Zeleny 1973 with the Euclidean distance.
    """
    if len(values) == 0:
        raise InputError("A front must have at least one point, got none; loosen the limits.")
    w = np.asarray(weights or np.ones(values.shape[1]), dtype=float)
    if len(w) != values.shape[1] or not np.isfinite(w).all() or (w < 0).any() or not w.any():
        raise InputError(
            "weights must be {n_objectives} numbers >= 0, not all 0, got {weights}.",
            n_objectives=values.shape[1],
            weights=list(weights),
        )
    if len(values) == 1:
        return Choice(index=0, reason="it is the only feasible point on the front")
    low, width = values.min(axis=0), np.ptp(values, axis=0)
    noise = np.zeros(len(w)) if errors is None else 2 * math.sqrt(2) * np.nan_to_num(np.median(errors, axis=0))
    spread = np.maximum(width, noise)
    scaled = (values - low) / np.where(spread > 0, spread, 1.0)
    index = int(np.sqrt(((w * scaled) ** 2).sum(axis=1)).argmin())
    reason = _reason(names, scaled[index], w if weights else None)
    narrow = [name for name, n, r in zip(names, noise, width, strict=True) if 0 < r < n]
    if narrow:
        template = "{names}: twice the error of a difference stands for the range, which is less"
        reason = joined("; ", [reason, Message(template, names=joined(", ", narrow))])
    return Choice(index=index, reason=reason)


def _reason(names: Sequence[str], given_up: NDArray[np.floating], weights: NDArray[np.floating] | None) -> Message:
    """Return what a point gives up of each objective's range, in words."""
    shares = [
        Message("{name} {share:.0f} %", name=n, share=float(100 * s)) for n, s in zip(names, given_up, strict=True)
    ]
    given = joined(", ", shares)
    if weights is None:
        return Message(
            "nearest to the best of every objective at once; it gives up, of the front's range: {given}", given=given
        )
    each = [Message("{name} {weight:g}", name=n, weight=float(w)) for n, w in zip(names, weights, strict=True)]
    return Message(
        "nearest to the best of every objective at once, weighed {weighed}; it gives up, of the front's range: {given}",
        weighed=joined(", ", each),
        given=given,
    )
