"""Variance of training from a handful of shadows: a mean's error and its interval."""

import math
from typing import NamedTuple

import numpy as np
from scipy.linalg import helmert
from scipy.optimize import brentq
from scipy.special import ndtr, stdtrit

from moo.core.evidence import Floats
from moo.core.measurement import Z95

# Scale of training's part of an error over that of units, before any data: with DP, and without
# clipping or noise; ADR 22.
WITH_DP, WITHOUT_DP = 0.07, 1.3
_GRID = np.concatenate([[0.0], np.geomspace(0.02, 1.0, 60), np.geomspace(1.05, 60.0, 60)])
_DF = np.geomspace(1.0, 1000.0, 400)
# Falls with the degrees of freedom.
_RATIO = stdtrit(_DF, 0.975) / stdtrit(_DF, 0.95)


class Spread(NamedTuple):
    """Law of an estimate's error: Student's, with a scale and degrees of freedom.

    Attributes:
        stderr: Scale.
        df: Degrees of freedom; infinite for a normal law.
    """

    stderr: float
    df: float = math.inf


def contrasts_of(per_shadow: Floats, covariance: Floats, *, refers: bool) -> tuple[Floats, Floats, Floats]:
    """Return contrasts of K paired shadows, their variance by unit, their part of training.

    The shadows of a pair have opposite members, so with a plain loss the difference within a pair
    is mostly how hard texts are, and the contrast between pairs is not. With references a pair's
    training moves the other pairs' numbers too, and the contrast between them sees that much less.

    Args:
        per_shadow: Shape (K,), pairs in rows 2j and 2j + 1.
        covariance: Shape (K, K). Of them, due to units.
        refers: As in `over_shadows`.

    Returns:
        Three arrays of shape (K - 1,).
    """
    k = len(per_shadow)
    within = np.kron(np.eye(k // 2), [1.0, -1.0]) / math.sqrt(2)
    between = np.kron(helmert(k // 2), [1.0, 1.0]) / math.sqrt(2)
    basis = np.concatenate([within, between])
    seen = np.repeat([1.0, (1 - 2 / (k - 2) ** 2) ** 2 if refers else 1.0], [len(within), len(between)])
    explained = np.einsum("ci,ij,cj->c", basis, covariance, basis)
    return basis @ per_shadow, np.maximum(explained, max(1e-9 * explained.max(), 1e-300)), seen


def spread_of(
    by_unit: float, contrasts: Floats, explained: Floats, seen: Floats, *, part: float, prior: float
) -> Spread:
    """Return the law of a mean's error: by unit, plus training.

    K - 1 contrasts show the part of training roughly.

    Training's part of the error, t, has a half-Cauchy law before the data, with a scale in units of
    the error by unit; the contrasts, normal given t, update it. The error is then a mixture of
    normal laws over t. Student's law with the same 95 and 97.5 % quantiles stands for it: near
    normal where units decide, with a degree or two of freedom where training does.

    Args:
        by_unit: Standard error due to units, > 0.
        contrasts, explained, seen: As `contrasts_of` returns them.
        part: Variance that training adds to the mean, for a variance of 1 of one shadow's number
            due to it.
        prior: Scale of t, in units of `by_unit`.

    Source:
        Gelman 2006, "Prior distributions for variance parameters in hierarchical models", Bayesian
        Analysis 1, section 5.2.
    """
    farthest = math.sqrt(part * float((contrasts**2 / seen).max())) / by_unit
    grid = _GRID * max(1.0, 3 * farthest / _GRID[-1])
    variance = explained + seen * (grid[:, None] * by_unit) ** 2 / part
    log = -0.5 * (np.log(variance) + contrasts**2 / variance).sum(axis=1) - np.log1p((grid / prior) ** 2)
    weights = np.exp(log - log.max()) * np.gradient(grid)
    weights /= weights.sum()
    sd = np.sqrt(1.0 + grid**2)
    low, high = (brentq(lambda x, q=q: float(weights @ ndtr(x / sd)) - q, 0.0, 8 * sd[-1]) for q in (0.95, 0.975))
    ratio = high / low
    df = math.inf if ratio <= _RATIO[-1] else float(np.interp(ratio, _RATIO[::-1], _DF[::-1]))
    quantile = Z95 if math.isinf(df) else float(stdtrit(df, 0.975))
    return Spread(by_unit * high / quantile, df)
