"""Audits in the report: findings of a study's last ones, and the claims."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import rfc8785

from moo.report.figures import epsilon_text
from moo.report.sections.texts import say
from moo.studies.results.audit_report import AuditReport
from moo.studies.results.result import StudyResult

# what an auditor with such canaries sees of the training
SIGHT = {"dirac": "white box", "text": "black box"}


@dataclass(frozen=True)
class AuditLine:
    """One audit in words.

    Attributes:
        text: Finding.
        href: Its file, relative to the report; empty where there is none.
        alarm: True if the claim is contradicted.
    """

    text: str
    href: str = ""
    alarm: bool = False


def audit_lines(result: StudyResult, audits: Sequence[AuditReport], t: Mapping[str, str]) -> list[AuditLine]:
    """Return lines of the audits to show, and how to audit the recommended trial if none has."""
    lines = [_line(a, t) for a in last_and_alarmed(audits)]
    chosen = result.recommend().trial
    if result.alone or chosen is None or not chosen.params.private or any(a.trial == chosen.number for a in audits):
        return lines
    return [*lines, AuditLine(t["audit_none"].format(trial=chosen.number))]


def last_and_alarmed(audits: Sequence[AuditReport]) -> list[AuditReport]:
    """Return the last audit of each trial and kind, and every one that contradicted its claim.

    Auditing again takes no alarm away.
    """
    last = {(a.trial, a.kind): a for a in audits}
    return [a for a in audits if a.alarms or a is last[a.trial, a.kind]]


def of_point(audits: Sequence[AuditReport], number: int) -> list[dict[str, Any]]:
    """Return the audits of an annex as JSON: those of its point, and all that contradicted a claim."""
    return [
        {
            "trial": a.trial,
            "engine": a.engine,
            "kind": a.kind,
            "canaries": a.guessed[0].canaries,
            "epsilon_low": max(a.epsilon_low, a.epsilon_low_dp),
            "confidence": a.confidence,
            "claimed_epsilon": a.claimed_epsilon,
            "delta": a.delta,
            "claim": a.claim,
            "p_value": a.p_value,
            "sampler_p_value": a.sampler_p_value,
            "alarms": list(a.alarms),
            "ledger": a.ledger,
            "file": a.file,
            "digest": hashlib.sha256(rfc8785.dumps(a.to_json())).hexdigest(),
        }
        for a in last_and_alarmed(audits)
        if a.trial == number or a.alarms
    ]


def annex_audits(annex: Mapping[str, Any], t: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return rows of an annex's audits; one "not assessed" if the point itself was not audited."""
    rows = [
        {
            "name": f"{t['trial']} {a['trial']}" if a["trial"] is not None else t["audit_other"],
            "seen": t["aside"].format(text=say(SIGHT[a["kind"]], t), aside=f"{a['canaries']:,}"),
            "low": t["audit_low"].format(
                low=f"{float(a['epsilon_low']):.2f}", confidence=f"{100 * a['confidence']:g} %"
            ),
            "claimed": epsilon_text(float(a["claimed_epsilon"]), t["no_dp"]),
            "verdict": t["and"].join(say(alarm, t) for alarm in a["alarms"]) or t["audit_fits"],
            "css": "fail" if a["alarms"] else "pass",
            "file": a["file"],
            "digest": a["digest"],
        }
        for a in annex.get("audits", ())
    ]
    number = annex["point"]["number"]
    if any(a["trial"] == number for a in annex.get("audits", ())):
        return rows
    claimed = float(annex["point"]["extras"].get("epsilon_spent", {"value": "inf"})["value"])
    nothing = {
        "name": f"{t['trial']} {number}",
        "seen": "–",
        "low": t["unknown"],
        "claimed": epsilon_text(claimed, t["no_dp"]),
    }
    return [{**nothing, "verdict": t["unknown"], "css": "not-assessed", "file": "", "digest": ""}, *rows]


def _line(a: AuditReport, t: Mapping[str, str]) -> AuditLine:
    text = t["audit"].format(
        trial="–" if a.trial is None else a.trial,
        canaries=f"{a.guessed[0].canaries:,}",
        kind=say(SIGHT[a.kind], t),
        low=f"{max(a.epsilon_low, a.epsilon_low_dp):.2f}",
        confidence=f"{a.confidence:.0%}",
        claimed=epsilon_text(a.claimed_epsilon, t["no_dp"]),
        verdict=t["audit_alarm"] if a.alarms else t["audit_fits"],
    )
    return AuditLine(text, a.file, bool(a.alarms))
