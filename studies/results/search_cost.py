"""Cost of a search in privacy, as results keep it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from moo.core.measurement import number_in, number_out
from moo.privacy.caps import Cap
from moo.privacy.composed_epsilon import ComposedEpsilon


@dataclass(frozen=True, kw_only=True)
class SearchCost:
    """Cost of all trials together in privacy.

    Attributes:
        policy: Release policy, chosen before the study.
        composed_epsilon: Epsilon of all trials and noised answers, for a unit in K/2 shadows of each; RDP
            composition. None
            under `select_one`, where it would tell how many trials there were.
        delta: Delta of the composition.
        label: Meaning of that number in words; shown wherever the number is.
        guaranteed_epsilon: What the policy guarantees to those it protects, at the same delta; infinite where
            it guarantees
            nothing. `label` says to whom.
        data_epsilon: Epsilon of all studies on the same data, from the ledger; the same delta. None under `select_one`.
        anchor: Head of the data's ledger at the end, "seq:hash": kept here, it shows a tail that was cut later. Under
            `select_one` the hash alone.
        cap: Cap on the data at the end; None without one.
        capped: The same in words, as `label` has it at its end; empty in a result from before there were caps.
    """

    policy: str
    composed_epsilon: ComposedEpsilon | None
    delta: float
    label: str
    data_epsilon: ComposedEpsilon | None
    guaranteed_epsilon: float = math.inf
    anchor: str = ""
    cap: Cap | None = None
    capped: str = ""

    def to_json(self) -> dict[str, Any]:
        return {
            **vars(self),
            **{name: value and value.to_json() for name, value in self._composed().items()},
            "guaranteed_epsilon": number_out(self.guaranteed_epsilon),
            "cap": self.cap and self.cap.to_json(),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "SearchCost":
        delta = data["delta"]
        composed = {
            k: None if data[k] is None else ComposedEpsilon.from_json(data[k], delta=delta)
            for k in ("composed_epsilon", "data_epsilon")
        }
        cap = data.get("cap") and Cap.from_json(data["cap"])
        return cls(**{**data, **composed, "guaranteed_epsilon": number_in(data["guaranteed_epsilon"]), "cap": cap})

    def _composed(self) -> dict[str, ComposedEpsilon | None]:
        return {"composed_epsilon": self.composed_epsilon, "data_epsilon": self.data_epsilon}
