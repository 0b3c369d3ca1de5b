"""Non-dominated points and hypervolume, by moocore. Every objective is minimised."""

from collections.abc import Sequence

import moocore
import numpy as np
from numpy.typing import NDArray

from moo.core.errors import InputError

Floats = NDArray[np.float64]


def _points(values: NDArray[np.floating], name: str = "values") -> Floats:
    points = np.asarray(values, dtype=np.float64)
    if points.ndim != 2:
        raise InputError("{name} must have shape (n, d), got {shape}.", name=name, shape=points.shape)
    if np.isnan(points).any():
        raise InputError("{name} must have no NaN, got some; leave out the points that were not assessed.", name=name)
    return points


def non_dominated(values: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Mask of the points that no other point dominates; equal points do not dominate each other.

    Args:
        values: Shape (n, d), all minimised, without NaN.

    Returns:
        Shape (n,).
    """
    points = _points(values)
    if len(points) == 0:
        return np.zeros(0, dtype=bool)
    out: NDArray[np.bool_] = np.asarray(moocore.is_nondominated(points, keep_weakly=True), dtype=bool)
    return out


def hypervolume(values: NDArray[np.floating], reference: Sequence[float]) -> float:
    """Return the volume between the points and the reference point.

    Points that do not dominate the reference point add nothing.

    Args:
        values: Shape (n, d), all minimised.
        reference: Length d.
    """
    points = _points(values)
    inside = points[(points < np.asarray(reference)).all(axis=1)]
    return float(moocore.hypervolume(inside, ref=list(reference))) if len(inside) else 0.0


def running_hypervolume(
    values: NDArray[np.floating], feasible: NDArray[np.bool_], reference: Sequence[float]
) -> Floats:
    """Return the hypervolume of the feasible points among the first i + 1, for each i."""
    points = _points(values)
    return np.array([hypervolume(points[: i + 1][feasible[: i + 1]], reference) for i in range(len(points))])
