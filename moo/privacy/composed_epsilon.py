"""Composed epsilon: one number for many events, never apart from whether it bounds anything."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from moo.core.measurement import number_in, number_out
from moo.core.messages import Message
from moo.privacy.composition import ORDERS, compose_epsilon, renyi_per_part
from moo.privacy.events import Event, PrivateAnswer
from moo.privacy.renyi_filter import epsilon_at


@dataclass(frozen=True, kw_only=True)
class ComposedEpsilon:
    """Epsilon of trainings and noised answers together.

    Attributes:
        private_part: Epsilon of the events with noise, at delta. It bounds nobody whom a training
            without DP read.
        delta: Delta of the composition.
        includes_non_private: True if a training without DP is among the events: no finite epsilon
            bounds all of them.
    """

    private_part: float
    delta: float
    includes_non_private: bool

    @property
    def value(self) -> float:
        """Epsilon of all events: `math.inf` if a training without DP is among them."""
        return math.inf if self.includes_non_private else self.private_part

    @property
    def text(self) -> Message:
        """Epsilon in words: the number, or that nothing bounds it."""
        epsilon = Message("{epsilon:.2f}" if self.private_part < 10 else "{epsilon:.1f}", epsilon=self.private_part)
        if not self.includes_non_private:
            return epsilon
        return Message(
            "unbounded (trainings without DP are among them; those with DP alone: {epsilon})", epsilon=epsilon
        )

    def __str__(self) -> str:
        return str(self.text)

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object. "value" is there for readers; `from_json` derives it."""
        return {
            "value": number_out(self.value),
            "private_part": number_out(self.private_part),
            "delta": self.delta,
            "includes_non_private": self.includes_non_private,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any] | float | str, *, delta: float) -> "ComposedEpsilon":
        """Read `to_json`'s object, or a bare number of an older result.

        A bare number left the flag out, so it bounds nothing.

        Args:
            data: The object or number.
            delta: Delta of a bare number.
        """
        if isinstance(data, Mapping):
            return cls(
                private_part=number_in(data["private_part"]),
                delta=data["delta"],
                includes_non_private=data["includes_non_private"],
            )
        return cls(private_part=number_in(data), delta=delta, includes_non_private=True)


def compose(
    events: Sequence[Event], *, delta: float, disjoint: bool = True, order: float | None = None
) -> ComposedEpsilon:
    """Compose adaptively chosen events to one number, by RDP.

    The only place where the events of a ledger become one number.

    Args:
        events: Events of one study, or of several.
        delta: Delta of the composition.
        disjoint: True if a unit is in one part alone, as within a study; another study parts the
            units differently.
        order: Renyi order of a filter that was fixed before; None takes the order that gives the
            least epsilon.
    """
    charged = [e for e in events if isinstance(e, PrivateAnswer) or e.steps]
    private = [e for e in charged if isinstance(e, PrivateAnswer) or e.private]
    if not disjoint:
        private = [dataclasses.replace(e, part="any") for e in private]
    return ComposedEpsilon(
        private_part=compose_epsilon(private, delta=delta) if order is None else _at(order, private, delta),
        delta=delta,
        includes_non_private=len(private) < len(charged),
    )


def _at(order: float, events: Sequence[Event], delta: float) -> float:
    divergence = max((float(curve[ORDERS.index(order)]) for curve in renyi_per_part(events).values()), default=0.0)
    return epsilon_at(order, divergence, delta) if events else 0.0
