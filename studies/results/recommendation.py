"""Recommendation of a trial with its reason and alternatives; or the limit in the way of all."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moo.core.messages import Message, joined
from moo.core.trial_record import ABOVE_MAJORITY, ACCURACY, MAJORITY, PENALTY, RISK, TrialRecord
from moo.pareto import knee, non_dominated, probability_feasible
from moo.studies.results.weights import SAID

OBJECTIVES = (ACCURACY, RISK, PENALTY)
# least probability with which a recommended point holds its limits
SURE = 0.9
STATUS_QUO = "the status quo"

Limits = Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Recommendation:
    """A point to take: the recommended one, or an alternative.

    Attributes:
        trial: The trial; None where no point can be recommended.
        reason: Reason for it, or the limit that is in the way.
        name: Role of the point, e.g. "most accurate" or "knee".
        p_feasible: Probability that all its limits hold; NaN without a trial.
        trade: What a person gives up and gains by it, against the status quo or against the recommended point.
    """

    trial: TrialRecord | None
    reason: str
    name: str = ""
    p_feasible: float = math.nan
    trade: str = ""


def recommend(
    trials: Sequence[TrialRecord],
    limits: Limits,
    weights: Mapping[str, float],
    *,
    reference: TrialRecord | None = None,
    incumbent: TrialRecord | None = None,
) -> tuple[Recommendation, ...]:
    """Return the recommended point and its alternatives.

    The default is the most accurate point whose limits hold with probability `SURE`; with weights it is their
    knee. A point
    chosen before stays where none that holds is more accurate than it by a standard error, since the largest of several
    noisy numbers is too good.

    Args:
        trials: Complete trials; those of a front that was trained again come with their new numbers.
        limits: Limit by constraint, as `StudyResult.limits`.
        weights: Weight by objective; empty for the default.
        reference: Status quo, which the recommended point is compared with.
        incumbent: Point that was recommended before `trials` were trained again.

    Returns:
        The recommended point first; without a trial where none can be recommended.
    """
    feasible = [t for t in trials if t.feasible]
    sure = [t for t in feasible if p_feasible(t, limits) >= SURE]
    if sure:
        first = _weighed(sure, weights) if weights else _most_accurate(sure, incumbent)
    else:
        first = _none_sure(feasible, limits) if feasible else none_feasible(trials)
    chosen, *others = _merged([first, *_others(sure, feasible, weights)])
    against = chosen.trial or reference
    return (_completed(chosen, reference, limits), *(_completed(r, against, limits) for r in others))


def p_feasible(trial: TrialRecord, limits: Limits) -> float:
    """Return the probability that a complete trial holds its limits, by the errors of risk and penalty.

    Constraints without an error, such as gates, hold or do not.
    """
    if any(v > 0 for name, v in trial.constraints.items() if name not in limits):
        return 0.0
    limited = [trial.objectives[name] for name in (RISK, PENALTY)]
    if any(math.isnan(m.value) for m in limited):
        return 0.0
    means, errors, dfs = (np.array([[getattr(m, part) for m in limited]]) for part in ("value", "stderr", "df"))
    return float(probability_feasible(means, errors, [limits["max_risk"], limits["max_penalty"]], dfs=dfs)[0])


def _most_accurate(sure: Sequence[TrialRecord], incumbent: TrialRecord | None) -> Recommendation:
    """Take the most accurate point, or keep the earlier choice if within a standard error."""
    best = max(sure, key=_by_accuracy)
    kept = next((t for t in sure if incumbent is not None and t.number == incumbent.number), best)
    accuracy = best.objectives[ACCURACY]
    if kept is not best and accuracy.value - kept.objectives[ACCURACY].value <= accuracy.stderr:
        return Recommendation(
            trial=kept,
            name="most accurate",
            reason="chosen by the search; trained again it holds its limits, and no point that holds them is more "
            "accurate by a "
            "standard error",
        )
    return Recommendation(
        trial=best,
        name="most accurate",
        reason=Message(
            "the most accurate of {n} trials whose limits hold with probability {sure:g} or more",
            n=len(sure),
            sure=SURE,
        ),
    )


def _weighed(sure: Sequence[TrialRecord], weights: Mapping[str, float]) -> Recommendation:
    """Take the knee of the points that hold their limits and that none of them dominates."""
    front = _front(sure)
    given = [weights[name] for name in OBJECTIVES] if len(set(weights.values())) > 1 else []
    choice = knee(minimised(front), [SAID[name] for name in OBJECTIVES], given, stderrs(front))
    return Recommendation(trial=front[choice.index], name="knee", reason=choice.reason)


def _others(
    sure: Sequence[TrialRecord], feasible: Sequence[TrialRecord], weights: Mapping[str, float]
) -> list[Recommendation]:
    """Return the alternatives, each with its own reason."""
    out = []
    if sure and weights:
        out.append(_most_accurate(sure, None))
    kept = sure or feasible
    if kept and not weights:
        out.append(_weighed(kept, {}))
    if kept:
        safest = min(kept, key=lambda t: (t.objectives[RISK].upper, -t.objectives[ACCURACY].value))
        mildest = min(kept, key=lambda t: (t.objectives[PENALTY].value, -t.objectives[ACCURACY].value))
        out.append(Recommendation(trial=safest, name="least risk", reason="no other has a lower upper bound of risk"))
        out.append(Recommendation(trial=mildest, name="smallest penalty", reason="no other has a smaller penalty"))
    bold = max(feasible, key=_by_accuracy, default=None)
    if bold is not None and bold not in sure:
        out.append(
            Recommendation(trial=bold, name="less sure", reason="more accurate, but less sure to hold its limits")
        )
    return out


def _by_accuracy(trial: TrialRecord) -> tuple[float, float]:
    return trial.objectives[ACCURACY].value, -trial.objectives[RISK].upper


def _front(trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    return [t for t, stays in zip(trials, non_dominated(minimised(trials)), strict=True) if stays]


def _completed(choice: Recommendation, other: TrialRecord | None, limits: Limits) -> Recommendation:
    """Fill in a point's probability, its trade, and a warning if it has learnt nothing."""
    if choice.trial is None:
        return choice
    warning = _learnt_nothing(choice.trial)
    return dataclasses.replace(
        choice,
        p_feasible=p_feasible(choice.trial, limits),
        trade="" if other is None else trade(choice.trial, other),
        reason=joined("; ", [choice.reason, warning]) if warning else choice.reason,
    )


