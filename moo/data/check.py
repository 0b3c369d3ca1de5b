"""A table judged before any training, in one pass over its columns and without its texts: a million rows in seconds."""

import csv
import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from numpy.typing import NDArray

from moo.data.columns import LAW_COLUMNS, Problem, places, typed_frame, untrue, users_of
from moo.data.prepare import RULES, Terms, breaches
from moo.data.schema import Records
from moo.errors import InputError

SHOWN = 3  # rows named for each breach and each problem
_BLOCK = 16 << 20  # bytes of CSV read at a time
_ROWS = 100_000  # rows of the other formats


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


@dataclass
class _Seen:
    """What a pass over the table adds up."""

    rows: int = 0
    kept: int = 0
    expiring: int = 0
    units: set[str] = field(default_factory=set)
    withdrawn: set[str] = field(default_factory=set)
    counts: dict[str, int | None] = field(default_factory=dict)
    first: dict[str, list[int]] = field(default_factory=dict)
    problems: dict[str, tuple[int, list[int]]] = field(default_factory=dict)

    def add(self, name: str, mask: "np.ndarray[tuple[int], np.dtype[np.bool_]] | None") -> None:
        if mask is None:
            self.counts[name] = None
            return
        at = np.flatnonzero(mask)
        self.counts[name] = (self.counts.get(name) or 0) + len(at)
        self.first.setdefault(name, []).extend(int(i) + self.rows for i in at[: SHOWN - len(self.first.get(name, []))])

    def note(self, problem: Problem) -> None:
        before, rows = self.problems.get(problem.text, (0, []))
        rows += [int(i) + self.rows for i in problem.rows[: SHOWN - len(rows)]]
        self.problems[problem.text] = (before + len(problem.rows), rows)


def check_table(
    path: str | Path,
    terms: Terms,
    *,
    user: str = "",
    withdrawals: Collection[str] = (),
    sensitive_rows: str = "drop",
    days_ahead: int = 0,
) -> DataCheck:
    """Judge a table as a study would, before any training.

    Args:
        path: CSV (UTF-8), Parquet or JSON Lines.
        terms: What records are judged by.
        user: Column of the unit of privacy.
        withdrawals: Users who have withdrawn.
        sensitive_rows: As in a study: "keep" leaves sensitive rows to masking.
        days_ahead: How far ahead retention is looked at.

    Raises:
        InputError: If there is no such table, or it cannot be read (with the line, where there is one).
    """
    source, seen = Path(path), _Seen()
    header = header_of(source)
    if user and user not in header:
        raise InputError(f"column {user!r} must be in {source}, but it has {header}.")
    if withdrawals and not user:
        raise InputError("withdrawals need the column of the user; name it with --user.")
    asked: list[str] = [*LAW_COLUMNS, user]
    wanted = [name for name in dict.fromkeys(asked) if name and name in header]
    later = replace(terms, as_of=terms.as_of + timedelta(days=days_ahead))
    for frame in read_columns(source, wanted or header[:1]):
        columns = _look(frame, seen, terms, user, withdrawals, sensitive_rows)
        if days_ahead:
            now, then = (breaches(columns, t)["over_retention"] for t in (terms, later))
            seen.expiring += int((then & ~now).sum()) if now is not None and then is not None else 0
    if not seen.rows:
        raise InputError(f"data must hold at least one record, but got none in {source}.")
    have = {*header, *(["withdrawn"] if withdrawals else [])}
    return _done(source, seen, terms, have=have, not_found=len(set(withdrawals) - seen.units))


def check_records(records: Records, terms: Terms, *, sensitive_rows: str = "drop") -> DataCheck:
    """The same of records that are loaded already; they are named by their number."""
    seen = _Seen()
    _judge(dict(records.columns), [], seen, terms, sensitive_rows, rows=len(records))
    seen.rows = len(records)
    seen.units.update(records.unit_ids)
    return _done(Path(records.name), seen, terms, have=set(records.columns), lines=False)


def _done(
    source: Path, seen: _Seen, terms: Terms, *, have: set[str], lines: bool = True, not_found: int = 0
) -> DataCheck:
    asked = {c for needed, _ in RULES.values() for c in needed} - ({"tags"} if terms.legal_tags is None else set())
    rows = sorted(set(chain(*seen.first.values(), *(found for _, found in seen.problems.values()))))
    named = places(source, rows) if lines else [f"{source}, record {row + 1}" for row in rows]
    at = dict(zip(rows, named, strict=True))
    return DataCheck(
        path=source,
        rows=seen.rows,
        units=len(seen.units) or seen.rows,
        facts={f"data.{k}": None if n is None else n / seen.rows for k, n in seen.counts.items()},
        breaches={
            k: Breach(rows=n, places=tuple(at[row] for row in seen.first[k])) for k, n in seen.counts.items() if n
        },
        missing=tuple(sorted(asked - have)),
        problems=tuple(
            _told(source, text, count, [at[row] for row in rows]) for text, (count, rows) in seen.problems.items()
        ),
        dropped=seen.rows - seen.kept,
        withdrawn_units=len(seen.withdrawn) or (seen.counts.get("withdrawn") or 0 if not seen.units else 0),
        not_found=not_found,
        expiring=seen.expiring,
    )


