"""Probability that a point is on the front, or feasible, given standard errors."""

from collections.abc import Sequence

import moocore
import numpy as np
from numpy.typing import NDArray

from moo.core.errors import InputError

Floats = NDArray[np.float64]


def probability_non_dominated(
    means: NDArray[np.floating], stderrs: NDArray[np.floating], *, draws: int = 200, rng: np.random.Generator
) -> Floats:
    """Return the share of Monte Carlo draws in which each point is non-dominated.

    Errors are taken as independent and normal.

    Args:
        means: Shape (n, d), all minimised.
        stderrs: Shape (n, d), >= 0.
        draws: Number of draws.
        rng: Source of the draws.

    Returns:
        Shape (n,), in [0, 1].
    """
    if means.shape != stderrs.shape or (stderrs < 0).any():
        raise InputError(
            "stderrs must be >= 0 and of shape {wanted}, got shape {shape}.", wanted=means.shape, shape=stderrs.shape
        )
    if len(means) == 0:
        return np.zeros(0)
    hits = np.zeros(len(means))
    for _ in range(draws):
        drawn = means + stderrs * rng.standard_normal(means.shape)
        hits += moocore.is_nondominated(drawn, keep_weakly=True)
    return hits / draws


def probability_feasible(
    means: NDArray[np.floating],
    stderrs: NDArray[np.floating],
    limits: Sequence[float],
    *,
    dfs: NDArray[np.floating] | None = None,
) -> Floats:
    """Return the probability that every limited measure is within its limit.

    Errors are taken as independent.

    Args:
        means: Shape (n, c).
        stderrs: Shape (n, c); 0 makes the answer 0 or 1.
        limits: Length c.
        dfs: Shape (n, c). Degrees of freedom of the errors' Student law; normal errors where none
            are given.

    Returns:
        Shape (n,), in [0, 1].
    """
    from scipy.special import stdtr

    gap = np.asarray(limits) - means
    exact = (gap >= 0).astype(float)
    freedom = np.full(means.shape, np.inf) if dfs is None else dfs
    chance = np.where(stderrs > 0, stdtr(freedom, gap / np.where(stderrs > 0, stderrs, 1.0)), exact)
    out: Floats = chance.prod(axis=1)
    return out
