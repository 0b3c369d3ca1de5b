"""Epsilon from events: PLD for what one run spent, RDP for what a search composes to.

PLD (privacy loss distributions) is the tight one and is what is shown and calibrated by; RDP
composes adaptively chosen runs and is never below PLD for the same event.
"""

import dataclasses
import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from moo.core import validate
from moo.privacy.events import Event, PrivateAnswer, TrainingRun

if TYPE_CHECKING:
    from dp_accounting.pld.pld_pmf import PLDPmf
    from dp_accounting.pld.privacy_loss_distribution import PrivacyLossDistribution

RenyiCurve = NDArray[np.float64]

ORDERS = tuple([1 + x / 10 for x in range(1, 100)] + [float(x) for x in range(11, 64)] + [128.0, 256.0, 512.0, 1024.0])
# Of the discretised privacy loss; rounding is pessimistic, so a coarser one only overstates
# epsilon.
INTERVAL = 1e-3


@lru_cache(maxsize=8)
def privacy_loss(sample_rate: float, steps: int, noise_multiplier: float) -> "PrivacyLossDistribution":
    """Return the privacy loss distribution of a training, discretised at `INTERVAL`."""
    from dp_accounting.pld import privacy_loss_distribution

    step = privacy_loss_distribution.from_gaussian_mechanism(
        noise_multiplier, sampling_prob=sample_rate, value_discretization_interval=INTERVAL
    )
    return step.self_compose(steps)


@lru_cache(maxsize=4096)
def pld_epsilon(sample_rate: float, steps: int, noise_multiplier: float, delta: float) -> float:
    """Return epsilon at delta by PLD; `math.inf` without noise."""
    if noise_multiplier <= 0:
        return math.inf
    return float(privacy_loss(sample_rate, steps, noise_multiplier).get_epsilon_for_delta(delta))


def epsilon_pld(run: TrainingRun) -> float:
    """Return epsilon of one run at its delta, by PLD; `math.inf` without DP."""
    return pld_epsilon(run.sample_rate, run.steps, run.noise_multiplier, run.delta) if run.steps else 0.0


def epsilon_rdp(run: TrainingRun) -> float:
    """Return epsilon of one run at its delta, by RDP: an upper bound on `epsilon_pld`."""
    return compose_epsilon([run], delta=run.delta, per_unit=False)


def rdp_of(run: TrainingRun, *, runs: int = 1) -> RenyiCurve:
    """Return the Renyi divergence of a run at each of `ORDERS`, shape (len(ORDERS),), in nats."""
    if not run.private:
        return np.full(len(ORDERS), np.inf)
    return _rdp(run.sample_rate, run.noise_multiplier) * run.steps * runs


