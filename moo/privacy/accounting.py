"""Epsilon from events: PLD for what one run spent, RDP for what a search composes to.

PLD (privacy loss distributions) is the tight one and is what is shown and calibrated by; RDP composes adaptively chosen
runs and is never below PLD for the same event.
"""

import logging
import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import dp_accounting
import numpy as np
from dp_accounting import pld, rdp
from scipy.optimize import brentq

from moo import validate
from moo.errors import InputError
from moo.privacy.events import TrainingRun

ORDERS = tuple([1 + x / 10 for x in range(1, 100)] + [float(x) for x in range(11, 64)] + [128.0, 256.0, 512.0, 1024.0])
_INTERVAL = 1e-3  # of the discretised privacy loss; rounding is pessimistic, so a coarser one only overstates epsilon
_LARGEST_NOISE = 1e4


def check_delta(delta: float, n_units: int) -> None:
    """Refuse a delta that would allow one unit to be given away whole.

    Raises:
        InputError: Unless 0 < delta < 1 / n_units.
    """
    if not 0 < delta < 1 / n_units:
        raise InputError(
            f"0 < target_delta < 1/n_units = {1 / n_units:.2g} must hold, but got target_delta={delta!r}; "
            f"choose one well below, such as {10 ** math.floor(math.log10(0.1 / n_units)):.0e}."
        )


@lru_cache(maxsize=4096)
def _pld_epsilon(sample_rate: float, steps: int, noise_multiplier: float, delta: float) -> float:
    if noise_multiplier <= 0:
        return math.inf
    accountant = pld.PLDAccountant(value_discretization_interval=_INTERVAL)
    step = dp_accounting.PoissonSampledDpEvent(sample_rate, dp_accounting.GaussianDpEvent(noise_multiplier))
    accountant.compose(step, steps)
    return float(accountant.get_epsilon(delta))


def epsilon_pld(run: TrainingRun) -> float:
    """Epsilon of one run at its delta, by PLD; `math.inf` without DP."""
    return _pld_epsilon(run.sample_rate, run.steps, run.noise_multiplier, run.delta) if run.steps else 0.0


def epsilon_rdp(run: TrainingRun) -> float:
    """Epsilon of one run at its delta, by RDP: an upper bound on `epsilon_pld`."""
    return compose_epsilon([run], delta=run.delta, per_unit=False)


def rdp_of(run: TrainingRun, *, runs: int = 1) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Renyi divergence at each of `ORDERS`, shape (len(ORDERS),)."""
    if not run.private:
        return np.full(len(ORDERS), np.inf)
    return _rdp(run.sample_rate, run.noise_multiplier) * run.steps * runs


@lru_cache(maxsize=4096)
def _rdp(sample_rate: float, noise_multiplier: float) -> np.ndarray[Any, np.dtype[np.float64]]:
    accountant = rdp.RdpAccountant(ORDERS)
    step = dp_accounting.PoissonSampledDpEvent(sample_rate, dp_accounting.GaussianDpEvent(noise_multiplier))
    quiet = logging.getLogger("absl")  # it warns of each small order that does not converge and is left out (infinite)
    level = quiet.level
    quiet.setLevel(logging.ERROR)
    try:
        accountant.compose(step)
    finally:
        quiet.setLevel(level)
    return np.asarray(accountant.rdp, dtype=np.float64)


def compose_epsilon(runs: Sequence[TrainingRun], *, delta: float, per_unit: bool = True) -> float:
    """Epsilon of a whole search by RDP composition: runs may depend on the results of earlier ones.

    Args:
        runs: One entry a trial.
        delta: Of the composition.
        per_unit: Charge a unit for each of the `shadows_per_unit` runs of a trial that it takes part in.

    Returns:
        An odometer's reading: a guarantee only where a budget was fixed before. `math.inf` with any run without DP.
    """
    if not runs:
        return 0.0
    total = np.sum([rdp_of(run, runs=run.shadows_per_unit if per_unit else 1) for run in runs], axis=0)
    if not np.isfinite(total).any():
        return math.inf
    return float(rdp.compute_epsilon(ORDERS, total, delta)[0])


def calibrate_noise(*, target_epsilon: float, delta: float, sample_rate: float, steps: int) -> float:
    """The least noise multiplier (to 1 part in 1,000) whose PLD epsilon does not exceed the target.

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
        epsilon = _pld_epsilon(sample_rate, steps, math.exp(log_noise), delta)
        return math.log(max(epsilon, 1e-12) / target_epsilon)

    low, high = _bracket(excess)
    noise = math.exp(float(brentq(excess, low, high, xtol=5e-4)))
    while _pld_epsilon(sample_rate, steps, noise, delta) > target_epsilon:
        noise *= 1.0005
    return noise


def _bracket(excess: Any) -> tuple[float, float]:
    low, high = math.log(0.3), math.log(2.0)
    while excess(low) < 0:
        low -= 0.7
    while excess(high) > 0:
        if high > math.log(_LARGEST_NOISE):
            raise InputError(
                "some noise must reach the target epsilon, but none up to 10,000 does; raise target_epsilon."
            )
        low, high = high, high + 1.0
    return low, high


def advantage_ceiling(run: TrainingRun) -> float:
    """The largest membership advantage that the run's own PLD allows any attack: its total variation, delta at epsilon 0."""
    if not run.private:
        return 1.0
    accountant = pld.PLDAccountant(value_discretization_interval=_INTERVAL)
    accountant.compose(run.to_dp_event())
    return float(min(1.0, accountant.get_delta(0.0)))
