"""Calibration: a delta that is small enough, and the noise that reaches a target epsilon."""

import math
from collections.abc import Callable
from functools import lru_cache

from moo.core import validate
from moo.core.errors import InputError
from moo.privacy.composition import pld_epsilon

_LARGEST_NOISE = 1e4
# Relative share of the target epsilon that a calibration may leave unspent.
_SLACK = 5e-4


def check_delta(delta: float, n_units: int) -> None:
    """Refuse a delta that would allow one unit to be given away whole.

    Raises:
        InputError: Unless 0 < delta < 1 / n_units.
    """
    if not 0 < delta < 1 / n_units:
        raise InputError(
            "target_delta must be above 0 and below 1/n_units = {limit:.2g}, got {delta!r}; choose "
            "one well below, such as {example:.0e}.",
            limit=1 / n_units,
            delta=delta,
            example=10 ** math.floor(math.log10(0.1 / n_units)),
        )


def calibrate_noise(*, target_epsilon: float, delta: float, sample_rate: float, steps: int) -> float:
    """Return the noise multiplier that reaches a target epsilon by PLD.

    Epsilon is within 1 part in 2,000 of the target and does not exceed it.

    Raises:
        InputError: If the target is not positive, or no noise up to 10,000 reaches it.
    """
    validate.positive(target_epsilon=target_epsilon, way_out="use math.inf to train without DP")
    return _calibrated(target_epsilon, delta, sample_rate, steps)


@lru_cache(maxsize=4096)
def _calibrated(target_epsilon: float, delta: float, sample_rate: float, steps: int) -> float:
    if math.isinf(target_epsilon):
        return 0.0

    def excess(log_noise: float) -> float:
        epsilon = pld_epsilon(sample_rate, steps, math.exp(log_noise), delta)
        return math.log(max(epsilon, 1e-12) / target_epsilon)

    start = max(0.5, 3 * sample_rate * math.sqrt(steps) / min(target_epsilon, 3.0))
    return math.exp(_just_below(excess, math.log(start)))


def _just_below(excess: Callable[[float], float], at: float) -> float:
    """Return the log of a noise multiplier with an excess in (-`_SLACK`, 0].

    Found by safeguarded secant steps.

    Epsilon is nearly a power of the noise, so a straight line through two points in logarithms is
    close; each evaluation costs one privacy loss distribution, the more the less noise there is.

    Args:
        excess: Falling function of the log noise: log of epsilon over its target.
        at: First log noise to try.

    Raises:
        InputError: If the excess stays above 0 up to the largest noise.
    """
    low, high, slope, found = -math.inf, math.inf, -1.2, excess(at)
    while not -_SLACK < found <= 0:
        low, high = (max(low, at), high) if found > 0 else (low, min(high, at))
        if low > math.log(_LARGEST_NOISE):
            raise InputError("No noise multiplier up to 10,000 reaches the target epsilon; raise target_epsilon.")
        if high - low < 1e-9:
            return high
        following = at + min(1.0, max(-1.0, -(found + _SLACK / 2) / slope))
        if not low < following < high:
            following = (low + high) / 2
        value = excess(following)
        slope = min(-0.1, (value - found) / (following - at))
        at, found = following, value
    return at
