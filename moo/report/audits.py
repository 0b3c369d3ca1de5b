"""Audits in the report: what a study's last ones found, beside what is claimed."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from moo.report.chinese import said
from moo.report.figures import epsilon_text
from moo.studies.audited import AuditReport
from moo.studies.result import StudyResult

_SIGHT = {"dirac": "white box", "text": "black box"}  # what an auditor with such canaries sees of the training


@dataclass(frozen=True)
class AuditLine:
    """One audit in words.

    Attributes:
        text: What it found.
        href: Its file, relative to the report; empty where there is none.
        alarm: Whether the claim is contradicted.
    """

    text: str
    href: str = ""
    alarm: bool = False


def audit_lines(result: StudyResult, audits: Sequence[AuditReport], t: Mapping[str, str]) -> list[AuditLine]:
    """The last audit of each trial and kind, and every one that contradicted its claim; or how to make the first."""
    last = {(a.trial, a.kind): a for a in audits}
    told = [_line(a, t) for a in audits if a.alarms or a is last[a.trial, a.kind]]
    chosen = result.recommend().trial
    if told or chosen is None or not math.isfinite(chosen.params.target_epsilon):
        return told
    return [AuditLine(t["audit_none"].format(trial=chosen.number))]


def _line(a: AuditReport, t: Mapping[str, str]) -> AuditLine:
    text = t["audit"].format(
        trial="–" if a.trial is None else a.trial,
        canaries=f"{a.guessed[0].canaries:,}",
        kind=said(_SIGHT[a.kind], t["lang"]),
        low=f"{max(a.epsilon_low, a.epsilon_low_dp):.2f}",
        confidence=f"{a.confidence:.0%}",
        claimed=epsilon_text(a.claimed_epsilon, t["no_dp"]),
        verdict=t["audit_alarm"] if a.alarms else t["audit_fits"],
    )
    return AuditLine(text, a.file, bool(a.alarms))