def _look(
    frame: pd.DataFrame, seen: _Seen, terms: Terms, user: str, withdrawals: Collection[str], sensitive_rows: str
) -> dict[str, NDArray[Any]]:
    """One batch, judged and added to what was seen; its columns."""
    columns, problems = typed_frame(frame)
    if user:
        owners = users_of(frame[user])
        seen.units |= {*owners.unique()} - {""}
        if (owners == "").any():
            problems.append(
                Problem(
                    text=f"a user in column {user!r} must hold",
                    rows=np.flatnonzero(owners == ""),
                )
            )
        if withdrawals:
            listed = owners.isin(withdrawals).to_numpy(dtype=bool)
            columns["withdrawn"] = listed | columns.get("withdrawn", np.zeros(len(frame), dtype=bool))
        if "withdrawn" in columns:
            seen.withdrawn.update(owners[columns["withdrawn"]].unique())
    _judge(columns, problems, seen, terms, sensitive_rows, rows=len(frame))
    seen.rows += len(frame)
    return columns


def _judge(
    columns: Mapping[str, NDArray[Any]],
    problems: list[Problem],
    seen: _Seen,
    terms: Terms,
    sensitive_rows: str,
    *,
    rows: int,
) -> None:
    """Breaches and problems of one batch, added to what was seen."""
    found = breaches(columns, terms)
    keep = np.ones(rows, dtype=bool)
    for name, mask in found.items():
        seen.add(name, mask)
        if mask is not None and not (name == "sensitive_without_consent" and sensitive_rows == "keep"):
            keep &= ~mask
    late = found["consent_after_use"]
    if late is not None and late.any():
        empty = np.isnat(columns["consented"]) | np.isnat(columns["used_from"])
        late = late & ~empty  # an empty date breaks the gate; it is no contradiction
        if late.any():
            problems.append(Problem(text="consent not after use must hold", rows=np.flatnonzero(late)))
    for problem in [*problems, *untrue(columns, terms.as_of)]:
        seen.note(problem)
    seen.kept += int(keep.sum())


def _told(path: Path, text: str, count: int, found: list[str]) -> str:
    where, *others = found
    also = f", also at {', '.join(place.removeprefix(f'{path}:') for place in others)}" if others else ""
    return f"{where}: {text}; {count:,} such row{'s' if count > 1 else ''}{also}."


def header_of(path: Path) -> list[str]:
    """Names of a table's columns; of JSON Lines those of the first line."""
    try:
        if path.suffix == ".parquet":
            return [str(name) for name in pyarrow.parquet.read_schema(path).names]
        with path.open(encoding="utf-8-sig", newline="") as file:
            if path.suffix == ".csv":
                return next(csv.reader(file), [])
            if path.suffix == ".jsonl":
                return [str(name) for name in json.loads(next((line for line in file if line.strip()), "{}"))]
    except FileNotFoundError as error:
        raise InputError(f"data must be a readable file, but got {path} (no such file).") from error
    except (OSError, ValueError, pa.ArrowInvalid) as error:
        raise InputError(
            f"{path} must be a readable {path.suffix[1:]} table, but: {str(error).splitlines()[0]}."
        ) from error
    raise InputError(f"data must be a file ending in .csv, .parquet, .jsonl, but got {str(path)!r}.")


def read_columns(path: Path, columns: list[str]) -> Iterator[pd.DataFrame]:
    """Frames of the wanted columns alone, in order."""
    try:
        if path.suffix == ".csv":
            yield from _csv(path, columns)
        elif path.suffix == ".parquet":
            with pyarrow.parquet.ParquetFile(path) as file:
                for batch in file.iter_batches(batch_size=_ROWS, columns=columns):
                    yield batch.to_pandas()
        else:
            yield from _json_lines(path, columns)
    except (OSError, pa.ArrowInvalid, UnicodeDecodeError) as error:
        raise InputError(
            f"{path} must be a readable {path.suffix[1:]} table, but: {str(error).splitlines()[0]}."
        ) from error


def _csv(path: Path, columns: list[str]) -> Iterator[pd.DataFrame]:
    reader = pyarrow.csv.open_csv(
        path,
        read_options=pyarrow.csv.ReadOptions(block_size=_BLOCK),
        parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
        convert_options=pyarrow.csv.ConvertOptions(
            include_columns=columns, column_types=dict.fromkeys(columns, pa.string()), strings_can_be_null=True
        ),
    )
    with reader:
        for batch in reader:
            yield batch.to_pandas()


def _json_lines(path: Path, columns: list[str]) -> Iterator[pd.DataFrame]:
    cells: list[list[object]] = [[] for _ in columns]
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                found = json.loads(line)
                for name, column in zip(columns, cells, strict=True):
                    column.append(found.get(name))
            except (json.JSONDecodeError, AttributeError) as error:
                raise InputError(f"{path}:{number}: one JSON object a line must hold, but {error}.") from error
            if len(cells[0]) == _ROWS:
                yield pd.DataFrame(dict(zip(columns, cells, strict=True)), dtype=object)
                cells = [[] for _ in columns]
    if cells[0]:
        yield pd.DataFrame(dict(zip(columns, cells, strict=True)), dtype=object)
