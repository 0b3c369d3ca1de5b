"""H(P|M) in the report: leakage of the study's attribute by the model's answers, by trial."""

import math
from collections.abc import Mapping
from typing import Any

from moo.core.measurement import Measurement
from moo.core.trial_record import RISK, TrialRecord
from moo.report.sections.texts import say, sentence
from moo.studies.results.result import StudyResult

_COLUMNS = ("attribute_leakage", "attribute_p", "attribute_min_entropy", "attribute_training", "advantage")


def attribute_trials(result: StudyResult) -> list[TrialRecord]:
    """Return the trials with an attribute: status quo, then the front, or else all complete ones."""
    measured = [r for r in result.complete if "attribute_leakage" in r.extras]
    front = [r for r in measured if r.number in result.on_front]
    reference = [r for r in (result.reference,) if r is not None and "attribute_leakage" in r.extras]
    return reference + (front or measured)


def by_attribute(record: TrialRecord) -> bool:
    """Return True if the attribute's leakage is the trial's risk: the larger of the two terms."""
    measured = "attribute_leakage" in record.extras
    return measured and record.extras["attribute_leakage"].value > record.extras["advantage"].value


def attribute_section(result: StudyResult, t: Mapping[str, str]) -> dict[str, Any] | None:
    """Return title, note, reasons of what was not assessed, and rows; None without an attribute."""
    records = attribute_trials(result)
    if not records:
        return None
    chosen = result.recommend().trial
    attribute = say(result.spec["attribute"], t)
    known = t["and"].join(say(c, t) for c in result.spec.get("attribute_auxiliary", ())) or t["base_rate"]
    missing = {r.extras[c].note for r in records for c in _COLUMNS if math.isnan(r.extras[c].value)} - {""}
    return {
        "name": attribute,
        "title": t["attribute"].format(attribute=attribute),
        "note": t["attribute_note"].format(attribute=attribute, known=known),
        "is_risk": chosen is not None and by_attribute(chosen),
        "missing": [sentence(note, t) for note in sorted(missing)],
        "rows": [
            {
                "name": t["status_quo"] if r.number < 0 else str(r.number),
                "kind": "front" if chosen is not None and r.number == chosen.number else "",
                "cells": [_cell(r.extras[c], t) for c in _COLUMNS],
                "risk": _cell(r.objectives[RISK], t),
                "term": t["by_attribute" if by_attribute(r) else "by_membership"],
            }
            for r in records
        ],
    }


def interval(m: Measurement) -> dict[str, str]:
    """Return value and 95 % interval as people read them."""
    return {"value": f"{m.value:.3f}", "low": f"{m.low:.3f}", "high": f"{m.high:.3f}"}


def attribute_lines(annex: Mapping[str, Any], t: Mapping[str, str]) -> list[str]:
    """Return the annex's lines about the study's attribute at its point; none without an attribute."""
    study, extras = annex["study"], annex["point"]["extras"]
    if not study.get("attribute") or "attribute_leakage" not in extras:
        return []
    attribute = say(study["attribute"], t)
    leakage, p = (Measurement.from_json(extras[name]) for name in ("attribute_leakage", "attribute_p"))
    if math.isnan(leakage.value):
        return [t["attribute_missing"].format(attribute=attribute, reason=say(leakage.why, t))]
    known = t["and"].join(say(c, t) for c in study["attribute_known"]) or t["base_rate"]
    return [t["attribute_line"].format(attribute=attribute, known=known, p=f"{p.value:.2f}", **interval(leakage))]


def _cell(m: Measurement, t: Mapping[str, str]) -> str:
    if math.isnan(m.value):
        return t["unknown"]
    return f"{m.value:+.3f} ± {m.stderr:.3f}" if m.stderr else f"{m.value:.2f}"
