"""Test of the units drawn into batches against the Poisson sampling that an event claims.

Every look has a stated error probability that holds for any number of units and steps: an exact
binomial tail for the rate, and Chernoff bounds from exact binomial laws for the spreads. Together
they withdraw the claim of a run that did draw by Poisson sampling with probability `ERROR` at most.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp
from scipy.stats import binom

from moo.core.messages import Message

POISSON = "poisson"
# Probability, at most, that a run of Poisson sampling is taken for another.
ERROR = 1e-9
# one-sided tests that share the error probability.
_LOOKS = 6
# Of the two Chernoff bounds.
_EXPONENTS = np.concatenate([-np.geomspace(1e-2, 1e3, 21), np.geomspace(1e-3, 0.6, 15)])

Ints = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """Counts of the units that entered the batches of K shadows.

    Attributes:
        sizes: K arrays, shape (steps,): units in each batch.
        times: K arrays, shape (units of the shadow's half,): batches that each unit entered.
        outside: Draws of units that the shadow is not trained on.
    """

    sizes: tuple[Ints, ...]
    times: tuple[Ints, ...]
    outside: int = 0

    @classmethod
    def together(cls, parts: Sequence["Drawn"]) -> "Drawn":
        """Join what trainings of single shadows have seen."""
        return cls(
            sizes=tuple(s for part in parts for s in part.sizes),
            times=tuple(t for part in parts for t in part.times),
            outside=sum(part.outside for part in parts),
        )

    def sampler(self, rate: float) -> str:
        """Return "poisson" where nothing speaks against it, else how the batches were drawn.

        Args:
            rate: Probability, in (0, 1], with which a unit enters a batch.
        """
        steps = min((len(s) for s in self.sizes), default=0)
        trials = sum(len(s) * len(t) for s, t in zip(self.sizes, self.times, strict=True))
        if self.outside:
            return Message("drawn in {n} cases from units that the shadow is not trained on", n=self.outside)
        if not trials:
            return POISSON
        entered, bound = int(sum(int(s.sum()) for s in self.sizes)), np.log(ERROR / _LOOKS)
        if min(binom.logcdf(entered, trials, rate), binom.logsf(entered - 1, trials, rate)) < bound:
            return Message(
                "drawn at a rate of {rate:.3g} where {claimed:.3g} is claimed", rate=entered / trials, claimed=rate
            )
        if rate == 1:
            return POISSON
        of_steps = [(len(t), s) for s, t in zip(self.sizes, self.times, strict=True) if len(t)]
        low, high = _spread(of_steps, rate)
        if min(low, high) < bound:
            return "of nearly one size" if low < high else "of sizes that differ too much"
        low, high = _spread([(steps, t) for t in self.times if len(t)], rate)
        if min(low, high) < bound:
            return "shuffled" if low < high else "drawn unevenly among the units"
        return POISSON


def _spread(counts: Sequence[tuple[int, Ints]], rate: float) -> tuple[float, float]:
    """Return bounds on the log-probabilities of a sum of squares as small and as large.

    The squares are of standard scores of binomial counts.

    Args:
        counts: Trials, and counts of so many trials each.
        rate: In (0, 1).

    Source:
        Chernoff: P(S <= s) <= exp(-t s) E exp(t S) for every t < 0, P(S >= s) <= the same for every
        t > 0.
    """
    found = sum(float(((v - n * rate) ** 2).sum()) / (n * rate * (1 - rate)) for n, v in counts)
    numbers: Counter[int] = Counter()
    for trials, values in counts:
        numbers[trials] += len(values)
    log_mean = sum(number * _log_moments(trials, rate) for trials, number in numbers.items())
    bounds: NDArray[np.float64] = log_mean - _EXPONENTS * found
    return float(bounds[_EXPONENTS < 0].min()), float(bounds[_EXPONENTS > 0].min())


@lru_cache(maxsize=64)
def _log_moments(trials: int, rate: float) -> NDArray[np.float64]:
    """Return log E exp(t z^2) at each exponent t, for the standard score z of a binomial count.

    40 deviations of it hold all its mass.
    """
    mean, variance = trials * rate, trials * rate * (1 - rate)
    reach = 40 * np.sqrt(variance) + 200
    values = np.arange(max(0, int(mean - reach)), min(trials, int(mean + reach)) + 1)
    log_law, squares = binom.logpmf(values, trials, rate), (values - mean) ** 2 / variance
    out: NDArray[np.float64] = logsumexp(log_law + _EXPONENTS[:, None] * squares, axis=1)
    return out
