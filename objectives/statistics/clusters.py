"""Sums and standard errors by unit of privacy: records of a person are never independent."""

import math

import numpy as np

from moo.core.errors import InputError
from moo.core.evidence import Floats, Ints


def unit_codes(units: Ints) -> tuple[Ints, int]:
    """Return units renumbered 0..U-1, shape (n,), and their number U."""
    found, codes = np.unique(np.asarray(units), return_inverse=True)
    return codes.reshape(-1), len(found)


def clustered_stderr(influence: Floats, units: Ints) -> float:
    """Return the standard error of a statistic from each record's influence, added up by unit.

    Args:
        influence: Shape (n,). First-order change of the statistic due to each record; sums to about
            0.
        units: Shape (n,). Unit of each record.

    Returns:
        sqrt(U / (U - 1) x sum over units of squared sums), in the statistic's own unit; infinite
        for one unit.

    Source:
        Obuchowski 1997, "Nonparametric Analysis of Clustered ROC Curve Data"; Liang and Zeger 1986
        for means.
    """
    codes, count = unit_codes(units)
    if count < 2:
        return math.inf
    sums = np.bincount(codes, weights=influence, minlength=count)
    return math.sqrt(count / (count - 1) * float(sums @ sums))


def clustered_covariance(influence: Floats, units: Ints) -> Floats:
    """Return the covariance of K statistics from each record's influence, added up by unit.

    Args:
        influence: Shape (K, n); each row as in `clustered_stderr`; the diagonal holds its square.
        units: Shape (n,).

    Returns:
        Shape (K, K); infinite for one unit.
    """
    codes, count = unit_codes(units)
    if count < 2:
        return np.full((len(influence), len(influence)), math.inf)
    sums = np.stack([np.bincount(codes, weights=row, minlength=count) for row in influence])
    covariance: Floats = sums @ sums.T * (count / (count - 1))
    return covariance


def clustered_mean(values: Floats, units: Ints) -> tuple[float, float]:
    """Return the mean of values of shape (n,), and its standard error clustered by unit."""
    if len(values) == 0:
        raise InputError("values must have at least one record, got none.")
    mean = float(np.mean(values))
    return mean, clustered_stderr((values - mean) / len(values), units)


def shadow_stderr(per_shadow: Floats) -> float:
    """Return the standard error of a mean over K shadows from their own spread: sd / sqrt(K)."""
    return float(np.std(per_shadow, ddof=1) / math.sqrt(len(per_shadow)))
