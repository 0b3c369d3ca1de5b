"""Legal rules of the data before training: their measurement for the gates, and the filter of the rows that pass.

Columns, each of shape (n,), all optional; a missing one makes its fact unknown (None), never zero:

    basis               one of `moo.data.tables.columns.BASES`; anything else is none     PIPL 13, GDPR 6
    consented           date of the consent                                         PIPL 13, 14
    used_from           date from which the record is used for training             PIPL 14
    purposes            consented purposes, separated by spaces                     PIPL 6, 14
    withdrawn           True where consent was withdrawn or deletion asked for      PIPL 15, 47
    storage_only        True where the row is kept for the three-year duty alone    PIPL 47, E-Commerce Law 31
    collected           date of collection; retention_days: declared limit          PIPL 19
    sensitive           True where the text holds sensitive personal information    PIPL 28
    sensitive_consent   True where there is separate consent for that               PIPL 29
    birth_year          year; guardian_consent: True where a guardian agreed        PIPL 31
    notice_version      that the customer consented to; read where a dossier names the purposes of each      PIPL 14, 17
    tags                profile tags, separated by spaces; read where a dossier names the legal set

An empty cell counts against its record: no consent, no date, withdrawn, sensitive, not known to be of age.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from moo.core.errors import InputError
from moo.core.messages import Message, joined
from moo.data.legal.declared import declared_columns
from moo.data.legal.dossier import Dossier
from moo.data.records import Records
from moo.data.scopes import Preparation
from moo.data.tables.columns import BASES, LAW_COLUMNS, basis_of

Bools = NDArray[np.bool_]
Columns = Mapping[str, NDArray[Any]]
ADULT_FOR_LAW = 14  # PIPL 31: below fourteen a guardian's consent is needed


@dataclass(frozen=True, kw_only=True)
class Terms:
    """Terms of the judgement of records, in addition to their columns.

    Attributes:
        purpose: Purpose of the use.
        as_of: Day at which retention and age are judged.
        notices: Version of the notice -> purposes that it names; empty if no dossier names them.
        legal_tags: Legal set of profile tags; None if none is declared.
        declared: Facts of all records that a person declares; see `moo.data.legal.declared`.
    """

    purpose: str
    as_of: date
    notices: Mapping[str, frozenset[str]] = field(default_factory=dict)
    legal_tags: frozenset[str] | None = None
    declared: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls, dossier: Dossier | None, *, purpose: str, as_of: date, declared: Mapping[str, Any] | None = None
    ) -> "Terms":
        bare = cls(purpose=purpose, as_of=as_of, declared=declared or {})
        if dossier is None:
            return bare
        return replace(bare, notices=dossier.purposes_by_notice, legal_tags=dossier.legal_tags)

    def filled(self, columns: Columns, n: int) -> dict[str, NDArray[Any]]:
        """Return the columns of n records with the declared ones.

        Raises:
            InputError: If a column is both there and declared.
        """
        both = [name for name in LAW_COLUMNS if name in columns and name in self.declared]
        if both:
            raise InputError(
                "[declare] must name columns that the table lacks, but the table has {column!r}; leave it out of "
                "[declare].",
                column=both[0],
            )
        return {**declared_columns(self.declared, n), **columns}


# Comparisons with an empty date or number are false, so each rule tests the lawful case and negates the answer.


def _no_basis(c: Columns, _: Terms) -> Bools:
    return _any_of(c["basis"], lambda basis: basis_of(basis) not in BASES)


def bases_without_law(columns: Columns) -> Counter[str]:
    """Return cell of `basis` without a lawful basis -> rows."""
    named = Counter(map(str, columns.get("basis", ())))
    return Counter({name: n for name, n in named.items() if name and basis_of(name) not in BASES})


def _after_use(c: Columns, _: Terms) -> Bools:
    out: Bools = _any_of(c["basis"], lambda basis: basis_of(basis) == "consent") & ~(c["consented"] <= c["used_from"])
    return out


def _other_purpose(c: Columns, terms: Terms) -> Bools:
    if terms.notices and "notice_version" in c:
        named = {version for version, purposes in terms.notices.items() if terms.purpose in purposes}
        return _any_of(c["purposes"], lambda p: terms.purpose not in p.split()) | _any_of(
            c["notice_version"], lambda v: v not in named
        )
    return _any_of(c["purposes"], lambda p: terms.purpose not in p.split())


def _any_of(values: NDArray[Any], wrong: Callable[[str], bool]) -> Bools:
    """Return the answers of a test of texts; each different text is tested once."""
    codes, unique = pd.factorize(values.astype(object), use_na_sentinel=False)
    out: Bools = np.array([wrong("" if pd.isna(u) else str(u)) for u in unique], dtype=bool)[codes]
    return out


def _over_retention(c: Columns, terms: Terms) -> Bools:
    age = np.datetime64(terms.as_of, "D") - c["collected"]
    out: Bools = ~(age <= c["retention_days"].astype("timedelta64[D]"))
    return out


def _minor(c: Columns, terms: Terms) -> Bools:
    of_age = terms.as_of.year - c["birth_year"] > ADULT_FOR_LAW
    out: Bools = ~of_age & ~c["guardian_consent"].astype(bool)
    return out


def _sensitive(c: Columns, _: Terms) -> Bools:
    out: Bools = c["sensitive"].astype(bool) & ~c["sensitive_consent"].astype(bool)
    return out


def _illegal_tags(c: Columns, terms: Terms) -> Bools:
    legal = terms.legal_tags or frozenset()
    return _any_of(c["tags"], lambda tags: not legal.issuperset(tags.split()))


Rule = tuple[tuple[str, ...], Callable[[Columns, Terms], Bools]]
RULES: dict[str, Rule] = {
    "no_lawful_basis": (("basis",), _no_basis),
    "consent_after_use": (("basis", "consented", "used_from"), _after_use),
    "purpose_mismatch": (("purposes",), _other_purpose),
    "withdrawn": (("withdrawn",), lambda c, _: c["withdrawn"].astype(bool)),
    "storage_only": (("storage_only",), lambda c, _: c["storage_only"].astype(bool)),
    "over_retention": (("collected", "retention_days"), _over_retention),
    "sensitive_without_consent": (("sensitive", "sensitive_consent"), _sensitive),
    "minors_without_guardian": (("birth_year", "guardian_consent"), _minor),
    "illegal_tags": (("tags",), _illegal_tags),
}
OPTIONAL = ("notice_version",)


@dataclass(frozen=True, kw_only=True)
class PreparationReport:
    """Result of the filter: `dropped` counts records by the first rule that they failed."""

    before: int
    after: int
    dropped: Mapping[str, int]


def breaches(columns: Columns, terms: Terms) -> dict[str, Bools | None]:
    """Return rule -> mask (n,) of the records that break it; None without a column or the legal set of tags."""
    out: dict[str, Bools | None] = {}
    for name, (needed, rule) in RULES.items():
        known = all(column in columns for column in needed)
        known &= name != "illegal_tags" or terms.legal_tags is not None
        out[name] = rule(columns, terms) if known else None
    return out


def data_facts(records: Records, terms: Terms) -> dict[str, float | None]:
    """Return the shares of records that break each rule, in [0, 1], under `data.<rule>`; None is "unknown"."""
    masks = breaches(terms.filled(records.columns, len(records)), terms)
    facts: dict[str, float | None] = {"data.n_records": len(records), "data.n_units": records.n_units}
    return facts | {f"data.{name}": None if mask is None else float(mask.mean()) for name, mask in masks.items()}


def consent_filter(
    records: Records, terms: Terms, *, sensitive_rows: str = "drop"
) -> tuple[Records, PreparationReport]:
    """Return the records that break no rule, with their classes. Each record is judged by its own columns alone.

    Args:
        records: Records, n of them.
        terms: Terms that they are judged by.
        sensitive_rows: "drop", or "keep" for sensitive records without separate consent: masking must then cover them.

    Returns:
        The kept records, and the counts of the dropped ones.

    Raises:
        InputError: If no record is left, or one class.
    """
    found = breaches(terms.filled(records.columns, len(records)), terms)
    keep = np.ones(len(records), dtype=bool)
    dropped: dict[str, int] = {}
    for name, mask in found.items():
        if mask is None or (name == "sensitive_without_consent" and sensitive_rows == "keep"):
            continue
        dropped[name] = int((mask & keep).sum())
        keep &= ~mask
    _check_kept(records, keep, dropped, terms)

    def lawful(rows: pd.DataFrame) -> pd.DataFrame:
        at = rows["row"].to_numpy()
        broken = breaches({name: column[at] for name, column in records.columns.items()}, terms)
        kept = np.ones(len(at), dtype=bool)
        for mask in (broken[name] for name in dropped):
            kept &= ~mask if mask is not None else True
        return rows[kept]

    at = np.arange(len(records))
    prepared = Preparation(pd.DataFrame({"row": at}), pd.Series(records.units))
    prepared.step(
        "consent_filter",
        lawful,
        scope="record",
        detail=Message(
            "{n} of {total} records kept for {purpose} as of {day}",
            n=int(keep.sum()),
            total=len(records),
            purpose=terms.purpose,
            day=str(terms.as_of),
        ),
        why="a record that fails a legal gate is not trained on",
    )
    kept = records.take(prepared.rows["row"].to_numpy(), *prepared.steps)
    report = PreparationReport(before=len(records), after=len(kept), dropped=dropped)
    return kept.only_held_classes(), report


def _check_kept(records: Records, keep: Bools, dropped: Mapping[str, int], terms: Terms) -> None:
    """Raise if the filter leaves no record, or one class of several."""
    unlisted = bases_without_law(records.columns)
    no_basis: str = ""
    if unlisted:
        no_basis = Message(
            "; no lawful basis: {cells}, choose from {bases}",
            cells=joined(", ", map(repr, unlisted)),
            bases=joined(", ", BASES),
        )
    judged = Message(
        "for {purpose} as of {as_of} ({dropped}{no_basis}); see the columns, or name another purpose or as_of.",
        purpose=terms.purpose,
        as_of=str(terms.as_of),
        dropped=_dropped_counts(dropped),
        no_basis=no_basis,
    )
    if not keep.any():
        raise InputError(
            "Some records must pass the consent filter, but all {n_records} of {name} fail it, {judged}",
            n_records=len(records),
            name=records.name,
            judged=judged,
        )
    left = np.unique(records.labels[keep])
    if len(left) < 2 <= len(records.classes):
        raise InputError(
            "Records of at least two classes must pass the consent filter, but each of the {n_kept} of "
            "{n_records} of {name} that pass is {label!r}, {judged}",
            n_kept=int(keep.sum()),
            n_records=len(records),
            name=records.name,
            label=records.classes[int(left[0])],
            judged=judged,
        )


def _dropped_counts(dropped: Mapping[str, int]) -> Message:
    return joined(", ", (Message("{rule} {n}", rule=name.replace("_", " "), n=n) for name, n in dropped.items() if n))