def trade(trial: TrialRecord, other: TrialRecord) -> str:
    """Return the loss of accuracy against another trial, and the differences of risk and penalty."""
    name = STATUS_QUO if other.number < 0 else Message("trial {number}", number=other.number)
    points = 100 * (other.objectives[ACCURACY].value - trial.objectives[ACCURACY].value)
    if abs(points) < 0.05:
        out = [Message("you give up nothing in accuracy against {name}", name=name)]
    elif points > 0:
        out = [Message("you give up {points:.1f} points of accuracy against {name}", points=points, name=name)]
    else:
        out = [Message("you gain {points:.1f} points of accuracy against {name}", points=-points, name=name)]
    steps = {n: trial.objectives[n].value - other.objectives[n].value for n in (RISK, PENALTY)}
    out += [Message("{name} {step:+.3f}", name=SAID[n], step=step) for n, step in steps.items() if not math.isnan(step)]
    return joined("; ", out)


def _learnt_nothing(trial: TrialRecord) -> str:
    """Warn of a trial that is not above always naming the most frequent class."""
    base, above = trial.extras.get(MAJORITY), trial.extras.get(ABOVE_MAJORITY)
    if base is None or above is None or not above.value - 2 * above.stderr <= 0:
        return ""
    return Message(
        "its accuracy is not above the {base:.3f} of always naming the largest class by two standard errors",
        base=base.value,
    )


