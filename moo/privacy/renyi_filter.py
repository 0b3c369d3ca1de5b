"""Renyi filter: a budget fixed before the first run, which no adaptive sequence passes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from moo.core import validate
from moo.privacy.composition import ORDERS, renyi_per_part
from moo.privacy.events import Event


@dataclass(frozen=True, kw_only=True)
class RenyiFilter:
    """Order and budget of a study, chosen before it starts.

    A composed epsilon that is read off afterwards is an odometer: the order that suits best was
    chosen with the data in hand. Here the order is fixed, and a run that would pass the budget at
    that order is refused before it trains.

    Attributes:
        epsilon, delta: What the whole sequence satisfies.
        order: Of the Renyi divergence; one of `ORDERS`.

    Source:
        Feldman and Zrnic 2021, "Individual Privacy Accounting via a Renyi Filter",
        arXiv:2008.11193.
    """

    epsilon: float
    delta: float
    order: float

    def __post_init__(self) -> None:
        validate.finite(epsilon=validate.positive(epsilon=self.epsilon))
        validate.in_range(1e-300, 1 - 1e-12, delta=self.delta)
        if self.order not in ORDERS:
            rule = "{name} must be one of ORDERS, {lowest:g} to {highest:g}"
            raise validate.argument_error(rule, "order", self.order, lowest=ORDERS[0], highest=ORDERS[-1])

    @classmethod
    def tuned(cls, *, epsilon: float, delta: float, typical: Sequence[Event]) -> "RenyiFilter":
        """Return the filter of the order that admits the most trials like a typical one.

        The typical trial is public: the plan, not the data.
        """
        budgets = np.array([_budget(order, epsilon, delta) for order in ORDERS])
        spent = np.maximum.reduce(list(renyi_per_part(typical).values()))
        admitted = np.where(np.isfinite(spent) & (spent > 0), budgets / np.where(spent > 0, spent, 1.0), -math.inf)
        return cls(epsilon=epsilon, delta=delta, order=ORDERS[int(admitted.argmax())])

    @property
    def budget(self) -> float:
        """Renyi divergence at the order that the sequence may reach, in nats."""
        return _budget(self.order, self.epsilon, self.delta)

    def spent(self, events: Sequence[Event]) -> float:
        """Return the Renyi divergence at the order, for the units that pay the most; nats."""
        at = ORDERS.index(self.order)
        return max((float(curve[at]) for curve in renyi_per_part(events).values()), default=0.0)

    def admits(self, so_far: Sequence[Event], following: Sequence[Event]) -> bool:
        """Return True if one more trial stays within the budget. One without DP never does."""
        return self.spent([*so_far, *following]) <= self.budget

    def room(self, following: Sequence[Event], once: Sequence[Event] = ()) -> int:
        """Return the number of such trials that the budget admits after events charged once."""
        at = ORDERS.index(self.order)
        each, fixed = ({part: float(curve[at]) for part, curve in renyi_per_part(e).items()} for e in (following, once))
        return max(0, min(int((self.budget - fixed.get(part, 0.0)) / spent) for part, spent in each.items()))


def _budget(order: float, epsilon: float, delta: float) -> float:
    """Return the largest divergence at one order with an epsilon at delta within the target.

    Negative where there is none.

    The conversion is that of Canonne, Kamath and Steinke 2020 (Proposition 12), which dp-accounting
    uses as well.
    """
    return epsilon - math.log1p(-1 / order) + math.log(delta * order) / (order - 1)


def epsilon_at(order: float, divergence: float, delta: float) -> float:
    """Return epsilon at delta of a mechanism of this Renyi divergence at one order.

    By dp-accounting.
    """
    from dp_accounting import rdp

    return float(rdp.compute_epsilon([order], [divergence], delta)[0])
