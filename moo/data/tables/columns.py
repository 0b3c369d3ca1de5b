"""Columns of a table that the law asks about, typed: what cannot be read and what cannot be true, with file and line."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from moo.core.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

Bools = NDArray[np.bool_]

DATES = ("consented", "used_from", "collected")
TEXTS = ("basis", "purposes", "notice_version", "tags")
FLAGS = {  # name -> how an empty cell reads: against its record
    "withdrawn": True,
    "storage_only": True,
    "sensitive": True,
    "sensitive_consent": False,
    "guardian_consent": False,
}
COUNTS = {"retention_days": -1.0, "birth_year": np.nan}  # an empty limit is passed, an empty year is not of age
LAW_COLUMNS: tuple[str, ...] = (*TEXTS, *DATES, *FLAGS, *COUNTS)
# PIPL 13 and GDPR 6; what is none of them is no lawful basis
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
SHOWN = 3  # rows that are named for each breach and each problem


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A cell that is no input: one sentence, and the rows (from 0) where it stands."""

    text: str
    rows: NDArray[np.int64]


def typed(name: str, values: "pd.Series[Any]") -> tuple[NDArray[Any], list[Problem]]:
    """A column in its type, and what of it cannot be read.

    Each value that occurs is read once, so a million rows cost as much as their thousand different dates.

    Args:
        name: One of `LAW_COLUMNS`.
        values: Shape (n,), as a reader gave it: texts, numbers, dates or truth values.
    """
    import pandas as pd

    codes, unique = pd.factorize(values, use_na_sentinel=True)
    cells = ["" if pd.isna(u) else str(u).strip() for u in unique]
    read, empty = _reader(name)
    found = [empty if not cell else read(cell) for cell in cells]
    bad = [i for i, value in enumerate(found) if value is None]
    kinds = {
        **dict.fromkeys(DATES, "datetime64[D]"),
        **dict.fromkeys(FLAGS, "bool"),
        **dict.fromkeys(COUNTS, "float64"),
    }
    table = np.array([empty if v is None else v for v in (*found, empty)], dtype=kinds.get(name, object))
    problems = [
        Problem(
            text=f"{name} {_ASKED[kinds.get(name, '')]} must hold, but got {cells[i]!r}",
            rows=np.flatnonzero(codes == i),
        )
        for i in bad[:3]
    ]
    return table[codes], problems  # code -1, an empty cell, takes the last entry


_ASKED = {"datetime64[D]": "a date as 2026-11-01", "bool": "true or false", "float64": "a whole number", "": "a text"}


def _reader(name: str) -> tuple[Callable[[str], Any], Any]:
    """What reads one cell, None where it cannot, and what an empty cell stands for."""
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


def untrue(columns: Mapping[str, NDArray[Any]], as_of: date) -> list[Problem]:
    """Dates that lie in the future of the day at which the data are judged."""
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
    return f"{name} until {as_of} must hold, but {value} is in the future"


def typed_frame(frame: "pd.DataFrame") -> tuple[dict[str, NDArray[Any]], list[Problem]]:
    """All columns of a frame that the law asks about."""
    out: dict[str, NDArray[Any]] = {}
    problems: list[Problem] = []
    for name in (c for c in LAW_COLUMNS if c in frame.columns):
        out[name], found = typed(name, frame[name])
        problems += found
    return out, problems


def sentence(text: str, places: Sequence[str], count: int) -> str:
    """Return what a person reads of a problem: its first place, the problem, how many rows have it, and the next places.

    Args:
        text: The problem's.
        places: Of the first rows, each as "file:line".
        count: Rows in all.
    """
    first, *others = places
    more = f"; {count:,} such rows, the next at {', '.join(others)}" if others else ""
    return f"{first}: {text}{more}."


def refuse_first(problems: Sequence[Problem], place: Callable[[int], str]) -> None:
    """Raise the problem that stands first.

    Args:
        problems: With their rows, from 0.
        place: From such a row to its file and line.

    Raises:
        InputError: With file and line.
    """
    found = [p for p in problems if len(p.rows)]
    if found:
        first = min(found, key=lambda p: int(p.rows[0]))
        raise InputError(sentence(first.text, [place(int(row)) for row in first.rows[:SHOWN]], len(first.rows)))
