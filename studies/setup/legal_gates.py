"""Gates that no trial can change, checked before any spending, and the dossier's part."""

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from moo.core.errors import InputError
from moo.core.messages import Message, joined
from moo.data.legal.declared import SIGNED
from moo.data.legal.dossier import Dossier
from moo.data.tables.columns import BASES
from moo.objectives.compliance import ComplianceReport
from moo.objectives.compliance.loader import load_rules
from moo.objectives.compliance.rule import Rule
from moo.studies.spec.study import StudySpec

if TYPE_CHECKING:
    from moo.studies.setup.prepared import PreparedStudy

NO_GATE = "no gate judged"
_ADD_COLUMNS = "Add the missing columns, or state them for the whole table in [declare]: {columns}."
_MEND = "Mend the data, or set consent_filter = true."
_NO_GATES = "With gates = false no gate is judged."
WANTED = {
    "basis": Message("the lawful basis, one of {bases}", bases=", ".join(BASES)),
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


def check_data_gates(prepared: "PreparedStudy") -> None:
    """Raise if a gate that no trial can change is unknown or not met.

    Raises:
        InputError: With the name of every such gate, and of every missing column.
    """
    spec = prepared.spec
    if not spec.gates:
        return
    facts = {**prepared.data.facts, "masking.level": float(spec.space.masking_level[1])}
    rules = [r for r in load_rules(spec.packs).at(prepared.context.flags, "trial") if r.kind == "gate" and _of_data(r)]
    verdicts = {r.id: (r, r.judge(facts)[1]) for r in rules}
    unmet = [_unmet(rule, verdict, facts) for rule, verdict in verdicts.values() if verdict != "pass"]
    if not unmet:
        return
    missing = [Message("{name} ({meaning})", name=name, meaning=WANTED[name]) for name in _missing(prepared, rules)]
    ways_out = [
        *([Message(_ADD_COLUMNS, columns=joined("; ", missing))] if missing else []),
        *([Message(_MEND)] if any(verdict == "fail" for _, verdict in verdicts.values()) else []),
        Message(_NO_GATES),
    ]
    raise InputError(
        "No trial can change these gates of {data}, and they are not met: {gates}. {ways_out}",
        data=spec.data,
        gates=joined(", ", unmet),
        ways_out=joined(" ", ways_out),
    )


def _of_data(rule: Rule) -> bool:
    """Return True for a rule that reads the table alone; the masking level may still excuse it."""
    return all(key.startswith("data.") for key in rule.evidence)


def _unmet(rule: Rule, verdict: str, facts: Mapping[str, float | None]) -> Message:
    """Return a gate with the reason why it is not met."""
    names = {"id": rule.id, "title_en": rule.title_en}
    if verdict == "not assessed":
        return Message("{id} {title_en} is unknown", **names)
    return Message("{id} {title_en} fails for {share:.1%} of the records", **names, share=rule.value(facts) or 0.0)


def _missing(prepared: "PreparedStudy", rules: Sequence[Rule]) -> list[str]:
    """Return the columns that rules read, that the table lacks, and that nobody declares."""
    from moo.data.legal.gates import RULES

    have = prepared.data.terms.filled(prepared.data.loaded.columns, len(prepared.data.loaded))
    needed = [c for rule in rules for key in rule.evidence for c in RULES.get(key.removeprefix("data."), ((), None))[0]]
    return [name for name in dict.fromkeys(needed) if name not in have]


def stated(spec: Mapping[str, Any]) -> str:
    """Return the declared facts, as "basis contract, purposes model_training"; "" for none.

    Args:
        spec: The specification as JSON.
    """
    facts = {name: value for name, value in spec.get("declare", {}).items() if name not in SIGNED}
    # names and values are those of the user's file, the same in every language
    return ", ".join(f"{name} {_plain(value)}" for name, value in facts.items())


def notes_of(spec: Mapping[str, Any]) -> list[str]:
    """Return what must stand beside a result.

    Gates that were not judged, and facts that are declared and not measured.
    """
    out: list[str] = []
    if not spec.get("gates", True):
        out.append(Message("No gate judged: the study sets gates = false; its penalty is judged as ever"))
    if facts := stated(spec):
        signed = spec["declare"]
        template = "Declared by {signer} on {day}, not measured: {facts}"
        out.append(Message(template, signer=signed["signer"], day=str(signed["date"]), facts=facts))
    return out


def _plain(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def without_gates(report: ComplianceReport, spec: StudySpec) -> ComplianceReport:
    """Return the report, without its gates if the study judges none."""
    if spec.gates:
        return report
    return dataclasses.replace(
        report, gates={}, contributions=tuple(row for row in report.contributions if row["kind"] != "gate")
    )


def check_dossier_gates(prepared: "PreparedStudy") -> None:
    """Raise if the dossier declares a gate as not met; others stay unassessed.

    Raises:
        InputError: With the first such gate.
    """
    if prepared.data.dossier is None or not prepared.spec.gates:
        return
    rules = load_rules(prepared.spec.packs).at(prepared.context.flags, "release")
    facts = prepared.data.declared
    broken = [r for r in rules if r.kind == "gate" and r.judge(facts)[1] == "fail"]
    if broken:
        raise InputError(
            "Every gate that the dossier answers must be met, but {path} does not meet {id}, "
            "{title_en} ({article}): {evidence} is {value:g}. Correct the dossier, or mend the shortfall.",
            path=prepared.data.dossier.path,
            id=broken[0].id,
            title_en=broken[0].title_en,
            article=broken[0].article,
            evidence=broken[0].evidence[0],
            value=broken[0].value(facts),
        )


def declared(prepared: "PreparedStudy") -> dict[str, Any]:
    """Return the declarations of the dossier for the annex; empty without one."""
    if prepared.data.dossier is None:
        return {}
    return declaration(prepared.data.dossier, prepared.data.declared, flags=prepared.context.flags)


def declaration(dossier: Dossier, facts: Mapping[str, float | None], *, flags: Collection[str]) -> dict[str, Any]:
    """Return the declarations of a dossier, as a result keeps them.

    Args:
        dossier: The dossier.
        facts: Facts that follow from it, by `declared_facts`.
        flags: Flags that switch rules on.
    """
    return {
        "digest": dossier.digest,
        "collection": [dict(item) for item in dossier.collection],
        "roles": [dict(role) for role in dossier.roles],
        "facts": dict(facts),
        "flags": sorted(flags),
    }
