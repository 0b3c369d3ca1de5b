"""Gates that no trial can change: what refuses a study before anything is spent, and what its dossier declares."""

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from moo.core.errors import InputError
from moo.data.legal.declared import SIGNED
from moo.data.legal.dossier import Dossier
from moo.data.tables.columns import BASES
from moo.objectives.compliance import ComplianceReport
from moo.objectives.compliance.loader import load_rules
from moo.objectives.compliance.rule import Rule
from moo.studies.spec.study import StudySpec

if TYPE_CHECKING:
    from moo.studies.setup.prepared import Prepared

NO_GATE = "no gate judged"
WANTED = {
    "basis": f"the lawful basis, one of {', '.join(BASES)}",
    "consented": "date of the consent, as 2026-11-01",
    "used_from": "date from which the record is used for training",
    "purposes": "consented purposes, separated by blanks",
    "withdrawn": "true where consent was withdrawn or deletion asked for",
    "storage_only": "true where the row is kept for a duty to store alone",
    "collected": "date of collection",
    "retention_days": "declared limit, in days",
    "sensitive": "true where the text holds sensitive personal information",
    "sensitive_consent": "true where there is separate consent for that",
    "birth_year": "year of birth",
    "guardian_consent": "true where a guardian of a child under 14 agreed",
    "tags": "profile tags, and their legal set in the dossier",
}


def check_data_gates(prepared: "Prepared") -> None:
    """Raise if a gate is unknown or not met, and no trial can change it; names all of them, and every missing column."""
    spec = prepared.spec
    if not spec.gates:
        return
    facts = {**prepared.data_facts, "masking.level": float(spec.space.masking_level[1])}
    rules = [r for r in load_rules(spec.packs).at(prepared.flags, "trial") if r.kind == "gate" and _of_data(r)]
    verdicts = {r.id: (r, r.judge(facts)[1]) for r in rules}
    open_ = [f"{r.id} {r.title_en} {_why(r, verdict, facts)}" for r, verdict in verdicts.values() if verdict != "pass"]
    if not open_:
        return
    missing = _missing(prepared, rules)
    add = "; ".join(f"{name} ({WANTED[name]})" for name in missing)
    raise InputError(
        f"no trial can change these gates of {spec.data}, and they are not met: {', '.join(open_)}. "
        + (f"Add the missing columns, or state them for the whole table in [declare]: {add}. " if add else "")
        + ("Mend the data, or set consent_filter = true. " if any(v == "fail" for _, v in verdicts.values()) else "")
        + "With gates = false no gate is judged."
    )


def _of_data(rule: Rule) -> bool:
    """Return True for a rule that reads the table alone; the masking level may still excuse it."""
    return all(key.startswith("data.") for key in rule.evidence)


def _why(rule: Rule, verdict: str, facts: Mapping[str, float | None]) -> str:
    return "is unknown" if verdict == "not assessed" else f"fails for {rule.value(facts) or 0.0:.1%} of the records"


def _missing(prepared: "Prepared", rules: Sequence[Rule]) -> list[str]:
    """Columns that rules ask about, and that the table lacks and nobody declares."""
    from moo.data.legal.gates import RULES

    have = prepared.terms.filled(prepared.loaded.columns, len(prepared.loaded))
    asked = [c for rule in rules for key in rule.evidence for c in RULES.get(key.removeprefix("data."), ((), None))[0]]
    return [name for name in dict.fromkeys(asked) if name not in have]


def stated(spec: Mapping[str, Any]) -> str:
    """Return what a study's table declares, as "basis contract, purposes model_training"; empty where it declares nothing.

    Args:
        spec: The specification as JSON.
    """
    return ", ".join(f"{name} {_said(value)}" for name, value in spec.get("declare", {}).items() if name not in SIGNED)


def notes_of(spec: Mapping[str, Any]) -> list[str]:
    """Return what must stand beside a result: gates that were not judged, and facts that are declared and not measured."""
    out = (
        []
        if spec.get("gates", True)
        else ["No gate judged: the study sets gates = false; its penalty is judged as ever"]
    )
    if said := stated(spec):
        signed = spec["declare"]
        out.append(f"Declared by {signed['signer']} on {signed['date']}, not measured: {said}")
    return out


def _said(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def without_gates(report: ComplianceReport, spec: StudySpec) -> ComplianceReport:
    """Return the report as it is, or without its gates where the study judges none."""
    if spec.gates:
        return report
    return dataclasses.replace(
        report, gates={}, contributions=tuple(row for row in report.contributions if row["kind"] != "gate")
    )


def check_dossier_gates(prepared: "Prepared") -> None:
    """A dossier that says of itself that a gate is not met refuses the study; what it does not say is left unassessed."""
    if prepared.dossier is None or not prepared.spec.gates:
        return
    rules = load_rules(prepared.spec.packs).at(prepared.flags, "release")
    facts = prepared.declared_facts
    broken = [r for r in rules if r.kind == "gate" and r.judge(facts)[1] == "fail"]
    if broken:
        raise InputError(
            "every gate that the dossier answers must be met, but {path} does not meet {id}, "
            "{title_en} ({article}): {evidence} is {value:g}; mend what it declares.",
            path=prepared.dossier.path,
            id=broken[0].id,
            title_en=broken[0].title_en,
            article=broken[0].article,
            evidence=broken[0].evidence[0],
            value=broken[0].value(facts),
        )


def declared(prepared: "Prepared") -> dict[str, Any]:
    """What the dossier says, as the annex needs it; empty without one."""
    if prepared.dossier is None:
        return {}
    return declaration(prepared.dossier, prepared.declared_facts, flags=prepared.flags)


def declaration(dossier: Dossier, facts: Mapping[str, float | None], *, flags: Collection[str]) -> dict[str, Any]:
    """What a dossier says, as a result keeps it.

    Args:
        dossier: The dossier.
        facts: What it comes to, by `declared_facts`.
        flags: Which rules apply to the study.
    """
    return {
        "digest": dossier.digest,
        "collection": [dict(item) for item in dossier.collection],
        "roles": [dict(role) for role in dossier.roles],
        "facts": dict(facts),
        "flags": sorted(flags),
    }
