"""Which trial of a study to take, and why; or what is in the way of all of them."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moo.pareto import knee, non_dominated
from moo.records import ACCURACY, PENALTY, RISK, TrialRecord
from moo.studies.weights import SAID

OBJECTIVES = (ACCURACY, RISK, PENALTY)


@dataclass(frozen=True, kw_only=True)
class Recommendation:
    """The point to take.

    Attributes:
        trial: The trial; None where nothing is feasible.
        reason: Why, or which limit is in the way.
    """

    trial: TrialRecord | None
    reason: str


def knee_of(front: Sequence[TrialRecord], weights: Mapping[str, float]) -> Recommendation:
    """The compromise on a feasible front, at least one trial; no weights weigh all objectives alike."""
    given = [weights[name] for name in OBJECTIVES] if weights else []
    choice = knee(minimised(front), [SAID[name] for name in OBJECTIVES], given, stderrs(front))
    return Recommendation(trial=front[choice.index], reason=choice.reason)


def knee_of_refined(refined: Sequence[TrialRecord], weights: Mapping[str, float]) -> Recommendation:
    """The knee of what is left of a front where its points were trained anew."""
    feasible = [t for t in refined if t.feasible]
    if not feasible:
        names = sorted({name for t in refined for name in t.blocking})
        return Recommendation(
            trial=None,
            reason=f"none of the {len(refined)} points of the front held its limits when trained anew: {', '.join(names)}",
        )
    kept = [t for t, stays in zip(feasible, non_dominated(minimised(feasible)), strict=True) if stays]
    return knee_of(kept, weights)


def selected(complete: Sequence[TrialRecord]) -> Recommendation:
    """Return the winner: the trial with the highest score of its own, whichever others there are (Theorem 2 asks for that)."""
    winner = max(complete, key=own_score)
    if winner.feasible:
        return Recommendation(
            trial=winner, reason="the most accurate within the limits, by noised answers; it alone may leave"
        )
    return Recommendation(
        trial=winner,
        reason=f"no trial is within the limits; this one is nearest, and breaks {', '.join(winner.blocking)}",
    )


def own_score(trial: TrialRecord) -> tuple[bool, float, str]:
    """Return what `select_one` ranks a complete trial by; it reads this trial's settings and noised answers alone.

    Within the limits comes first and then accuracy; outside, the sum of the violations. Ties go by the settings, so that the order of
    the trials decides nothing.
    """
    violation = sum(v for v in trial.constraints.values() if v > 0)
    value = trial.objectives[ACCURACY].value if trial.feasible else -violation
    settings = json.dumps([trial.params.to_json(), trial.to_json()["constraints"]], sort_keys=True)
    return trial.feasible, -math.inf if math.isnan(value) else value, settings


def none_feasible(complete: Sequence[TrialRecord]) -> Recommendation:
    """What is in the way of all trials: the limit that most of them break, or what a rule lacked in each."""
    if not complete:
        return Recommendation(trial=None, reason="no trial has been completed")
    counts = {name: sum(t.constraints[name] > 0 for t in complete) for name in complete[0].constraints}
    for rule in counts:  # what is lacking is in the way whatever else is mended
        lacking = _lacking(complete, rule)
        if lacking and counts[rule] == len(complete):
            return Recommendation(
                trial=None,
                reason=f"no trial is feasible: {rule} is not assessed, for want of {', '.join(lacking)}; bring the columns, or leave "
                "the pack out",
            )
    worst, nearest = max(counts, key=lambda name: counts[name]), _nearest(complete)
    return Recommendation(
        trial=None,
        reason=f"no trial is feasible: {worst} is broken by {counts[worst]} of {len(complete)}; the nearest is "
        f"trial {nearest.number}, which breaks {', '.join(nearest.blocking)}",
    )


def _nearest(complete: Sequence[TrialRecord]) -> TrialRecord:
    return min(complete, key=lambda t: sum(v for v in t.constraints.values() if v > 0))


def _lacking(complete: Sequence[TrialRecord], rule: str) -> list[str]:
    """Facts that a rule lacks in every trial."""
    rows = [row for t in complete for row in t.contributions if row["rule"] == rule]
    if not rows or any(row["verdict"] != "not assessed" for row in rows):
        return []
    return [name.removeprefix("data.").replace("_", " ") for name, value in rows[0]["facts"].items() if value is None]


def minimised(trials: Sequence[TrialRecord]) -> NDArray[np.float64]:
    """Error rate, risk and penalty of complete trials, shape (n, 3), all to be minimised."""
    rows = [(1 - t.objectives[ACCURACY].value, t.objectives[RISK].value, t.objectives[PENALTY].value) for t in trials]
    return np.array(rows, dtype=np.float64).reshape(-1, 3)


def stderrs(trials: Sequence[TrialRecord]) -> NDArray[np.float64]:
    """Standard errors of the same, shape (n, 3)."""
    rows = [[t.objectives[name].stderr for name in OBJECTIVES] for t in trials]
    return np.array(rows, dtype=np.float64).reshape(-1, 3)
