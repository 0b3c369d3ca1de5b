"""Result of a study: the front with its error bars, a recommendation, and the cost in privacy."""

import csv
import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from moo.core.atomic_files import write_whole
from moo.core.errors import InputError, StorageError
from moo.core.messages import Message, joined, messages_in, pack, restore, unpack
from moo.core.trial_record import ACCURACY, TrialRecord
from moo.pareto import hypervolume, non_dominated, probability_non_dominated, running_hypervolume
from moo.studies.results.notices import notices_of
from moo.studies.results.recommendation import (
    Recommendation,
    minimised,
    none_held,
    p_feasible,
    recommend,
    stderrs,
)
from moo.studies.results.search_cost import SearchCost
from moo.studies.results.table import row_of
from moo.studies.results.weights import Weights, weights_of
from moo.studies.results.winner import selected
from moo.studies.spec.study import StudySpec

if TYPE_CHECKING:
    import pandas as pd

# error rate, advantage, penalty: the reference point of the hypervolume
WORST = (0.5, 0.5, 1.0)
_DRAWS = 400


@dataclass(frozen=True, kw_only=True)
class StudyResult:
    """A finished (or interrupted) study.

    Attributes:
        name: Name of the study.
        spec: Specification, as JSON.
        trials: Trials in order of number.
        reference: Status quo: no DP, nothing masked. Never seen by the sampler; None where the policy forbids it.
        limits: Constraint -> limit, as people gave them.
        cost: Cost of the search in privacy.
        about: Facts of data and machine, for reports.
        refined: Points of the front trained again with more shadows; empty before `confirm`.
        confirmed: Point recommended from those, on a fresh split: the number that chose nothing.
        weights: Weight of each objective in the recommended knee; empty for the most accurate point whose limits hold.
    """

    name: str
    spec: Mapping[str, Any]
    trials: tuple[TrialRecord, ...]
    reference: TrialRecord | None
    limits: Mapping[str, float]
    cost: SearchCost
    about: Mapping[str, Any] = field(default_factory=dict)
    refined: tuple[TrialRecord, ...] = ()
    confirmed: TrialRecord | None = None
    weights: Weights = field(default_factory=dict)

    def specification(self) -> StudySpec:
        """Return the specification with the runtime settings it ran with, for the same precision.

        Raises:
            InputError: If this machine lacks what they ask for.
        """
        return StudySpec.from_mapping({**self.spec, "machine": self.about.get("machine", {}).get("settings", {})})

    @property
    def alone(self) -> bool:
        """True under `select_one`: the winner is the one trial, and its number says nothing."""
        return self.cost.policy == "select_one"

    @property
    def complete(self) -> tuple[TrialRecord, ...]:
        return tuple(t for t in self.trials if t.state == "complete")

    @property
    def notices(self) -> dict[str, str]:
        """Notice -> its trials in words; notices that differ in their numbers alone are one."""
        return notices_of([*([self.reference] if self.reference else []), *self.trials])

    @property
    def null_aucs(self) -> list[float]:
        """AUC on records that no shadow saw, of each trial that has it and could assess it."""
        records = [*([self.reference] if self.reference else []), *self.complete]
        values = [r.extras["null_auc"].value for r in records if "null_auc" in r.extras]
        return [value for value in values if not math.isnan(value)]

    @cached_property
    def on_front(self) -> frozenset[int]:
        """Numbers of the feasible trials that no feasible trial dominates."""
        feasible = [t for t in self.complete if t.feasible]
        return frozenset(t.number for t, kept in zip(feasible, non_dominated(minimised(feasible)), strict=True) if kept)

    @cached_property
    def front(self) -> "pd.DataFrame":
        """Feasible non-dominated trials: parameters, objectives, errors, constraints; best accuracy first."""
        rows = self.table[self.table["on_front"]]
        return rows.sort_values(ACCURACY, ascending=False).reset_index(drop=True)

    @cached_property
    def table(self) -> "pd.DataFrame":
        """Every trial, one row each, the reference first."""
        import pandas as pd

        trials = [*([self.reference] if self.reference else []), *self.trials]
        chances = self._chances()
        return pd.DataFrame([row_of(t, t.number in self.on_front, *chances.get(t.number, (0.0, 0.0))) for t in trials])

    @cached_property
    def hypervolumes(self) -> NDArray[np.float64]:
        """Hypervolume of feasible trials after each complete one, as a share of the box up to `WORST`."""
        feasible = np.array([t.feasible for t in self.complete], dtype=bool)
        # a measurement that was not assessed is never feasible
        values = np.nan_to_num(minimised(self.complete), nan=max(WORST))
        out: NDArray[np.float64] = running_hypervolume(values, feasible, WORST) / math.prod(WORST)
        return out

    def recommend(self) -> Recommendation:
        """Return the point to take with its reason; or the limit in the way of all trials.

        It is the most accurate trial whose limits hold with probability .9 or more, by the newest numbers there
        are: with
        weights it is their knee among such trials, under `select_one` the policy's winner.
        """
        return self._choices[0]

    def alternatives(self) -> tuple[Recommendation, ...]:
        """Return the alternatives, each with its reason and its trade against the recommended point."""
        return self._choices[1:]

    @cached_property
    def _choices(self) -> tuple[Recommendation, ...]:
        if self.alone and self.complete:
            return (selected(self.complete),)
        searched = recommend(self.complete, self.limits, self.weights, reference=self.reference)
        if not self.refined:
            return searched
        if not any(t.feasible for t in self.refined):
            return (none_held(self.refined),)
        chosen = searched[0].trial
        return recommend(self.refined, self.limits, self.weights, reference=self.reference, incumbent=chosen)

    def weighed(self, weights: str | Weights | None) -> "StudyResult":
        """Return the study with the weighted knee as its recommendation.

        A confirmation of another point is dropped.

        Args:
            weights: "accuracy=2,risk=1,penalty=1" or {"accuracy": 2}; what is not named weighs 1. None asks for
                the default.

        Raises:
            InputError: If the weights are unfit, or the policy makes the choice by itself.
        """
        parsed = weights_of(weights)
        if parsed and self.alone:
            raise InputError("no weights must be given under select_one: the policy's guarantee is of its own choice.")
        return _with_own_confirmation(dataclasses.replace(self, weights=parsed))

    def _chances(self) -> dict[int, tuple[float, float]]:
        """Return number -> probability of being non-dominated, and of being feasible."""
        if not self.complete:
            return {}
        means, errors = minimised(self.complete), stderrs(self.complete)
        dominated = probability_non_dominated(means, errors, draws=_DRAWS, rng=np.random.default_rng(0))
        return {t.number: (float(p), p_feasible(t, self.limits)) for t, p in zip(self.complete, dominated, strict=True)}

    def rows(self) -> list[dict[str, Any]]:
        """Return every trial as JSON can hold it, the reference first.

        "recommended" holds the reason of the point to take, "alternative" that of each other one, with its
        trade; both are empty elsewhere.
        """
        chosen, *others = (_said(choice) for choice in self._choices)
        alternatives = {number: text for number, text in others if number is not None}
        return [
            t.to_json()
            | {
                "on_front": t.number in self.on_front,
                "p_feasible": p_feasible(t, self.limits) if t.state == "complete" else 0.0,
                "recommended": chosen[1] if t.number == chosen[0] else "",
                "alternative": alternatives.get(t.number, ""),
            }
            for t in (*([self.reference] if self.reference else []), *self.trials)
        ]

    def save(self, folder: str | Path) -> Path:
        """Write front.csv, front.json (every trial) and result.json (what else `load_result` needs).

        front.json holds plain English for people; result.json holds the messages behind it, so that pages can
        be rendered in
        any language.

        Raises:
            StorageError: If the folder cannot be written.
        """
        target, rows = Path(folder), self.rows()
        rest = {
            "name": self.name,
            "spec": dict(self.spec),
            "limits": dict(self.limits),
            "cost": self.cost.to_json(),
            "about": dict(self.about),
            "weights": dict(self.weights),
            "refined": [t.to_json() for t in self.refined],
            "confirmed": None if self.confirmed is None else self.confirmed.to_json(),
            "messages": list(messages_in(rows).values()),
        }
        try:
            target.mkdir(parents=True, exist_ok=True)
            write_whole(target / "front.json", json.dumps(rows, ensure_ascii=False, indent=1))
            write_whole(target / "front.csv", self.table.to_csv(index=False, quoting=csv.QUOTE_MINIMAL))
            write_whole(target / "result.json", json.dumps(pack(rest), ensure_ascii=False, indent=1))
        except OSError as error:
            raise StorageError(
                "the results must be writable, but {target} is not: {strerror}.", target=target, strerror=error.strerror
            ) from error
        return target


