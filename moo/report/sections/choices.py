"""Recommended point and its alternatives, as the report shows them."""

import math
from collections.abc import Mapping
from typing import Any

from moo.core.measurement import Measurement
from moo.core.trial_record import ACCURACY, PENALTY, RISK, TrialRecord
from moo.report.sections.texts import say
from moo.studies.results.result import StudyResult


def plus_minus(m: Measurement, unknown: str = "") -> str:
    """Return a measurement as people read it; in words of the page if it was not assessed."""
    if math.isnan(m.value):
        return unknown or "–"
    return f"{m.value:.3f} ± {m.stderr:.3f}" if m.stderr else f"{m.value:.3f}"


def sure_lines(result: StudyResult, t: Mapping[str, str]) -> list[str]:
    """Return how sure the recommended point is to hold its limits, and its trade."""
    choice = result.recommend()
    if choice.trial is None or math.isnan(choice.p_feasible):
        return []
    upper, limit = choice.trial.objectives[RISK].upper, result.limits["max_risk"]
    sure = t["sure"].format(p=f"{choice.p_feasible:.2f}", upper=f"{upper:.3f}", limit=f"{limit:g}")
    return [sure, *([f"{_trade(choice.trade, t)}{t['stop']}"] if choice.trade else [])]


def alternative_rows(result: StudyResult, t: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return a row for each alternative: numbers, probability, reason, trade."""
    rows = []
    for choice in result.alternatives():
        assert choice.trial is not None
        objectives = choice.trial.objectives
        rows.append(
            {
                "trial": choice.trial.number,
                "role": say(choice.name, t),
                "cells": [plus_minus(objectives[n], t["unknown"]) for n in (ACCURACY, RISK)]
                + [f"{objectives[RISK].upper:.3f}", plus_minus(objectives[PENALTY]), f"{choice.p_feasible:.2f}"],
                "why": say(choice.reason, t),
                "trade": _trade(choice.trade, t),
            }
        )
    return rows


def _trade(trade: str, t: Mapping[str, str]) -> str:
    """Return a trade in the page's language, its first letter a capital."""
    shown = say(trade, t)
    return f"{shown[:1].upper()}{shown[1:]}"


def alternatives_note(chosen: TrialRecord | None, t: Mapping[str, str]) -> str:
    """Return the note that names the point that alternatives are compared with."""
    return t["alternatives_note"].format(trial=t["status_quo"] if chosen is None else f"{t['trial']} {chosen.number}")
