"""Cap of a data set: an epsilon that all studies on it together never pass."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from moo.core import validate
from moo.core.errors import InputError, PolicyError
from moo.core.measurement import number_in, number_out
from moo.core.messages import Message
from moo.privacy.composed_epsilon import ComposedEpsilon, compose
from moo.privacy.composition import ORDERS
from moo.privacy.events import Event

DELTA = 1e-5
NO_CAP = "no cap on these data: further studies may add to it"


@dataclass(frozen=True, kw_only=True)
class Cap:
    """Most that the trainings and noised answers of all studies on a data set may compose to.

    Attributes:
        epsilon: Epsilon, > 0; infinite where an earlier cap was lifted.
        delta: Delta, in (0, 1).
    """

    epsilon: float
    delta: float = DELTA

    def __post_init__(self) -> None:
        validate.positive(epsilon=self.epsilon, way_out="write inf to lift a cap")
        validate.in_range(1e-300, 1 - 1e-12, delta=self.delta)

    def within(self, other: "Cap | None") -> bool:
        """Return True if whatever this cap admits, the other admits too."""
        return other is None or (self.epsilon <= other.epsilon and self.delta <= other.delta)

    def spent(self, events: Sequence[Event]) -> ComposedEpsilon:
        """Compose events as the cap counts them.

        A unit pays for every part, and delta is shared among the Renyi orders.

        The order that suits best is known only afterwards, so each of `ORDERS` gets its share of
        delta (a union bound): what is admitted is then a filter that was fixed before, not an
        odometer.
        """
        return compose(events, delta=self.delta / len(ORDERS), disjoint=False)

    def check(self, so_far: Sequence[Event], following: Sequence[Event]) -> None:
        """Refuse events that would pass the cap.

        Raises:
            PolicyError: With what all of them compose to.
        """
        if math.isinf(self.epsilon):
            return
        both = self.spent([*so_far, *following])
        if both.value <= self.epsilon:
            return
        total = (
            Message("includes a training without DP")
            if both.includes_non_private
            else Message("composes to {epsilon:.2f}", epsilon=both.value)
        )
        raise PolicyError(
            "the cap on these data, epsilon {epsilon:g} at delta {delta:g}, must admit this training, "
            "but with it all that is charged {total}; train with less epsilon, or raise the cap "
            "with a reason (moo ledger cap).",
            epsilon=self.epsilon,
            delta=self.delta,
            total=total,
        )

    def to_json(self) -> dict[str, Any]:
        return {"epsilon": number_out(self.epsilon), "delta": self.delta}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Cap":
        return cls(epsilon=number_in(data["epsilon"]), delta=data["delta"])


def describe_cap(cap: Cap | None, events: Sequence[Event]) -> Message:
    """Say in words whether a cap holds the studies on a data set.

    Args:
        cap: The cap in force; None without one.
        events: All that is charged to the data set so far.
    """
    if cap is None or math.isinf(cap.epsilon):
        return Message(NO_CAP)
    if cap.spent(events).value > cap.epsilon:
        return Message(
            "the cap on these data, epsilon {epsilon:g} at delta {delta:g}, came after more was spent",
            epsilon=cap.epsilon,
            delta=cap.delta,
        )
    return Message(
        "all studies on these data together are capped at epsilon {epsilon:g}, delta {delta:g}",
        epsilon=cap.epsilon,
        delta=cap.delta,
    )


def next_cap(cap: Cap, before: Cap | None, reason: str) -> dict[str, Any]:
    """Return the entry of a cap that follows another.

    Raises:
        InputError: If it is not lower, and no reason is given.
    """
    if not cap.within(before) and not reason.strip():
        assert before is not None
        raise InputError(
            "A cap must not rise without a reason, got epsilon {epsilon:g} at delta {delta:g} after "
            '{old_epsilon:g} at {old_delta:g}; give one, which stays in the ledger (--reason "...").',
            old_epsilon=before.epsilon,
            old_delta=before.delta,
            epsilon=cap.epsilon,
            delta=cap.delta,
        )
    return {**cap.to_json(), **({"reason": reason.strip()} if reason.strip() else {})}
