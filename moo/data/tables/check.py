"""Check of a table before any training, in one pass over its columns: a million rows in seconds."""

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
from moo.data.tables.columns import LAW_COLUMNS, SHOWN, Problem, future_dates, sentence, typed_frame
from moo.data.tables.labels import counts_of, labels_of
from moo.data.tables.load import empty_refusal, label_refusal
from moo.data.tables.users import unmatched, users_of
from moo.tables import Batch, Reading, Table, open_table
from moo.tables.clean import is_seen


@dataclass(frozen=True, kw_only=True)
class Breach:
    """Number of rows that break a rule, and the places of the first of them as file:line."""

    rows: int
    places: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class DataCheck:
    """Findings in a table before training.

    Attributes:
        path: Path of the table.
        rows: Rows in all.
        units: Different users; the rows if no column names users.
        facts: Shares of rows that break each rule, in [0, 1], as the gates read them; None without a needed column.
        breaches: Rule -> rows that break it.
        missing: Columns that the rules need and the table lacks.
        problems: Sentences on unusable cells, with file and line: unreadable, in the future, consent after use.
        dropped: Rows that the filter of a study would drop.
        withdrawn_units: Users with a withdrawn row.
        not_found: Listed users without a row.
        expiring: Rows within their limit that will have passed it some days ahead.
        unlabelled: Rows that a study drops because they have no label.
        unlisted: Values of `basis` that name no lawful basis -> rows.
        stripped: Labels with blanks around them, which a study removes.
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
class _Totals:
    """Sums of a pass over the table; rows are named by their line."""

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
class _Request:
    """Terms of the judgement, and the names of the columns."""

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
        path: File in CSV, Parquet or JSON Lines.
        terms: Terms that the records are judged by.
        text, label, user: Columns of the text, of its class and of the unit of privacy; an empty name is skipped.
        required: Those of the three that must be there if named; others are read if the table has them.
        groups: Columns of personal attributes.
        withdrawals: Users who have withdrawn.
        allow_unmatched: True if listed users may lack a row.
        sensitive_rows: "drop", or "keep" to leave sensitive rows to masking, as in a study.
        days_ahead: Days for which retention is judged ahead; 0 skips this.
        reading: Encoding, separator and empty values of the file.

    Raises:
        InputError: If the table or a column is missing, or a row is malformed (with its line).
    """
    if withdrawals and not user:
        raise InputError("user must name the column of the user for withdrawals, but it is empty; name it with --user.")
    table = open_table(path, reading)
    named = {"text": text, "label": label, "user": user}
    needed = [*(name for role, name in named.items() if name and role in required), *groups]
    if table.columns:
        table.require(*needed)
    request = _Request(
        **named, terms=terms, withdrawals=withdrawals, sensitive_rows=sensitive_rows, days_ahead=days_ahead
    )
    totals = _pass_over(table, request, groups)
    if not totals.rows:
        raise InputError("data must hold at least one record, got none in {path}; check the file.", path=table.path)
    table.require(*needed)
    n_absent, refusal = unmatched(withdrawals, totals.units, table.path, allowed=allow_unmatched)
    refusals = [refusal, label_refusal(totals.labels, label, table.path)]
    refusals += [empty_refusal(text, label, table.path) if not totals.usable else ""]
    have = {*table.columns, *(["withdrawn"] if withdrawals else [])}
    return _result(
        table.path, totals, terms, have=have, not_found=n_absent, place=table.place, refusals=[r for r in refusals if r]
    )


def _pass_over(table: Table, request: _Request, groups: Sequence[str]) -> _Totals:
    """Return the sums over all batches; a column that the table lacks is skipped."""
    named = {"text": request.text, "label": request.label, "user": request.user}
    wanted = list(dict.fromkeys([*LAW_COLUMNS, *filter(None, named.values()), *groups]))
    while True:
        totals, known = _Totals(), table.columns
        for batch in table.batches(wanted):
            known = known or table.columns
            present = {role: name if name in known else "" for role, name in named.items()}
            law = [name for name in LAW_COLUMNS if name in known]
            _add_batch(
                batch, totals, replace(request, text=present["text"], label=present["label"], user=present["user"]), law
            )
        # else a later line of JSON has brought a column, which is empty in the rows before: start over
        if known == table.columns:
            return totals


def check_records(records: Records, terms: Terms, *, sensitive_rows: str = "drop") -> DataCheck:
    """Judge loaded records, named by their number.

    Args:
        records: Records with the columns of the law.
        terms: Terms that they are judged by.
        sensitive_rows: "drop", or "keep" to leave sensitive rows to masking.
    """
    totals, numbers = _Totals(), np.arange(1, len(records) + 1)
    _judge(dict(records.columns), [], totals, terms, sensitive_rows, lines=numbers)
    totals.rows = len(records)
    totals.units.update(records.unit_ids)
    source = Path(records.name)
    return _result(source, totals, terms, have=set(records.columns), place=lambda number: f"{source}, record {number}")


