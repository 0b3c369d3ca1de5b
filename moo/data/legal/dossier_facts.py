"""Facts that a dossier declares, for the gates that no training can change."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from typing import Any

from moo.data.legal.dossier import Dossier

# policy: the bounds that an impact assessment must hold
COVERED = ("target_epsilon", "masking_level")
# PIPL 56: years for which an impact assessment is kept
KEPT_YEARS = 3


def declared_facts(
    dossier: Dossier | None, *, as_of: date, space: Mapping[str, Sequence[float]] | None = None
) -> dict[str, float | None]:
    """Return the declared facts under `declared.*`: shortfalls in [0, 1] (the audit's age in days); None is unknown.

    Args:
        dossier: Dossier; None makes everything unknown.
        as_of: Day of the study: notices must be in force and the assessment dated by then.
        space: Bounds of the search; the assessment must cover those of `COVERED`. None needs no coverage.
    """
    facts: dict[str, float | None] = {
        "source_gap": _share(dossier, "source", ("sheet", "snapshot")),
        "notice_gap": _notices(dossier, as_of),
        "transfer_gap": _transfer(dossier),
        "processor_gap": _processors(dossier),
        "assessment_gap": _assessment(dossier, as_of, space or {}),
        "encryption_gap": _share(dossier, "encryption", ("attested_by", "dated")),
        "access_gap": _access(dossier),
        "audit_age_days": _audit(dossier, as_of),
        "option_gap": _option(dossier),
    }
    return {f"declared.{name}": value for name, value in facts.items()}


def _section(dossier: Dossier | None, name: str) -> Any:
    return None if dossier is None else dossier.tables.get(name)


def _share(dossier: Dossier | None, section: str, keys: Sequence[str]) -> float | None:
    """Return the share of the keys without a value."""
    found = _section(dossier, section)
    return None if found is None else _part(not found.get(key) for key in keys)


def _part(wrong: Iterable[bool]) -> float:
    """Return the share of True."""
    found = list(wrong)
    return sum(found) / len(found)


def _notices(dossier: Dossier | None, as_of: date) -> float | None:
    found = _section(dossier, "notice")
    if not found or dossier is None:
        return None
    return _part(not dossier.documented("notice", i) or n["in_force"] > as_of for i, n in enumerate(found))


def _transfer(dossier: Dossier | None) -> float | None:
    """Return the share of the places outside the data's region if no mechanism is named; None for an unnamed place."""
    found = _section(dossier, "transfer") or {}
    places = [found.get(name, "") for name in ("data", "compute", "trackers")]
    if not all(places):
        return None
    away = [place for place in places[1:] if place != places[0]]
    return 0.0 if found.get("mechanism") else len(away) / 2


def _processors(dossier: Dossier | None) -> float | None:
    if _section(dossier, "processors") == "none":
        return 0.0
    found = _section(dossier, "processor")
    return _part(not p.get("contract") for p in found) if found else None


def _assessment(dossier: Dossier | None, as_of: date, space: Mapping[str, Sequence[float]]) -> float | None:
    found = _section(dossier, "assessment")
    if found is None or dossier is None:
        return None
    dated, covers = found.get("dated"), found.get("covers", {})
    until = found.get("kept_until")
    inside = [
        n in covers and covers[n][0] <= low and high <= covers[n][1] for n, (low, high) in space.items() if n in COVERED
    ]
    met = (
        dossier.documented("assessment"),
        dated is not None and dated <= as_of,
        dated is not None and until is not None and until >= _years_later(dated),
        all(inside),
    )
    return _part(not one for one in met)


def _years_later(day: date) -> date:
    leap = day.month == 2 and day.day == 29
    return day.replace(year=day.year + KEPT_YEARS, day=28 if leap else day.day)


def _access(dossier: Dossier | None) -> float | None:
    """Return half for roles without permissions, plus half for a missing log."""
    roles, found = _section(dossier, "role"), _section(dossier, "access")
    if dossier is None or (roles is None and found is None):
        return None
    log = (found or {}).get("log", "")
    return (not roles or not all(r["may"] for r in roles)) / 2 + (
        not log or not (dossier.path.parent / log).is_file()
    ) / 2


def _audit(dossier: Dossier | None, as_of: date) -> float | None:
    dated = (_section(dossier, "audit") or {}).get("dated")
    return None if dated is None else float(max(0, (as_of - dated).days))


def _option(dossier: Dossier | None) -> float | None:
    found = (_section(dossier, "options") or {}).get("non_personal")
    return None if found is None else float(not found)
