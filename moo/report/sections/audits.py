"""Audits in the report: what a study's last ones found, beside what is claimed."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import rfc8785

from moo.report.figures import epsilon_text
from moo.report.i18n.chinese import said
from moo.studies.results.audit_report import AuditReport
from moo.studies.results.result import StudyResult

SIGHT = {"dirac": "white box", "text": "black box"}  # what an auditor with such canaries sees of the training


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
    """The last audit of each trial and kind, every one that contradicted its claim, and how to make the recommended trial's first."""
    told = [_line(a, t) for a in last_and_alarmed(audits)]
    chosen = result.recommend().trial
    if result.alone or chosen is None or not chosen.params.private or any(a.trial == chosen.number for a in audits):
        return told
    return [*told, AuditLine(t["audit_none"].format(trial=chosen.number))]


def last_and_alarmed(audits: Sequence[AuditReport]) -> list[AuditReport]:
    """The last audit of each trial and kind, and every one that contradicted its claim: auditing again takes no alarm away."""
    last = {(a.trial, a.kind): a for a in audits}
    return [a for a in audits if a.alarms or a is last[a.trial, a.kind]]


def of_point(audits: Sequence[AuditReport], number: int) -> list[dict[str, Any]]:
    """What an annex keeps of the audits: those of its point, and whichever contradicted a claim, as JSON can hold them."""
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
    """The same as an annex's page shows them, one row each; "not assessed" where the point itself was not audited."""
    rows = [
        {
            "name": f"{t['trial']} {a['trial']}" if a["trial"] is not None else t["audit_other"],
            "seen": t["aside"].format(text=said(SIGHT[a["kind"]], t["lang"]), aside=f"{a['canaries']:,}"),
            "low": t["audit_low"].format(
                low=f"{float(a['epsilon_low']):.2f}", confidence=f"{100 * a['confidence']:g} %"
            ),
            "claimed": epsilon_text(float(a["claimed_epsilon"]), t["no_dp"]),
            "verdict": t["and"].join(said(alarm, t["lang"]) for alarm in a["alarms"]) or t["audit_fits"],
            "css": "fail" if a["alarms"] else "pass",
            "file": a["file"],
            "digest": a["digest"],
        }
        for a in annex.get("audits", ())
    ]
    own = annex["point"]["number"]
    if any(a["trial"] == own for a in annex.get("audits", ())):
        return rows
    claimed = float(annex["point"]["extras"].get("epsilon_spent", {"value": "inf"})["value"])
    nothing = {
        "name": f"{t['trial']} {own}",
        "seen": "–",
        "low": t["unknown"],
        "claimed": epsilon_text(claimed, t["no_dp"]),
    }
    return [{**nothing, "verdict": t["unknown"], "css": "not-assessed", "file": "", "digest": ""}, *rows]


def _line(a: AuditReport, t: Mapping[str, str]) -> AuditLine:
    text = t["audit"].format(
        trial="–" if a.trial is None else a.trial,
        canaries=f"{a.guessed[0].canaries:,}",
        kind=said(SIGHT[a.kind], t["lang"]),
        low=f"{max(a.epsilon_low, a.epsilon_low_dp):.2f}",
        confidence=f"{a.confidence:.0%}",
        claimed=epsilon_text(a.claimed_epsilon, t["no_dp"]),
        verdict=t["audit_alarm"] if a.alarms else t["audit_fits"],
    )
    return AuditLine(text, a.file, bool(a.alarms))
