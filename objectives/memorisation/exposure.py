"""Memorisation in generation: rank of planted secrets, and verbatim emission."""

import math
from dataclasses import dataclass

import numpy as np
from scipy.stats import beta

from moo.core import validate
from moo.core.errors import InputError
from moo.core.evidence import Bools, Floats
from moo.core.measurement import Measurement

# Mean exposure of a secret that was not learnt, among many candidates.
UNTRAINED_BITS = 1 / math.log(2)


def exposure(canary_losses: np.ndarray, other_losses: np.ndarray) -> np.ndarray:
    """Return the exposure of planted canaries, in bits.

    log2 of the number of candidates minus log2 of the canary's rank among them.

    Args:
        canary_losses: Shape (c,). Loss of each canary that was trained on.
        other_losses: Shape (r,). Losses of candidates of the same form that were not.

    Returns:
        Shape (c,), from 0 to log2(r + 1). A canary tied with candidates ranks behind them.

    Raises:
        InputError: If an array is empty or holds NaN.

    Source:
        Carlini, Liu, Erlingsson, Kos and Song 2019, "The Secret Sharer", section 4.
    """
    for name, values in (("canary_losses", canary_losses), ("other_losses", other_losses)):
        if values.ndim != 1 or not values.size or np.isnan(values).any():
            raise InputError(
                "{name} must be a non-empty vector without NaN, got shape {shape}.", name=name, shape=values.shape
            )
    rank = 1 + np.searchsorted(np.sort(other_losses), canary_losses, "right")
    bits: np.ndarray = np.log2(other_losses.size + 1) - np.log2(rank)
    return bits


def mean_exposure(canary_losses: Floats, other_losses: Floats) -> Measurement:
    """Return the mean exposure over the canaries, bits, with its standard error.

    The error is over canaries; args as in `exposure`.

    Where nothing was learnt it is `UNTRAINED_BITS` (1.44), not 0.
    """
    return mean_bits(exposure(canary_losses, other_losses))


def mean_bits(bits: Floats) -> Measurement:
    """Return the mean of exposures of shape (c,), bits, with its standard error.

    The error is over canaries; infinite for one.

    Where all have the same exposure, as where all come first, the error is that of one canary in c
    being one bit otherwise.

    Raises:
        InputError: If there are none, or one is not finite.
    """
    if bits.ndim != 1 or not bits.size or not np.isfinite(bits).all():
        raise InputError("bits must be a non-empty finite vector, got shape {shape}.", shape=bits.shape)
    stderr = float(bits.std(ddof=1) / math.sqrt(bits.size)) if bits.size > 1 else math.inf
    stderr = stderr if stderr > 0 else 1 / bits.size
    return Measurement(value=float(bits.mean()), stderr=stderr)


@dataclass(frozen=True, kw_only=True)
class Emission:
    """Planted secrets that a model says word for word.

    Attributes:
        canaries: Asked for.
        emitted: Said in full.
        upper: Upper confidence bound of the rate, in [0, 1].
        confidence: Of that bound.
    """

    canaries: int
    emitted: int
    upper: float
    confidence: float

    @property
    def rate(self) -> float:
        return self.emitted / self.canaries


def emission(emitted: Bools, *, confidence: float = 0.95) -> Emission:
    """Return the rate of verbatim emission, with an upper bound.

    The bound is above 0 where nothing was emitted.

    Args:
        emitted: Shape (c,). True where a canary's secret was said in full.
        confidence: One-sided, in (0, 1).

    Raises:
        InputError: If there are no canaries, or the confidence is out of bounds.

    Source:
        Clopper and Pearson 1934, "The Use of Confidence or Fiducial Limits Illustrated in the Case
        of the Binomial".
    """
    validate.in_range(1e-9, 1 - 1e-9, confidence=confidence)
    if emitted.ndim != 1 or not emitted.size or emitted.dtype != np.bool_:
        raise InputError(
            "emitted must be a non-empty vector of bool, got {dtype} of shape {shape}.",
            dtype=emitted.dtype,
            shape=emitted.shape,
        )
    n, k = len(emitted), int(emitted.sum())
    upper = 1.0 if k == n else float(beta.ppf(confidence, k + 1, n - k))
    return Emission(canaries=n, emitted=k, upper=upper, confidence=confidence)
