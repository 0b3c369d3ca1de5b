"""What the law asks of the data before training: measured for the gates, and the filter that keeps only what passes.

Columns, each of shape (n,), all optional; a missing one makes its fact unknown (None), never zero:

    basis               "consent", "contract", ... or "" where there is none       PIPL 13
    consented           date of the consent                                         PIPL 13, 14
    used_from           date from which the record is used for training             PIPL 14
    purposes            consented purposes, separated by spaces                     PIPL 6, 14
    withdrawn           True where consent was withdrawn or deletion asked for      PIPL 15, 47
    storage_only        True where the row is kept for the three-year duty alone    PIPL 47, E-Commerce Law 31
    collected           date of collection; retention_days: declared limit          PIPL 19
    sensitive           True where the text holds sensitive personal information    PIPL 28
    sensitive_consent   True where there is separate consent for that               PIPL 29
    birth_year          year; guardian_consent: True where a guardian agreed        PIPL 31
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moo.data.schema import Records
from moo.errors import InputError
from moo.records import Transformation

Bools = NDArray[np.bool_]
Columns = Mapping[str, NDArray[Any]]
ADULT_FOR_LAW = 14  # PIPL 31: below fourteen a guardian's consent is needed


def _after_use(c: Columns, purpose: str, as_of: np.datetime64) -> Bools:  # noqa: ARG001
    out: Bools = (c["basis"] == "consent") & (c["consented"] > c["used_from"])
    return out


def _other_purpose(c: Columns, purpose: str, as_of: np.datetime64) -> Bools:  # noqa: ARG001
    return np.array([purpose not in str(p).split() for p in c["purposes"]], dtype=bool)


def _over_retention(c: Columns, purpose: str, as_of: np.datetime64) -> Bools:  # noqa: ARG001
    out: Bools = (as_of - c["collected"]).astype(int) > c["retention_days"]
    return out


def _minor(c: Columns, purpose: str, as_of: np.datetime64) -> Bools:  # noqa: ARG001
    year = int(str(as_of)[:4])
    out: Bools = (year - c["birth_year"] <= ADULT_FOR_LAW) & ~c["guardian_consent"].astype(bool)
    return out


Rule = tuple[tuple[str, ...], Callable[[Columns, str, np.datetime64], Bools]]
RULES: dict[str, Rule] = {
    "no_lawful_basis": (("basis",), lambda c, _p, _t: c["basis"] == ""),
    "consent_after_use": (("basis", "consented", "used_from"), _after_use),
    "purpose_mismatch": (("purposes",), _other_purpose),
    "withdrawn": (("withdrawn",), lambda c, _p, _t: c["withdrawn"].astype(bool)),
    "storage_only": (("storage_only",), lambda c, _p, _t: c["storage_only"].astype(bool)),
    "over_retention": (("collected", "retention_days"), _over_retention),
    "sensitive_without_consent": (
        ("sensitive", "sensitive_consent"),
        lambda c, _p, _t: c["sensitive"].astype(bool) & ~c["sensitive_consent"].astype(bool),
    ),
    "minors_without_guardian": (("birth_year", "guardian_consent"), _minor),
}


@dataclass(frozen=True, kw_only=True)
class PreparationReport:
    """What the filter did: `dropped` counts records by the first rule that they failed."""

    before: int
    after: int
    dropped: Mapping[str, int]


def breaches(records: Records, *, purpose: str, as_of: date) -> dict[str, Bools | None]:
    """Rule -> shape (n,) mask of the records that break it; None where a column is missing."""
    now = np.datetime64(as_of, "D")
    out: dict[str, Bools | None] = {}
    for name, (needed, rule) in RULES.items():
        known = all(column in records.columns for column in needed)
        out[name] = rule(records.columns, purpose, now) if known else None
    return out


def data_facts(records: Records, *, purpose: str, as_of: date) -> dict[str, float | None]:
    """Shares of records that break each rule, in [0, 1], under the names `data.<rule>`; None is "unknown"."""
    found = breaches(records, purpose=purpose, as_of=as_of)
    facts: dict[str, float | None] = {"data.n_records": len(records), "data.n_units": records.n_units}
    return facts | {f"data.{name}": None if mask is None else float(mask.mean()) for name, mask in found.items()}


def consent_filter(
    records: Records, *, purpose: str, as_of: date, sensitive_rows: str = "drop"
) -> tuple[Records, PreparationReport]:
    """Keep the records that break no rule. Each record is judged by its own columns alone.

    Args:
        records: n records.
        purpose: Why they are used.
        as_of: The day at which retention and age are judged.
        sensitive_rows: "keep" leaves sensitive records without separate consent in: then masking must cover them.

    Raises:
        InputError: If nothing is left.
    """
    found = breaches(records, purpose=purpose, as_of=as_of)
    keep = np.ones(len(records), dtype=bool)
    dropped: dict[str, int] = {}
    for name, mask in found.items():
        if mask is None or (name == "sensitive_without_consent" and sensitive_rows == "keep"):
            continue
        dropped[name] = int((mask & keep).sum())
        keep &= ~mask
    if not keep.any():
        raise InputError(
            f"some records must pass the consent filter, but all {len(records)} of {records.name} fail it."
        )
    step = Transformation(
        name="consent_filter",
        scope="record",
        detail=f"{int(keep.sum())} of {len(records)} records kept for {purpose} as of {as_of}",
    )
    report = PreparationReport(before=len(records), after=int(keep.sum()), dropped=dropped)
    return records.take(keep, step), report
