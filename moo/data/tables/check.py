"""A table judged before any training, in one pass over its columns: a million rows in seconds."""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moo.core.errors import InputError
from moo.data.legal.declared import declared_columns
from moo.data.legal.gates import RULES, Terms, bases_without_law, breaches
from moo.data.records import Records
from moo.data.tables.columns import LAW_COLUMNS, SHOWN, Problem, sentence, typed_frame, untrue
from moo.data.tables.labels import counts_of, labels_of
from moo.data.tables.load import nothing_left, refuse_labels
from moo.data.tables.users import unmatched, users_of
from moo.tables import Batch, Reading, open_table
from moo.tables.clean import is_seen


@dataclass(frozen=True, kw_only=True)
class Breach:
    """Rows that break a rule, and where the first of them stand."""

    rows: int
    places: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class DataCheck:
    """What a table is before training.

    Attributes:
        path: The table.
        rows: In all.
        units: Different users; the rows themselves where no column names them.
        facts: Shares of rows that break each rule, as the gates read them; None where a column is missing.
        breaches: Rule -> rows.
        missing: Columns that the rules ask about and the table lacks.
        problems: Cells that are no input, each with file and line: unreadable, in the future, consent after use.
        dropped: Rows that the filter of a study would drop.
        withdrawn_units: Users with a row that is withdrawn.
        not_found: Listed users who have no row.
        expiring: Rows within their limit that will have passed it some days ahead.
        unlabelled: Rows that a study drops for want of a label.
        unlisted: Values of `basis` that name no lawful basis -> rows.
        stripped: Labels with blanks around them, which a study takes away.
    """

    path: Path
    rows: int
    units: int
    facts: Mapping[str, float | None]
    breaches: Mapping[str, Breach]
    missing: tuple[str, ...]
    problems: tuple[str, ...]
    dropped: int
    withdrawn_units: int
    not_found: int
    expiring: int
    unlabelled: int = 0
    unlisted: Mapping[str, int] = field(default_factory=dict)
    stripped: int = 0


@dataclass
class _Seen:
    """What a pass over the table adds up; rows are named by their line."""

    rows: int = 0
    kept: int = 0
    expiring: int = 0
    usable: int = 0
    unlabelled: int = 0
    stripped: int = 0
    labels: Counter[str] = field(default_factory=Counter)
    bases: Counter[str] = field(default_factory=Counter)
    units: set[str] = field(default_factory=set)
    withdrawn: set[str] = field(default_factory=set)
    counts: dict[str, int | None] = field(default_factory=dict)
    first: dict[str, list[int]] = field(default_factory=dict)
    problems: dict[str, tuple[int, list[int]]] = field(default_factory=dict)

    def add(self, name: str, mask: "np.ndarray[tuple[int], np.dtype[np.bool_]] | None", lines: NDArray[Any]) -> None:
        if mask is None:
            self.counts[name] = None
            return
        at = np.flatnonzero(mask)
        self.counts[name] = (self.counts.get(name) or 0) + len(at)
        first = self.first.setdefault(name, [])
        first.extend(map(int, lines[at[: SHOWN - len(first)]]))

    def note(self, problem: Problem, lines: NDArray[Any]) -> None:
        before, rows = self.problems.get(problem.text, (0, []))
        rows += map(int, lines[problem.rows[: SHOWN - len(rows)]])
        self.problems[problem.text] = (before + len(problem.rows), rows)


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """What a table is judged by, and under which names its columns are looked for."""

    terms: Terms
    text: str
    label: str
    user: str
    withdrawals: Collection[str]
    sensitive_rows: str
    days_ahead: int


def check_table(
    path: str | Path,
    terms: Terms,
    *,
    text: str = "",
    label: str = "",
    user: str = "",
    required: Collection[str] = ("text", "label", "user"),
    groups: Sequence[str] = (),
    withdrawals: Collection[str] = (),
    allow_unmatched: bool = False,
    sensitive_rows: str = "drop",
    days_ahead: int = 0,
    reading: Reading | None = None,
) -> DataCheck:
    """Judge a table as a study would, before any training.

    Args:
        path: CSV, Parquet or JSON Lines.
        terms: What records are judged by.
        text, label, user: Columns of the text, of its class and of the unit of privacy; an empty name is not looked at.
        required: Which of these three must be there if named; others are looked at where the table has them.
        groups: Columns of personal attributes.
        withdrawals: Users who have withdrawn.
        allow_unmatched: Whether listed users may lack a row.
        sensitive_rows: As in a study: "keep" leaves sensitive rows to masking.
        days_ahead: How far ahead retention is looked at.
        reading: How the file is read.

    Raises:
        InputError: If there is no such table, a column is missing, or a row breaks the file's rules (with its line).
    """
    if withdrawals and not user:
        raise InputError("withdrawals need the column of the user; name it with --user.")
    table = open_table(path, reading)
    named = {"text": text, "label": label, "user": user}
    needed = [*(name for role, name in named.items() if name and role in required), *groups]
    if table.columns:
        table.require(*needed)
    wanted = list(dict.fromkeys([*LAW_COLUMNS, *filter(None, named.values()), *groups]))
    while True:
        seen, known = _Seen(), table.columns
        for batch in table.batches(wanted):
            known = known or table.columns
            there = {role: name if name in known else "" for role, name in named.items()}
            asked = _Asked(
                **there, terms=terms, withdrawals=withdrawals, sensitive_rows=sensitive_rows, days_ahead=days_ahead
            )
            _look(batch, seen, asked, [name for name in LAW_COLUMNS if name in known])
        if known == table.columns:
            break  # else a later line of JSON has brought a column, which is empty in the rows before: look again
    if not seen.rows:
        raise InputError("data must hold at least one record, but got none in {path}.", path=table.path)
    table.require(*needed)
    n_absent, refusal = unmatched(withdrawals, seen.units, table.path, allowed=allow_unmatched)
    refusals = [refusal, refuse_labels(seen.labels, label, table.path)]
    refusals += [nothing_left(text, label, table.path) if not seen.usable else ""]
    have = {*table.columns, *(["withdrawn"] if withdrawals else [])}
    return _done(
        table.path, seen, terms, have=have, not_found=n_absent, place=table.place, refusals=[r for r in refusals if r]
    )