def _result(
    source: Path,
    totals: _Totals,
    terms: Terms,
    *,
    have: set[str],
    place: Callable[[int], str],
    not_found: int = 0,
    refusals: Sequence[str] = (),
) -> DataCheck:
    needed = {c for columns, _ in RULES.values() for c in columns} - ({"tags"} if terms.legal_tags is None else set())
    problems = sorted(totals.problems.items(), key=lambda item: item[1][1][0])
    return DataCheck(
        path=source,
        rows=totals.rows,
        units=len(totals.units) or totals.rows,
        facts={f"data.{k}": None if n is None else n / totals.rows for k, n in totals.counts.items()},
        breaches={k: Breach(rows=n, places=tuple(map(place, totals.first[k]))) for k, n in totals.counts.items() if n},
        missing=tuple(sorted(needed - have - declared_columns(terms.declared, 0).keys())),
        unlisted=dict(totals.bases.most_common()),
        problems=(
            *(sentence(text, [place(line) for line in lines], count) for text, (count, lines) in problems),
            *refusals,
        ),
        dropped=totals.rows - totals.kept,
        withdrawn_units=len(totals.withdrawn) or (totals.counts.get("withdrawn") or 0 if not totals.units else 0),
        not_found=not_found,
        expiring=totals.expiring,
        unlabelled=totals.unlabelled,
        stripped=totals.stripped,
    )


def _add_batch(batch: Batch, totals: _Totals, request: _Request, law: Sequence[str]) -> None:
    """Judge one batch and add it to the totals."""
    frame = batch.frame()
    columns, problems = typed_frame(frame[list(law)])
    _add_usable(batch, totals, request)
    if request.user:
        owners, lost = users_of(frame[request.user])
        problems += lost
        totals.units |= {*owners.unique()} - {""}
        if request.withdrawals:
            listed = owners.isin(request.withdrawals).to_numpy(dtype=bool)
            columns["withdrawn"] = listed | columns.get("withdrawn", np.zeros(len(frame), dtype=bool))
        if "withdrawn" in columns:
            totals.withdrawn.update(owners[columns["withdrawn"]].unique())
    _judge(columns, problems, totals, request.terms, request.sensitive_rows, lines=batch.lines)
    totals.rows += len(frame)
    if request.days_ahead:
        later = replace(request.terms, as_of=request.terms.as_of + timedelta(days=request.days_ahead))
        now, then = (breaches(t.filled(columns, len(frame)), t)["over_retention"] for t in (request.terms, later))
        totals.expiring += int((then & ~now).sum()) if now is not None and then is not None else 0


def _add_usable(batch: Batch, totals: _Totals, request: _Request) -> None:
    """Count the rows with a text and a label, and the labels of all rows that have one."""
    usable = np.ones(len(batch.lines), dtype=bool)
    if request.text:
        usable &= is_seen(batch.cells[request.text]).to_numpy(zero_copy_only=False)
    if request.label:
        labels, changed = labels_of(batch.cells[request.label].to_pandas())
        there = (labels != "").to_numpy(dtype=bool)
        totals.unlabelled += int((~there).sum())
        totals.stripped += int(changed.sum())
        usable &= there
        totals.labels.update(counts_of(labels[usable]))
    totals.usable += int(usable.sum())


def _judge(
    columns: Mapping[str, NDArray[Any]],
    problems: list[Problem],
    totals: _Totals,
    terms: Terms,
    sensitive_rows: str,
    *,
    lines: NDArray[Any],
) -> None:
    """Add breaches and problems of one batch to the totals."""
    columns = terms.filled(columns, len(lines))
    totals.bases.update(bases_without_law(columns))
    masks = breaches(columns, terms)
    keep = np.ones(len(lines), dtype=bool)
    for name, mask in masks.items():
        totals.add(name, mask, lines)
        if mask is not None and not (name == "sensitive_without_consent" and sensitive_rows == "keep"):
            keep &= ~mask
    late = masks["consent_after_use"]
    if late is not None and late.any():
        empty = np.isnat(columns["consented"]) | np.isnat(columns["used_from"])
        # an empty date breaks the gate, but it is no contradiction
        late = late & ~empty
        if late.any():
            problems.append(Problem(text="consented must not be after used_from", rows=np.flatnonzero(late)))
    for problem in [*problems, *future_dates(columns, terms.as_of)]:
        totals.note(problem, lines)
    totals.kept += int(keep.sum())