def _with_own_confirmation(result: StudyResult) -> StudyResult:
    """Return the result without a confirmation of another point than the recommended one."""
    chosen, confirmed = result.recommend().trial, result.confirmed
    if confirmed is None or (chosen is not None and chosen.number == confirmed.number):
        return result
    return dataclasses.replace(result, confirmed=None)


def _said(choice: Recommendation) -> tuple[int | None, str]:
    """Return the number of a choice's trial, and all that is said of it."""
    number = None if choice.trial is None else choice.trial.number
    text = joined("; ", [choice.reason, *([choice.trade] if choice.trade else [])])
    return number, Message("{name}: {text}", name=choice.name, text=text) if choice.name else text


def load_result(folder: str | Path) -> StudyResult:
    """Read what `StudyResult.save` wrote.

    Raises:
        InputError: If the folder holds no result.
    """
    source = Path(folder)
    try:
        rows, rest = (json.loads((source / name).read_text(encoding="utf-8")) for name in ("front.json", "result.json"))
    except FileNotFoundError as error:
        raise InputError(
            "the folder must hold front.json and result.json, but {source} does not; run a study first.", source=source
        ) from error
    except (OSError, ValueError) as error:
        raise _damaged(source, error) from error
    try:
        return _of_json(rows, rest)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _damaged(source, error) from error


def _damaged(source: Path, error: Exception) -> InputError:
    return InputError(
        "front.json and result.json must be as a study wrote them, but those in {source} are not "
        "({type}: {error}); the same moo run writes them anew and trains nothing.",
        source=source,
        type=type(error).__name__,
        error=error,
    )


def _of_json(rows: Any, rest: Any) -> StudyResult:
    rest = unpack(rest)
    known = {str(message): message for message in rest.get("messages", ())}
    trials = [TrialRecord.from_json(restore(row, known)) for row in rows]
    result = StudyResult(
        name=rest["name"],
        spec=rest["spec"],
        trials=tuple(t for t in trials if t.number >= 0),
        reference=next((t for t in trials if t.number < 0), None),
        limits=rest["limits"],
        cost=SearchCost.from_json(rest["cost"]),
        about=rest["about"],
        weights=rest.get("weights", {}),
        refined=tuple(TrialRecord.from_json(row) for row in rest.get("refined", [])),
        confirmed=None if rest.get("confirmed") is None else TrialRecord.from_json(rest["confirmed"]),
    )
    return _with_own_confirmation(result)


def feasible_hypervolume(trials: Sequence[TrialRecord]) -> float:
    """Return the share of the box up to `WORST` that the feasible trials dominate."""
    return hypervolume(minimised([t for t in trials if t.feasible]), WORST) / math.prod(WORST)