def check_records(records: Records, terms: Terms, *, sensitive_rows: str = "drop") -> DataCheck:
    """Judge records that are loaded already; they are named by their number."""
    seen, numbers = _Seen(), np.arange(1, len(records) + 1)
    _judge(dict(records.columns), [], seen, terms, sensitive_rows, lines=numbers)
    seen.rows = len(records)
    seen.units.update(records.unit_ids)
    source = Path(records.name)
    return _done(source, seen, terms, have=set(records.columns), place=lambda number: f"{source}, record {number}")


def _done(
    source: Path,
    seen: _Seen,
    terms: Terms,
    *,
    have: set[str],
    place: Callable[[int], str],
    not_found: int = 0,
    refusals: Sequence[str] = (),
) -> DataCheck:
    asked = {c for needed, _ in RULES.values() for c in needed} - ({"tags"} if terms.legal_tags is None else set())
    problems = sorted(seen.problems.items(), key=lambda item: item[1][1][0])
    return DataCheck(
        path=source,
        rows=seen.rows,
        units=len(seen.units) or seen.rows,
        facts={f"data.{k}": None if n is None else n / seen.rows for k, n in seen.counts.items()},
        breaches={k: Breach(rows=n, places=tuple(map(place, seen.first[k]))) for k, n in seen.counts.items() if n},
        missing=tuple(sorted(asked - have - declared_columns(terms.declared, 0).keys())),
        unlisted=dict(seen.bases.most_common()),
        problems=(
            *(sentence(text, [place(line) for line in lines], count) for text, (count, lines) in problems),
            *refusals,
        ),
        dropped=seen.rows - seen.kept,
        withdrawn_units=len(seen.withdrawn) or (seen.counts.get("withdrawn") or 0 if not seen.units else 0),
        not_found=not_found,
        expiring=seen.expiring,
        unlabelled=seen.unlabelled,
        stripped=seen.stripped,
    )


def _look(batch: Batch, seen: _Seen, asked: _Asked, law: Sequence[str]) -> None:
    """Add one batch, judged, to what was seen."""
    frame = batch.frame()
    columns, problems = typed_frame(frame[list(law)])
    _add_usable(batch, seen, asked)
    if asked.user:
        owners, lost = users_of(frame[asked.user])
        problems += lost
        seen.units |= {*owners.unique()} - {""}
        if asked.withdrawals:
            listed = owners.isin(asked.withdrawals).to_numpy(dtype=bool)
            columns["withdrawn"] = listed | columns.get("withdrawn", np.zeros(len(frame), dtype=bool))
        if "withdrawn" in columns:
            seen.withdrawn.update(owners[columns["withdrawn"]].unique())
    _judge(columns, problems, seen, asked.terms, asked.sensitive_rows, lines=batch.lines)
    seen.rows += len(frame)
    if asked.days_ahead:
        later = replace(asked.terms, as_of=asked.terms.as_of + timedelta(days=asked.days_ahead))
        now, then = (breaches(t.filled(columns, len(frame)), t)["over_retention"] for t in (asked.terms, later))
        seen.expiring += int((then & ~now).sum()) if now is not None and then is not None else 0


def _add_usable(batch: Batch, seen: _Seen, asked: _Asked) -> None:
    """Count the rows with a text and a label, and the labels of all rows that have one."""
    usable = np.ones(len(batch.lines), dtype=bool)
    if asked.text:
        usable &= is_seen(batch.cells[asked.text]).to_numpy(zero_copy_only=False)
    if asked.label:
        labels, changed = labels_of(batch.cells[asked.label].to_pandas())
        there = (labels != "").to_numpy(dtype=bool)
        seen.unlabelled += int((~there).sum())
        seen.stripped += int(changed.sum())
        usable &= there
        seen.labels.update(counts_of(labels[usable]))
    seen.usable += int(usable.sum())


def _judge(
    columns: Mapping[str, NDArray[Any]],
    problems: list[Problem],
    seen: _Seen,
    terms: Terms,
    sensitive_rows: str,
    *,
    lines: NDArray[Any],
) -> None:
    """Add breaches and problems of one batch to what was seen."""
    columns = terms.filled(columns, len(lines))
    seen.bases.update(bases_without_law(columns))
    found = breaches(columns, terms)
    keep = np.ones(len(lines), dtype=bool)
    for name, mask in found.items():
        seen.add(name, mask, lines)
        if mask is not None and not (name == "sensitive_without_consent" and sensitive_rows == "keep"):
            keep &= ~mask
    late = found["consent_after_use"]
    if late is not None and late.any():
        empty = np.isnat(columns["consented"]) | np.isnat(columns["used_from"])
        late = late & ~empty  # an empty date breaks the gate; it is no contradiction
        if late.any():
            problems.append(Problem(text="consent not after use must hold", rows=np.flatnonzero(late)))
    for problem in [*problems, *untrue(columns, terms.as_of)]:
        seen.note(problem, lines)
    seen.kept += int(keep.sum())