def _merged(choices: Sequence[Recommendation]) -> list[Recommendation]:
    """Merge choices that name the same trial, in their order."""
    out: dict[int | None, Recommendation] = {}
    for choice in choices:
        key = None if choice.trial is None else choice.trial.number
        first = out.setdefault(key, choice)
        if first is not choice:
            name, reason = joined(", ", [first.name, choice.name]), joined("; ", [first.reason, choice.reason])
            out[key] = dataclasses.replace(first, name=name, reason=reason)
    return list(out.values())


def _none_sure(feasible: Sequence[TrialRecord], limits: Limits) -> Recommendation:
    nearest = max(feasible, key=lambda t: p_feasible(t, limits))
    return Recommendation(
        trial=None,
        reason=Message(
            "no trial holds its limits with probability {sure:g}; the nearest is trial {number}, at {p:.2f}",
            sure=SURE,
            number=nearest.number,
            p=p_feasible(nearest, limits),
        ),
    )


def none_held(refined: Sequence[TrialRecord]) -> Recommendation:
    """Name the limits that no point of a front held when it was trained again."""
    names = sorted({name for t in refined for name in t.blocking})
    return Recommendation(
        trial=None,
        reason=Message(
            "none of the {n} points of the front held its limits when trained anew: {limits}",
            n=len(refined),
            limits=joined(", ", names),
        ),
    )


def none_feasible(complete: Sequence[TrialRecord]) -> Recommendation:
    """Name the limit that most trials break, or the facts that a rule lacked in each."""
    if not complete:
        return Recommendation(trial=None, reason="no trial has been completed")
    counts = {name: sum(t.constraints[name] > 0 for t in complete) for name in complete[0].constraints}
    # a missing fact is in the way whatever else is mended
    for rule in counts:
        lacking = _lacking(complete, rule)
        if lacking and counts[rule] == len(complete):
            return Recommendation(
                trial=None,
                reason=Message(
                    "no trial is feasible: {rule} is not assessed, for want of {facts}; bring the columns, or leave "
                    "the pack "
                    "out",
                    rule=rule,
                    facts=joined(", ", lacking),
                ),
            )
    worst, nearest = max(counts, key=lambda name: counts[name]), _nearest(complete)
    return Recommendation(
        trial=None,
        reason=Message(
            "no trial is feasible: {limit} is broken by {n} of {total}; the nearest is trial {number}, which breaks "
            "{limits}",
            limit=worst,
            n=counts[worst],
            total=len(complete),
            number=nearest.number,
            limits=joined(", ", nearest.blocking),
        ),
    )


def _nearest(complete: Sequence[TrialRecord]) -> TrialRecord:
    return min(complete, key=lambda t: sum(v for v in t.constraints.values() if v > 0))


def _lacking(complete: Sequence[TrialRecord], rule: str) -> list[str]:
    """Return the facts that a rule lacks in every trial."""
    rows = [row for t in complete for row in t.contributions if row["rule"] == rule]
    if not rows or any(row["verdict"] != "not assessed" for row in rows):
        return []
    return [name.removeprefix("data.").replace("_", " ") for name, value in rows[0]["facts"].items() if value is None]


def minimised(trials: Sequence[TrialRecord]) -> NDArray[np.float64]:
    """Return error rate, risk and penalty of complete trials, shape (n, 3), all to be minimised."""
    rows = [(1 - t.objectives[ACCURACY].value, t.objectives[RISK].value, t.objectives[PENALTY].value) for t in trials]
    return np.array(rows, dtype=np.float64).reshape(-1, 3)


def stderrs(trials: Sequence[TrialRecord]) -> NDArray[np.float64]:
    """Return the standard errors of accuracy, risk and penalty, shape (n, 3)."""
    rows = [[t.objectives[name].stderr for name in OBJECTIVES] for t in trials]
    return np.array(rows, dtype=np.float64).reshape(-1, 3)
