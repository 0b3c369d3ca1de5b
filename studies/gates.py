"""Gates that no trial can change: what refuses a study before anything is spent, and what its dossier declares."""

from collections.abc import Collection, Mapping
from typing import Any

from moo.data.dossier import Dossier
from moo.errors import InputError
from moo.objectives.compliance.loader import load_rules
from moo.studies.prepare import Prepared


def refuse_broken_gates(prepared: Prepared) -> None:
    """Gates that the data alone decide refuse the study before anything is spent."""
    spec = prepared.spec
    broken = {
        k: v
        for k, v in prepared.data_facts.items()
        if k not in ("data.n_records", "data.n_units", "data.sensitive_without_consent")
        and (k != "data.illegal_tags" or "profiling" in prepared.flags)
        and v
    }
    if broken:
        worst = max(broken, key=lambda k: broken[k] or 0.0)
        raise InputError(
            f"every record must pass the legal gates, but {broken[worst]:.1%} of {spec.data} fail {worst}; "
            "set consent_filter = true, or mend the data."
        )


def refuse_broken_promises(prepared: Prepared) -> None:
    """A dossier that says of itself that a gate is not met refuses the study; what it does not say is left unassessed."""
    if prepared.dossier is None:
        return
    rules = load_rules(prepared.spec.packs).at(prepared.flags, "release")
    facts = prepared.declared_facts
    broken = [r for r in rules if r.kind == "gate" and r.judge(facts)[1] == "fail"]
    if broken:
        raise InputError(
            f"every gate that the dossier answers must be met, but {prepared.dossier.path} does not meet {broken[0].id}, "
            f"{broken[0].title_en} ({broken[0].article}): {broken[0].evidence[0]} is {broken[0].value(facts):g}; mend what it declares."
        )


def declared(prepared: Prepared) -> dict[str, Any]:
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
