"""Columns of a table for the law, typed, and the problems of unreadable and future cells with file and line."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from moo.core.errors import InputError
from moo.core.messages import Message, joined

if TYPE_CHECKING:
    import pandas as pd

Bools = NDArray[np.bool_]

DATES = ("consented", "used_from", "collected")
TEXTS = ("basis", "purposes", "notice_version", "tags")
# name -> value of an empty cell: against its record
FLAGS = {
    "withdrawn": True,
    "storage_only": True,
    "sensitive": True,
    "sensitive_consent": False,
    "guardian_consent": False,
}
# an empty limit is passed, an empty year is not of age
COUNTS = {"retention_days": -1.0, "birth_year": np.nan}
LAW_COLUMNS: tuple[str, ...] = (*TEXTS, *DATES, *FLAGS, *COUNTS)
# PIPL 13 and GDPR 6; any other value is no lawful basis
BASES = (
    "consent",
    "contract",
    "legal_obligation",
    "vital_interests",
    "public_health_emergency",
    "public_interest",
    "public_task",
    "news_reporting",
    "publicly_disclosed",
    "human_resources",
    "legitimate_interests",
)
_IN_CHINESE = {
    "同意": "consent",
    "个人同意": "consent",
    "合同": "contract",
    "履行合同": "contract",
    "法定义务": "legal_obligation",
}
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_COUNT = re.compile(r"[0-9]{1,9}(?:\.0+)?")
_TRUE, _FALSE = ("true", "1", "1.0", "yes", "y", "t", "是"), ("false", "0", "0.0", "no", "n", "f", "否")
_EPOCH = np.datetime64("NaT", "D")
# rows that are named for each breach and each problem
SHOWN = 3


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Unusable cell: one sentence without its full stop, and the rows (from 0) that have it."""

    text: str
    rows: NDArray[np.int64]


def typed(name: str, values: "pd.Series[Any]") -> tuple[NDArray[Any], list[Problem]]:
    """Return a column in its type, and the problems of cells that cannot be read.

    Each different value is read once, so a million rows cost as much as their thousand different dates.

    Args:
        name: One of `LAW_COLUMNS`.
        values: Cells of shape (n,): texts, numbers, dates or truth values.

    Returns:
        Column of shape (n,), and at most three problems.
    """
    import pandas as pd

    codes, unique = pd.factorize(values, use_na_sentinel=True)
    cells = ["" if pd.isna(u) else str(u).strip() for u in unique]
    read, empty = _reader(name)
    parsed = [empty if not cell else read(cell) for cell in cells]
    bad = [i for i, value in enumerate(parsed) if value is None]
    kinds = {
        **dict.fromkeys(DATES, "datetime64[D]"),
        **dict.fromkeys(FLAGS, "bool"),
        **dict.fromkeys(COUNTS, "float64"),
    }
    table = np.array([empty if v is None else v for v in (*parsed, empty)], dtype=kinds.get(name, object))
    problems = [
        Problem(
            text=Message(
                "{column} must be {wanted}, got {cell!r}",
                column=name,
                wanted=Message(_WANTED[kinds.get(name, "")]),
                cell=cells[i],
            ),
            rows=np.flatnonzero(codes == i),
        )
        for i in bad[:3]
    ]
    # code -1, an empty cell, takes the last entry
    return table[codes], problems


_WANTED = {"datetime64[D]": "a date as 2026-11-01", "bool": "true or false", "float64": "a whole number", "": "a text"}


def _reader(name: str) -> tuple[Callable[[str], Any], Any]:
    """Return the reader of one cell (None for an unreadable one), and the value of an empty cell."""
    if name in DATES:
        return _date, _EPOCH
    if name in FLAGS:
        return lambda cell: True if cell.lower() in _TRUE else False if cell.lower() in _FALSE else None, FLAGS[name]
    if name in COUNTS:
        return _count, COUNTS[name]
    return basis_of if name == "basis" else str, ""


def basis_of(cell: str) -> str:
    """Return the listed basis that a cell names, whatever its capitals, blanks and hyphens; another text as it is."""
    folded = re.sub(r"[\s_\-]+", "_", cell.strip().casefold())
    return folded if folded in BASES else _IN_CHINESE.get(folded, cell.strip())


def _date(cell: str) -> np.datetime64 | None:
    """Read a day, with or without a time behind it."""
    if not _DAY.match(cell):
        return None
    try:
        return np.datetime64(datetime.fromisoformat(cell).date(), "D")
    except ValueError:
        return None


def _count(cell: str) -> float | None:
    return float(cell) if _COUNT.fullmatch(cell) else None


def future_dates(columns: Mapping[str, NDArray[Any]], as_of: date) -> list[Problem]:
    """Return the problems of dates after the day at which the data are judged."""
    today, out = np.datetime64(as_of, "D"), []
    for name in (n for n in DATES if n in columns):
        late = columns[name] > today
        out += (
            [Problem(text=_future(name, columns[name][late][0], as_of), rows=np.flatnonzero(late))]
            if late.any()
            else []
        )
    if "birth_year" in columns:
        late = columns["birth_year"] > as_of.year
        if late.any():
            out.append(
                Problem(
                    text=_future("birth_year", int(columns["birth_year"][late][0]), as_of), rows=np.flatnonzero(late)
                )
            )
    return out


def _future(name: str, value: object, as_of: date) -> str:
    return Message(
        "{column} must not be after {as_of}, got {cell}, which is in the future",
        column=name,
        as_of=str(as_of),
        cell=str(value),
    )


def typed_frame(frame: "pd.DataFrame") -> tuple[dict[str, NDArray[Any]], list[Problem]]:
    """Return the columns of a frame for the law, typed, and their problems."""
    out: dict[str, NDArray[Any]] = {}
    problems: list[Problem] = []
    for name in (c for c in LAW_COLUMNS if c in frame.columns):
        out[name], unreadable = typed(name, frame[name])
        problems += unreadable
    return out, problems


def sentence(text: str, places: Sequence[str], count: int) -> str:
    """Return one sentence on a problem: its first place, the problem, the number of rows, and the next places.

    Args:
        text: Text of the problem.
        places: Places of the first rows, each as "file:line".
        count: Rows in all.
    """
    first, *others = places
    if not others:
        return Message("{place}: {problem}.", place=first, problem=text)
    return Message(
        "{place}: {problem}; {n:,} such rows, the next at {others}.",
        place=first,
        problem=text,
        n=count,
        others=joined(", ", others),
    )


def raise_first(problems: Sequence[Problem], place: Callable[[int], str]) -> None:
    """Raise the problem of the first row that has one.

    Args:
        problems: Problems with their rows, from 0.
        place: Row -> its file and line.

    Raises:
        InputError: If there is a problem; it names file and line.
    """
    held = [p for p in problems if len(p.rows)]
    if held:
        first = min(held, key=lambda p: int(p.rows[0]))
        raise InputError(sentence(first.text, [place(int(row)) for row in first.rows[:SHOWN]], len(first.rows)))
