"""Test of batches for Poisson sampling, which guesses at canaries cannot show."""

from collections.abc import Sequence

import numpy as np
from scipy.stats import gamma, norm, poisson

from moo.core import validate
from moo.core.errors import InputError
from moo.core.evidence import Ints


def poisson_p_value(batches: Sequence[Ints], *, n_units: int, sample_rate: float) -> float:
    """Return the p-value of batches under Poisson sampling.

    Three things are looked at, and the worst counts three times: how much the sizes vary, how much
    the units differ in how often they came, and how many units are in two batches in a row.
    Batches of a fixed size fail the first, epochs over shuffled data the second and the third.

    Args:
        batches: Units of each step, without repeats.
        n_units: That may come.
        sample_rate: q, in (0, 1].

    Returns:
        A p-value, in [0, 1].

    Raises:
        InputError: If there are no batches, n_units < 1, units beyond `n_units`, or one that comes
            twice in a batch.
    """
    validate.in_range(1, 10**12, n_units=n_units)
    validate.in_range(0, 1, sample_rate=validate.positive(sample_rate=sample_rate))
    if not batches:
        raise InputError("batches must have at least one step, got none.")
    twice, again = _meetings(batches)
    if twice:
        raise InputError("batches must have no repeats, but some unit comes twice in one batch.")
    counts = np.bincount(np.concatenate(batches).astype(np.int64))
    if np.count_nonzero(counts) > n_units:
        raise InputError(
            "batches must draw from at most n_units={n_units} units, got {count}.",
            n_units=n_units,
            count=np.count_nonzero(counts),
        )
    sizes = np.array([len(b) for b in batches])
    if sample_rate == 1:
        return float((sizes == n_units).all())
    came = np.zeros(n_units)
    came[: np.count_nonzero(counts)] = counts[counts > 0]
    both = [_spread(sizes, n_units, sample_rate), _spread(came, len(batches), sample_rate)]
    return min(1.0, 3 * min([*both, _repeats(again, len(batches), n_units, sample_rate)]))


def _meetings(batches: Sequence[Ints]) -> tuple[int, int]:
    """Return how often a unit comes twice in one batch, and how often in two batches in a row."""
    units = np.concatenate(batches)
    steps = np.repeat(np.arange(len(batches)), [len(b) for b in batches])
    order = np.lexsort((steps, units))
    same, gap = np.diff(units[order]) == 0, np.diff(steps[order])
    return int((same & (gap == 0)).sum()), int((same & (gap == 1)).sum())


def _spread(counts: np.ndarray, trials: int, q: float) -> float:
    """Return the two-sided p-value of a sum of squared standard scores of binomial counts.

    By a gamma law of its mean and variance.
    """
    variance = trials * q * (1 - q)
    found = float(((counts - trials * q) ** 2).sum() / variance)
    each = 2 + (1 - 6 * q * (1 - q)) / variance
    law = {"a": len(counts) / each, "scale": each}
    return float(min(1.0, 2 * min(gamma.cdf(found, **law), gamma.sf(found, **law))))


def _repeats(found: int, n_batches: int, n_units: int, q: float) -> float:
    """Return the two-sided p-value of the number of units in two batches in a row."""
    pairs = n_batches - 1
    if pairs < 1:
        return 1.0
    expected = n_units * pairs * q**2
    # Too few for the normal law.
    if expected < 30:
        return float(min(1.0, 2 * min(poisson.cdf(found, expected), poisson.sf(found - 1, expected))))
    variance = n_units * (pairs * (q**2 - q**4) + 2 * (pairs - 1) * (q**3 - q**4))
    return float(2 * norm.sf(abs(found - expected) / np.sqrt(variance)))
