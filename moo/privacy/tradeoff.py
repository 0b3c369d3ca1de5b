"""Trade-off curves of mechanisms, and the limits that they set for any attack.

A curve g of a mechanism says: an event of probability y on one data set has at least probability
g(y) on every neighbouring one. It holds in both directions, so the ROC curve of any attack on one
unit's membership stays below x -> 1 - g(1 - x).

Source: Dong, Roth and Su 2022, "Gaussian Differential Privacy"; g is 1 - f(1 - y) there, for their
trade-off function f.
"""

import math
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import log_ndtr, ndtr, ndtri

from moo.core import validate
from moo.core.errors import InputError
from moo.privacy.composition import privacy_loss
from moo.privacy.events import TrainingRun

Floats = NDArray[np.float64]


class Curve(Protocol):
    """A mechanism's trade-off curve."""

    def least(self, probability: float) -> float:
        """Return the least probability of such an event on a neighbouring data set."""
        ...


@dataclass(frozen=True, kw_only=True)
class GaussianCurve:
    """Gaussian mechanism with means mu standard deviations apart.

    Attributes:
        mu: > 0.
    """

    mu: float

    def __post_init__(self) -> None:
        validate.positive(mu=self.mu)

    def least(self, probability: float) -> float:
        if math.isinf(self.mu):
            return float(probability >= 1.0)
        return float(ndtr(ndtri(probability) - self.mu))


@dataclass(frozen=True, kw_only=True)
class HockeyStickCurve:
    """The curve that follows from (epsilon, delta) at each of several epsilons at once.

    Attributes:
        epsilons: Shape (n,), >= 0.
        deltas: Shape (n,), in [0, 1]. Here an event is at most e^epsilon times as probable as
            there, plus delta.
        deltas_back: Shape (n,). The same from there to here.
    """

    epsilons: Floats
    deltas: Floats
    deltas_back: Floats
    _rise: Floats = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.epsilons.size or not self.epsilons.shape == self.deltas.shape == self.deltas_back.shape:
            raise InputError(
                "epsilons, deltas and deltas_back must have one shape and not be empty, got {epsilons}, "
                "{deltas} and {deltas_back}.",
                deltas=self.deltas.shape,
                deltas_back=self.deltas_back.shape,
                epsilons=self.epsilons.shape,
            )
        both = np.concatenate([self.deltas, self.deltas_back])
        if not ((self.epsilons >= 0).all() and (both >= 0).all() and (both <= 1).all()):
            raise InputError("epsilons must be >= 0 and deltas in [0, 1], got others.")
        object.__setattr__(self, "_rise", np.exp(np.minimum(self.epsilons, 700.0)))

    def least(self, probability: float) -> float:
        low = (probability - self.deltas) / self._rise
        high = 1.0 - self.deltas_back - self._rise * (1.0 - probability)
        return max(0.0, float(low.max()), float(high.max()))


def approximate_dp(epsilon: float, delta: float) -> HockeyStickCurve:
    """Return the curve that (epsilon, delta)-DP alone implies."""
    one = np.array([delta], float)
    return HockeyStickCurve(epsilons=np.array([epsilon], float), deltas=one, deltas_back=one)


def gaussian_dp(epsilon: float, delta: float) -> GaussianCurve:
    """Return the Gaussian mechanism that is exactly (epsilon, delta)-DP.

    Raises:
        InputError: If epsilon < 0, or delta is outside (0, 1).

    Source:
        Balle and Wang 2018, "Improving the Gaussian Mechanism for Differential Privacy", Theorem 8.
    """
    validate.in_range(0, 1e6, epsilon=epsilon)
    validate.in_range(1e-300, 1 - 1e-12, delta=delta)

    def excess(log_mu: float) -> float:
        return _log_gaussian_delta(math.exp(log_mu), epsilon) - math.log(delta)

    return GaussianCurve(mu=math.exp(float(brentq(excess, math.log(1e-9), math.log(1e5), xtol=1e-12))))


def _log_gaussian_delta(mu: float, epsilon: float) -> float:
    """Return the log of delta.

    In logarithms, since the difference of the two tails loses its digits.
    """
    high, low = float(log_ndtr(mu / 2 - epsilon / mu)), epsilon + float(log_ndtr(-mu / 2 - epsilon / mu))
    return high + math.log1p(-math.exp(low - high)) if low < high else -1e4


def advantage_of(curve: Curve, *, places: int = 2000) -> float:
    """Return the largest 2 AUC - 1 that any attack on a unit's membership can reach.

    Twice the area under the highest ROC curve, less 1.

    It is more than the largest gap between true- and false-positive rate: under the Gaussian
    mechanism of mu = 1 the gap is .38 and 2 AUC - 1 is .52.

    Args:
        curve: Of the mechanism.
        places: Of the sum; g rises, so a sum from the left is never above its area, and the result
            never too low.
    """
    area = sum(curve.least(i / places) for i in range(places)) / places
    return min(1.0, 1.0 - 2.0 * area)


def curve_of(run: TrainingRun) -> HockeyStickCurve:
    """Return the trade-off curve of one run, from its PLD at 400 epsilons.

    It holds for adding a unit and for removing one.

    Raises:
        InputError: If it was trained without noise: nothing is claimed then.
    """
    if not run.private:
        raise InputError("noise_multiplier must be > 0 for a trade-off curve, got 0; without noise nothing is claimed.")
    found = _curve(run.sample_rate, run.steps, run.noise_multiplier)
    worse = np.maximum(found.deltas, found.deltas_back)
    return HockeyStickCurve(epsilons=found.epsilons, deltas=worse, deltas_back=worse)


@lru_cache(maxsize=256)
def _curve(sample_rate: float, steps: int, noise_multiplier: float) -> HockeyStickCurve:
    """Return the curve from the data with the unit to those without it."""
    loss = privacy_loss(sample_rate, steps, noise_multiplier)
    most = max(1e-3, float(loss.get_epsilon_for_delta(1e-12)))
    epsilons = np.concatenate([[0.0], np.geomspace(1e-3 * min(1.0, most), most, 399)])
    removing, adding = (
        np.clip(pmf.get_delta_for_epsilon(epsilons.tolist()), 0.0, 1.0) for pmf in (loss._pmf_remove, loss._pmf_add)
    )
    return HockeyStickCurve(epsilons=epsilons, deltas=removing, deltas_back=adding)


def advantage_ceiling(run: TrainingRun) -> float:
    """Return the largest membership advantage, 2 AUC - 1, that the run's PLD allows any attack."""
    if not run.private:
        return 1.0
    return advantage_of(_curve(run.sample_rate, run.steps, run.noise_multiplier)) if run.steps else 0.0


def tpr_ceiling(run: TrainingRun, fpr: float) -> float:
    """Return the largest true-positive rate that the run's PLD allows any attack.

    The false-positive rate is in [0, 1].
    """
    validate.in_range(0, 1, fpr=fpr)
    if not run.private:
        return 1.0
    # an attack says "not a member" with probability 1 - fpr without the unit, so with it at least
    # so often:
    return 1.0 - curve_of(run).least(1.0 - fpr) if run.steps else fpr
