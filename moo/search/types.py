"""Data between a search and the black box that it evaluates."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from moo.core.measurement import Measurement
from moo.core.messages import pack, unpack


@dataclass(frozen=True, kw_only=True)
class Goal:
    """One objective.

    Attributes:
        name: Its key in every outcome.
        direction: As people read it.
        reference: A value that every point worth having beats: for the hypervolume, and reported for a failed trial.
    """

    name: str
    direction: Literal["minimize", "maximize"]
    reference: float

    def minimised(self, value: float) -> float:
        """Return the value as a quantity to be minimised."""
        return -value if self.direction == "maximize" else value


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """Candidate for evaluation.

    Attributes:
        number: 0-based trial number.
        generation: 0-based.
        params: By name, in the space's order.
        replicate: How many earlier trials had exactly these parameters; each wants randomness of
            its own.
        attempt: Name of the reservation that this evaluation runs under; empty where nobody
            reserves.
    """

    number: int
    generation: int
    params: Mapping[str, float | int]
    replicate: int = 0
    attempt: str = field(default="", compare=False)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Result of an evaluation.

    Attributes:
        values: Goal -> measurement, in the sign that people read; empty where the trial failed.
        constraints: Name -> violation, scaled to about [0, 1]; <= 0 is feasible.
        payload: Whatever else is to be kept, as JSON.
        cause: Why a trial failed; empty otherwise.
    """

    values: Mapping[str, Measurement]
    constraints: Mapping[str, float]
    payload: Mapping[str, Any] = field(default_factory=dict)
    cause: str = ""

    @property
    def feasible(self) -> bool:
        return not self.cause and all(v <= 0 for v in self.constraints.values())

    def to_json(self) -> dict[str, Any]:
        return {
            "values": {k: pack(m.to_json()) for k, m in self.values.items()},
            "constraints": dict(self.constraints),
            "payload": pack(dict(self.payload)),
            "cause": self.cause,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Outcome":
        return cls(
            values={k: Measurement.from_json(unpack(v)) for k, v in data["values"].items()},
            constraints=data["constraints"],
            payload=unpack(data["payload"]),
            cause=data["cause"],
        )


@dataclass(frozen=True, kw_only=True)
class SearchTrial:
    """One evaluated candidate."""

    candidate: Candidate
    outcome: Outcome


@dataclass(frozen=True, kw_only=True)
class SearchResult:
    """All trials of a study, in order."""

    name: str
    trials: tuple[SearchTrial, ...]


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Progress of a search, for callbacks.

    Attributes:
        done: Trials evaluated, in order of number, the newest in its place.
        newest: The one that has just finished.
        n_trials: How many there will be.
    """

    done: tuple[SearchTrial, ...]
    newest: SearchTrial
    n_trials: int
