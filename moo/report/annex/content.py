"""Content of a PIA evidence annex: measurements of one point, under PIPL 56's headings.

It is evidence for the person who assesses and signs. It is no verdict of law, and it says what was not assessed.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

import rfc8785

from moo.core.errors import InputError
from moo.core.measurement import Measurement, number_out
from moo.core.trial_record import ACCURACY, MAJORITY, PENALTY, RISK, TrialRecord
from moo.objectives.compliance import evaluate, load_rules
from moo.objectives.compliance.report import carriers_of
from moo.objectives.compliance.sensitivity import TOO_ALIKE, domain_scores, kept_on_front
from moo.report.sections.audits import of_point
from moo.report.sections.likeness import likeness
from moo.studies.results.audit_report import AuditReport
from moo.studies.results.recommendation import minimised, p_feasible
from moo.studies.results.result import StudyResult
from moo.studies.setup.legal_gates import NO_GATE

FORMAT = "moo PIA evidence annex 1"
DRAWS = 1000
_RULE = ("rule", "title_en", "title_zh", "kind", "domain", "article", "status", "as_of")
_JUDGED = ("verdict", "score", "weight", "contribution", "facts", "digest", "varies", "pia", "stage", "pack")
_ROW = (*_RULE, *_JUDGED)
# sections whose changes have lines of their own
_COMPARED = ("rules", "point", "search", "domains", "front", "checks", "status_quo")
_UNSIGNED = ("made", "digest", "difference")


def annex_of(
    result: StudyResult,
    *,
    trial: int | None = None,
    declared: Mapping[str, Any] | None = None,
    previous: Mapping[str, Any] | None = None,
    audits: Sequence[AuditReport] = (),
    today: date | None = None,
) -> dict[str, Any]:
    """Return the annex of a study and one of its points, as JSON can hold it.

    Args:
        result: The study.
        trial: Number of the point; the recommended one where none is given.
        declared: Content of a dossier, as `moo.studies.setup.legal_gates.declaration` makes it; None takes
            the study's own.
        previous: Earlier annex to compare with.
        audits: Audits of the study's trials, as `load_audits` finds them. The annex keeps those of the point, and
            every one that contradicted a claim.
        today: Day on which it is made; by default the calendar's.

    Raises:
        InputError: If there is no such completed trial, or no recommendation.
    """
    point = _point(result, trial)
    dossier = result.about.get("declared", {}) if declared is None else declared
    facts = dossier.get("facts", {})
    book = load_rules(result.spec["packs"])
    flags = dossier.get("flags", result.spec.get("applies", ()))
    release = evaluate(facts, book, applies=flags, stages=("release",))
    judged = result.spec.get("gates", True)
    kept = [row for row in release.contributions if judged or row["kind"] != "gate"]
    rows = [{key: row[key] for key in _ROW} for row in (*point.contributions, *kept)]
    content: dict[str, Any] = {
        "format": FORMAT,
        "study": _study(result),
        "point": _trial(point, result) | {"why": _why(point, result)},
        "status_quo": _trial(result.reference, result) if result.reference else None,
        "rules": rows,
        "domains": [{key: row[key] for key in _ROW} for row in carriers_of(point.contributions)],
        "not_applying": list(release.notes),
        "front": _front(result),
        "checks": _checks(result),
        "audits": of_point(audits, point.number),
        "search": result.cost.to_json(),
        "data": dict(result.about.get("data", {})),
        "collection": list(dossier.get("collection", ())),
        "roles": list(dossier.get("roles", ())),
        "gates": "judged" if judged else NO_GATE,
        "declared_not_measured": dict(result.spec.get("declare", {})),
        "dossier": dossier.get("digest", ""),
        "threat_model": result.about.get("threat_model", ""),
        "versions": dict(result.about.get("versions", {})),
    }
    content = _plain(content)
    signed = hashlib.sha256(rfc8785.dumps(content)).hexdigest()
    made = (today or date.today()).isoformat()
    return content | {"made": made, "digest": signed, "difference": difference(previous, content)}


def _study(result: StudyResult) -> dict[str, Any]:
    """Return name, purpose and limits of a study."""
    return {
        "name": result.name,
        "title": result.spec.get("title", ""),
        "purpose": result.spec.get("purpose", ""),
        "model": result.spec.get("model", ""),
        "as_of": result.spec.get("as_of", ""),
        "trials": None if result.alone else len(result.trials),
        "alone": result.alone,
        "limits": dict(result.limits),
        "attribute": result.spec.get("attribute", ""),
        "attribute_known": list(result.spec.get("attribute_auxiliary", ())),
    }


def _plain(value: Any) -> Any:
    """Return a value as JSON can hold it: infinities and NaN as texts, tuples as lists."""
    if isinstance(value, float):
        return number_out(value)
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, (list, tuple)) else value


def verify(annex: Mapping[str, Any]) -> bool:
    """Return True if an annex is as it was made: its digest is that of its content."""
    content = {k: v for k, v in annex.items() if k not in _UNSIGNED}
    return hashlib.sha256(rfc8785.dumps(content)).hexdigest() == annex.get("digest")


def _point(result: StudyResult, number: int | None) -> TrialRecord:
    if number is None:
        chosen = result.recommend()
        if chosen.trial is None:
            raise InputError(
                "the study must recommend a point, but {reason}; name one with --trial.", reason=chosen.reason
            )
        return chosen.trial
    matching = [t for t in result.complete if t.number == number]
    if not matching:
        raise InputError(
            "trial among {complete} must hold, but got trial={number}.",
            complete=[t.number for t in result.complete],
            number=number,
        )
    return matching[0]


def _trial(trial: TrialRecord, result: StudyResult) -> dict[str, Any]:
    """Return a trial as the annex shows it."""
    return {
        "number": trial.number,
        "params": trial.params.to_json(),
        "objectives": {
            name: {"value": m.value, "stderr": m.stderr, "low": m.low, "high": m.high, "upper": m.upper, "df": m.df}
            for name, m in trial.objectives.items()
        },
        "extras": {name: m.to_json() for name, m in trial.extras.items()},
        "constraints": dict(trial.constraints),
        "feasible": trial.feasible,
        "blocking": list(trial.blocking),
        "on_front": trial.number in result.on_front,
        "claim": trial.claim,
    }


def _why(point: TrialRecord, result: StudyResult) -> dict[str, Any]:
    """Return the reasons for a point: its place on the front, its neighbours, the status quo."""
    choice = result.recommend()
    chosen = choice.trial
    front = [t for t in result.complete if t.number in result.on_front]
    better = {
        name: sum((t.objectives[name].value - point.objectives[name].value) * sign > 0 for t in front)
        for name, sign in ((ACCURACY, 1), (RISK, -1), (PENALTY, -1))
    }
    against = (
        {n: point.objectives[n].value - result.reference.objectives[n].value for n in (ACCURACY, RISK, PENALTY)}
        if result.reference
        else {}
    )
    return {
        "recommended": chosen is not None and chosen.number == point.number,
        "reason": choice.reason if chosen is not None and chosen.number == point.number else "",
        "p_feasible": p_feasible(point, result.limits),
        "alternatives": [
            {"number": r.trial.number, "name": r.name, "reason": r.reason, "p_feasible": r.p_feasible, "trade": r.trade}
            for r in result.alternatives()
            if r.trial is not None
        ],
        "weights": dict(result.weights),
        "on_front": len(front),
        "better": better,
        "against_status_quo": against,
    }


def edges_of(m: Measurement, name: str) -> list[float]:
    """Return value, standard error and ends of the bar.

    The bar is the 95 % interval; of risk, the one-sided 95 % bound and its mirror.
    """
    half = m.upper - m.value if name == RISK else m.half
    return [m.value, m.stderr, m.value - half, m.value + half]


def _front(result: StudyResult) -> list[dict[str, Any]]:
    """Return every completed trial, with the share of weightings that keep it on the front."""
    trials = result.complete
    shares = weight_shares(result)
    return [
        {
            "number": t.number,
            "params": t.params.to_json(),
            "feasible": t.feasible,
            "on_front": t.number in result.on_front,
            "kept": share,
            "majority": [t.extras[MAJORITY].value, t.extras[MAJORITY].stderr] if MAJORITY in t.extras else None,
            "p_feasible": p_feasible(t, result.limits),
            **{name: edges_of(t.objectives[name], name) for name in (ACCURACY, RISK, PENALTY)},
        }
        for t, share in zip(trials, shares, strict=True)
    ]


def weight_shares(result: StudyResult) -> list[float]:
    """Return, by completed trial, the share of random weightings that keep it on the feasible front."""
    trials = result.complete
    names, scores = domain_scores([t.contributions for t in trials])
    if not names:
        return [0.0] * len(trials)
    allowed = [all(v <= 0 for k, v in t.constraints.items() if k != "max_penalty") for t in trials]
    kept = kept_on_front(
        scores, minimised(trials)[:, :2], _mask(allowed), max_penalty=result.limits["max_penalty"], draws=DRAWS
    )
    return [float(share) for share in kept]


def _mask(values: Sequence[bool]) -> Any:
    import numpy as np

    return np.array(values, dtype=bool)


def _checks(result: StudyResult) -> dict[str, Any]:
    correlation, nulls = likeness(result), result.null_aucs
    return {
        "penalty_risk_correlation": None if math.isnan(correlation) else correlation,
        "too_alike": correlation > TOO_ALIKE,
        "null_auc": sum(nulls) / len(nulls) if nulls else None,
        "null_trials": len(nulls),
        "weightings": DRAWS,
    }


def difference(before: Mapping[str, Any] | None, after: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the changes since an earlier annex; None without one.

    Raises:
        InputError: If the earlier one is no annex.
    """
    if before is None:
        return None
    if before.get("format") != FORMAT:
        raise InputError(
            "the previous annex must be of format {format!r}, but got {before!r}.",
            format=FORMAT,
            before=before.get("format"),
        )
    old, new = ({row["rule"]: row for row in a["rules"]} for a in (before, after))
    changed = [
        {"rule": name, "verdict": [old[name]["verdict"], row["verdict"]], "facts": [old[name]["facts"], row["facts"]]}
        for name, row in new.items()
        if name in old and old[name]["digest"] != row["digest"]
    ]
    objectives = {
        name: [before["point"]["objectives"][name]["value"], m["value"]]
        for name, m in after["point"]["objectives"].items()
        if before["point"]["objectives"][name]["value"] != m["value"]
    }
    return {
        "previous": before["digest"],
        "made": before["made"],
        "intact": verify(before),
        "study": [before["study"]["name"], after["study"]["name"]],
        "point": [before["point"]["number"], after["point"]["number"]],
        "params": [before["point"]["params"], after["point"]["params"]],
        "objectives": objectives,
        "composed_epsilon": [before["search"]["composed_epsilon"], after["search"]["composed_epsilon"]],
        "sections": [
            k for k in after if k not in (*_COMPARED, *_UNSIGNED) and before.get(k, type(after[k])()) != after[k]
        ],
        "rules": changed,
        "added": sorted(new.keys() - old.keys()),
        "removed": sorted(old.keys() - new.keys()),
    }
