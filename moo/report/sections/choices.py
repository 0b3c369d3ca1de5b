"""What the report says of the recommended point and of those that could be taken instead."""

import math
from collections.abc import Mapping
from typing import Any

from moo.core.measurement import Measurement
from moo.core.trial_record import ACCURACY, PENALTY, RISK, TrialRecord
from moo.report.i18n.chinese import said
from moo.studies.results.result import StudyResult


def plus_minus(m: Measurement, unknown: str = "") -> str:
    """A measurement as people read it; in words of the page where it was not assessed."""
    if math.isnan(m.value):
        return unknown or "–"
    return f"{m.value:.3f} ± {m.stderr:.3f}" if m.stderr else f"{m.value:.3f}"


def sure_lines(result: StudyResult, t: Mapping[str, str]) -> list[str]:
    """How sure the recommended point is to hold its limits, and what it gives up against the status quo."""
    choice = result.recommend()
    if choice.trial is None or math.isnan(choice.p_feasible):
        return []
    upper, limit = choice.trial.objectives[RISK].upper, result.limits["max_risk"]
    sure = t["sure"].format(p=f"{choice.p_feasible:.2f}", upper=f"{upper:.3f}", limit=f"{limit:g}")
    return [sure, *([f"{_trade(choice.trade, t)}{t['stop']}"] if choice.trade else [])]


def alternative_rows(result: StudyResult, t: Mapping[str, str]) -> list[dict[str, Any]]:
    """One row for each point that could be taken instead: numbers, probability, reason, trade."""
    rows = []
    for choice in result.alternatives():
        assert choice.trial is not None
        objectives = choice.trial.objectives
        rows.append(
            {
                "trial": choice.trial.number,
                "role": said(choice.name, t["lang"]),
                "cells": [plus_minus(objectives[n], t["unknown"]) for n in (ACCURACY, RISK)]
                + [f"{objectives[RISK].upper:.3f}", plus_minus(objectives[PENALTY]), f"{choice.p_feasible:.2f}"],
                "why": said(choice.reason, t["lang"]),
                "trade": _trade(choice.trade, t),
            }
        )
    return rows


def _trade(trade: str, t: Mapping[str, str]) -> str:
    """Return a trade in the page's words, part by part: the trial that is compared with ends the first of them."""
    shown = t["and"].join(said(part, t["lang"]) for part in trade.split("; "))
    return f"{shown[:1].upper()}{shown[1:]}"


def alternatives_note(chosen: TrialRecord | None, t: Mapping[str, str]) -> str:
    """Say what the alternatives are compared with."""
    return t["alternatives_note"].format(trial=t["status_quo"] if chosen is None else f"{t['trial']} {chosen.number}")