@lru_cache(maxsize=4096)
def _rdp(sample_rate: float, noise_multiplier: float) -> RenyiCurve:
    import dp_accounting

    accountant = dp_accounting.rdp.RdpAccountant(ORDERS)
    step = dp_accounting.PoissonSampledDpEvent(sample_rate, dp_accounting.GaussianDpEvent(noise_multiplier))
    with _quiet():
        accountant.compose(step)
    # Renyi divergence grows with the order, so any higher order bounds those with a series that did not
    # converge.
    curve = np.asarray(accountant.rdp, dtype=np.float64)
    bounded: RenyiCurve = np.minimum.accumulate(curve[::-1])[::-1]
    return bounded


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence dp-accounting, which warns of each small order that does not converge.

    Such an order is left out (infinite).
    """
    log = logging.getLogger("absl")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)


def renyi_per_part(events: Sequence[Event]) -> dict[str, RenyiCurve]:
    """Return part -> Renyi divergence at each of `ORDERS`, in nats, that its units pay.

    A unit is charged for each of the `shadows_per_unit` runs of a trial that it takes part in.
    Parts are disjoint: a unit pays for what its own part was read for, so the dearest part bounds
    everybody (parallel composition, add or remove one).
    """
    spent: dict[str, RenyiCurve] = {}
    for event in events:
        if isinstance(event, TrainingRun):
            curve = rdp_of(event, runs=event.shadows_per_unit)
        else:
            curve = np.asarray(ORDERS) / (2 * event.noise_multiplier**2)
        spent[event.part] = spent.get(event.part, 0.0) + curve
    return spent


def worst_per_part(kinds: Sequence[Sequence[Event]]) -> dict[str, RenyiCurve]:
    """Return the most that the units of each part pay for one trial of any of some kinds.

    At each order it is the maximum over the kinds.

    As one trial may be any of them, so may each of many: n trials, in whatever mixture, pay at most
    n times this. The choice among kinds may be drawn, or depend on what was released before.
    """
    spent = [renyi_per_part(events) for events in kinds]
    parts = sorted({part for curves in spent for part in curves})
    nothing = np.zeros(len(ORDERS))
    return {part: np.maximum.reduce([curves.get(part, nothing) for curves in spent]) for part in parts}


def compose_worst(kinds: Sequence[Sequence[Event]], *, trials: int, delta: float, once: Sequence[Event] = ()) -> float:
    """Compose trials of any of the kinds, and events charged once, by RDP; adaptively chosen.

    Args:
        kinds: Events of one trial, for each kind that a trial may be.
        trials: Number of trials, >= 0.
        delta: Delta of the composition, in (0, 1).
        once: Events charged once, whatever the number of trials.

    Returns:
        Epsilon; `math.inf` with any training without DP.
    """
    each, fixed, nothing = worst_per_part(kinds), renyi_per_part(once), np.zeros(len(ORDERS))
    curves = [trials * each.get(part, nothing) + fixed.get(part, nothing) for part in sorted({*each, *fixed})]
    return max((_epsilon(curve, delta) for curve in curves), default=0.0)


def compose_epsilon(events: Sequence[Event], *, delta: float, per_unit: bool = True) -> float:
    """Return epsilon of a whole search by RDP: events may depend on the results of earlier ones.

    Args:
        events: One training a trial, and the noised answers.
        delta: Of the composition.
        per_unit: Charge a unit for each of the `shadows_per_unit` runs of a trial that it takes
            part in; False composes single runs.

    Returns:
        An odometer's reading: a guarantee only where a budget was fixed before. `math.inf` with any
        run without DP.
    """
    if not per_unit:
        events = [dataclasses.replace(e, shadows_per_unit=1) if isinstance(e, TrainingRun) else e for e in events]
    return max((_epsilon(curve, delta) for curve in renyi_per_part(events).values()), default=0.0)


def _epsilon(curve: RenyiCurve, delta: float) -> float:
    if not np.isfinite(curve).any():
        return math.inf
    from dp_accounting import rdp

    return float(rdp.compute_epsilon(ORDERS, curve.tolist(), delta)[0])


def epsilon_of_all(events: Sequence[Event], *, delta: float) -> float:
    """Return epsilon of runs and answers on the same units, by PLD.

    Tighter than RDP; sound where the events were fixed without these units' data.

    Args:
        events: Runs and answers, each charged to every unit.
        delta: Delta of the guarantee, in (0, 1).

    Returns:
        Epsilon; `math.inf` with any run without DP.

    Source:
        Composition of privacy loss distributions, Sommer, Meiser and Mohammadi 2019;
        dp-accounting's accountant.
    """
    if not all(event.private for event in events if isinstance(event, TrainingRun)):
        return math.inf
    from dp_accounting import pld

    accountant = pld.PLDAccountant(value_discretization_interval=INTERVAL)
    for event in events:
        runs = {"runs": event.shadows_per_unit} if isinstance(event, TrainingRun) else {}
        accountant.compose(event.to_dp_event(**runs))
    return float(accountant.get_epsilon(delta)) if events else 0.0


def epsilon_of_any(
    kinds: Sequence[TrainingRun], *, times: int, delta: float, once: Sequence[PrivateAnswer] = ()
) -> float:
    """Return the epsilon that no multiset of `times` runs of the kinds passes, by PLD.

    The runs are on the same units; see `epsilon_of_all`. Equal to `epsilon_of_all` of `times` runs
    where there is one kind. Of several the hockey-stick curves' upper envelope is composed: it is
    convex, so that it is a mechanism's own curve, and this one dominates each kind.

    Args:
        kinds: Runs that each of the `times` may be.
        times: Number of runs, >= 1.
        delta: Delta of the guarantee, in (0, 1).
        once: Answers on the same units, charged once.

    Returns:
        Epsilon; `math.inf` with any kind without DP.

    Source:
        Zhu, Dong and Wang 2022, "Optimal Accounting of Differential Privacy via Characteristic
        Function", Proposition 9 and Theorem 10, arXiv:2106.08567; discretised by connected dots, as
        dp-accounting does.
    """
    if not all(run.private for run in kinds):
        return math.inf
    from dp_accounting.pld import privacy_loss_distribution

    losses = [privacy_loss(run.sample_rate, run.steps * run.shadows_per_unit, run.noise_multiplier) for run in kinds]
    removing, adding = ([getattr(loss, side) for loss in losses] for side in ("_pmf_remove", "_pmf_add"))
    envelope = privacy_loss_distribution.PrivacyLossDistribution(_envelope(removing), _envelope(adding))
    loss = envelope.self_compose(times)
    for answer in once:
        loss = loss.compose(
            privacy_loss_distribution.from_gaussian_mechanism(
                answer.noise_multiplier, value_discretization_interval=INTERVAL
            )
        )
    return float(loss.get_epsilon_for_delta(delta))


def _envelope(pmfs: Sequence["PLDPmf"]) -> "PLDPmf":
    """Return a privacy loss that dominates all of theirs.

    Its hockey-stick curve is their maximum at every multiple of the interval, and above it between.
    """
    if len(pmfs) == 1:
        return pmfs[0]
    from dp_accounting.pld import pld_pmf

    dense = [pmf.to_dense_pmf() for pmf in pmfs]
    low, high = min(d._lower_loss for d in dense), max(d._lower_loss + d.size for d in dense)
    at = np.arange(low, high)
    curves = [np.asarray(d.get_delta_for_epsilon((at * INTERVAL).tolist())) for d in dense]
    deltas = np.maximum.reduce(curves)
    return pld_pmf.create_pmf_pessimistic_connect_dots(INTERVAL, at, np.minimum.accumulate(np.clip(deltas, 0.0, 1.0)))


def epsilon_of_selected(*kinds: Sequence[Event], mean: float, delta: float, once: Sequence[Event] = ()) -> float:
    """Return epsilon of the best of a random number of trials, where that one alone is seen.

    The trials are drawn alike.

    Args:
        kinds: Events of one trial, answers included, at its worst over the space: one sequence, or
            several where no single one is worst at every Renyi order. A draw from a public law
            diverges at each order by no more than its worst outcome.
        mean: Of the geometric law that the number of trials is drawn from, >= 1; the number itself
            stays secret.
        delta: Of the guarantee.
        once: Events on the same units charged once, whatever the number of trials.

    Source:
        Papernot and Steinke 2022, "Hyperparameter Tuning with Renyi Differential Privacy", Theorem
        2 with eta = 1, arXiv:2110.03620.
    """
    trial, fixed = worst_per_part(kinds), renyi_per_part(once)
    nothing = np.zeros(len(ORDERS))
    curves = [
        (_selected(trial[part], mean) if part in trial else nothing) + fixed.get(part, nothing)
        for part in sorted({*trial, *fixed})
    ]
    return max(_epsilon(curve, delta) for curve in curves)


def _selected(curve: RenyiCurve, mean: float) -> RenyiCurve:
    """Return the curve of the best trial from that of one trial, by Theorem 2."""
    orders = np.asarray(ORDERS)
    rest: float = (2 * ((1 - 1 / orders) * curve + math.log(mean) / orders)).min()
    return curve + rest + math.log(mean) / (orders - 1)


def group_privacy(epsilon: float, delta: float, records: int) -> tuple[float, float]:
    """Return (epsilon, delta) of a person with several records.

    A stated fallback where the unit of privacy is the record.

    Source:
        Dwork and Roth 2014, "The Algorithmic Foundations of Differential Privacy", Theorem 2.2 and
        Lemma 2.2.
    """
    validate.in_range(1, 10**6, records=records)
    grown = records * math.exp(min(700.0, (records - 1) * epsilon)) * delta
    return records * epsilon, min(1.0, grown)
