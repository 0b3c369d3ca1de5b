"""H(P|M) in the report: what the model's answers tell of the study's attribute, one line a trial."""

import math
from collections.abc import Mapping
from typing import Any

from moo.core.measurement import Measurement
from moo.core.trial_record import RISK, TrialRecord
from moo.report.i18n.chinese import said, sentence
from moo.studies.results.result import StudyResult

_COLUMNS = ("attribute_leakage", "attribute_p", "attribute_min_entropy", "attribute_training", "advantage")


def attribute_trials(result: StudyResult) -> list[TrialRecord]:
    """The trials whose attribute is told: the status quo, then the front, or every complete trial where there is none."""
    asked = [r for r in result.complete if "attribute_leakage" in r.extras]
    front = [r for r in asked if r.number in result.on_front]
    reference = [r for r in (result.reference,) if r is not None and "attribute_leakage" in r.extras]
    return reference + (front or asked)


def by_attribute(record: TrialRecord) -> bool:
    """Whether the attribute's leakage is the trial's risk: the larger of the two terms."""
    asked = "attribute_leakage" in record.extras
    return asked and record.extras["attribute_leakage"].value > record.extras["advantage"].value


def attribute_section(result: StudyResult, t: Mapping[str, str]) -> dict[str, Any] | None:
    """Title, note, reasons why something was not assessed, and rows; None where the study asks for no attribute."""
    records = attribute_trials(result)
    if not records:
        return None
    chosen = result.recommend().trial
    attribute = said(result.spec["attribute"], t["lang"])
    known = t["and"].join(said(c, t["lang"]) for c in result.spec.get("attribute_auxiliary", ())) or t["base_rate"]
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
    """Value and 95 % interval as people read them."""
    return {"value": f"{m.value:.3f}", "low": f"{m.low:.3f}", "high": f"{m.high:.3f}"}


def attribute_lines(annex: Mapping[str, Any], t: Mapping[str, str]) -> list[str]:
    """What an annex says of the study's attribute at its point; nothing where it asks for none."""
    told, extras = annex["study"], annex["point"]["extras"]
    if not told.get("attribute") or "attribute_leakage" not in extras:
        return []
    attribute = said(told["attribute"], t["lang"])
    leakage, p = (Measurement.from_json(extras[name]) for name in ("attribute_leakage", "attribute_p"))
    if math.isnan(leakage.value):
        reason = said(leakage.note.removeprefix("not assessed: "), t["lang"])
        return [t["attribute_missing"].format(attribute=attribute, reason=reason)]
    known = t["and"].join(said(c, t["lang"]) for c in told["attribute_known"]) or t["base_rate"]
    return [t["attribute_line"].format(attribute=attribute, known=known, p=f"{p.value:.2f}", **interval(leakage))]


def _cell(m: Measurement, t: Mapping[str, str]) -> str:
    if math.isnan(m.value):
        return t["unknown"]
    return f"{m.value:+.3f} ± {m.stderr:.3f}" if m.stderr else f"{m.value:.2f}"
