"""Users of a table, one id a person, and the list of those who have withdrawn."""

from collections.abc import Collection
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from moo.core.errors import InputError
from moo.data.tables.columns import Problem
from moo.tables.ids import user_id


def users_of(cells: "pd.Series[Any]") -> tuple["pd.Series[Any]", list[Problem]]:
    """Return the user of each row, "" where there is none, and the rows that name no user or one whose digits are lost.

    A list of withdrawals is matched against these ids.
    """
    codes, unique = pd.factorize(cells)
    ids: list[str] = []
    problems: list[Problem] = []
    for code, cell in enumerate(unique):
        try:
            ids.append(user_id(cell))
        except ValueError as error:
            ids.append("")
            problems.append(
                Problem(
                    text=f"a user in column {cells.name!r} must be an id as it was given, but {error}; export ids as text",
                    rows=np.flatnonzero(codes == code),
                )
            )
    users = pd.Series(np.array([*ids, ""], dtype=object)[codes], index=cells.index)  # code -1 takes the last
    broken = np.concatenate([p.rows for p in problems]) if problems else np.zeros(0, dtype=np.int64)
    nobody = np.setdiff1d(np.flatnonzero(users == ""), broken)
    if len(nobody):
        problems.append(
            Problem(
                text=f"every row must have a user in column {cells.name!r} (NA, null and the like are none); name them, take those "
                "rows out, or leave user empty where each row is its own unit",
                rows=nobody,
            )
        )
    return users, problems


def load_withdrawals(path: str | Path, *, as_of: date | None = None) -> dict[str, date | None]:
    """Return the users who have withdrawn, with the day if it is given.

    One user a line; after a comma the day, ISO 8601. Empty lines and those that begin with # are passed over.

    Raises:
        InputError: With file and line, if an id has lost digits, or a day cannot be read or lies after `as_of`.
    """
    path = Path(path).expanduser()
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            "withdrawals must be a readable UTF-8 file, but got {path} ({error}).", path=path, error=error
        ) from error
    out: dict[str, date | None] = {}
    for number, line in enumerate(lines, start=1):
        name, _, day = (part.strip() for part in line.partition(","))
        if not name or name.startswith("#"):
            continue
        try:
            user = user_id(name)
        except ValueError as error:
            raise InputError(
                "{path}:{number}: a user must be an id as it was given, but {error}.",
                path=path,
                number=number,
                error=error,
            ) from None
        if not user:
            raise InputError(
                "{path}:{number}: a user must be an id, but {name!r} names nobody.", path=path, number=number, name=name
            )
        try:
            out[user] = date.fromisoformat(day) if day else None
        except ValueError:
            raise InputError(
                "{path}:{number}: USER or USER,2026-11-01 must hold, but got {line!r}.",
                path=path,
                number=number,
                line=line,
            ) from None
        if as_of is not None and (out[user] or as_of) > as_of:
            raise InputError(
                "{path}:{number}: a day until {as_of} must hold, but {day} is in the future.",
                path=path,
                number=number,
                as_of=as_of,
                day=day,
            )
    return out


def unmatched(listed: Collection[str], users: Collection[str], source: object, *, allowed: bool) -> tuple[int, str]:
    """Return how many listed users have no row, and the sentence that refuses them; empty where they are allowed.

    Args:
        listed: Users who have withdrawn.
        users: Users of the data.
        source: Name of the data.
        allowed: Whether listed users may lack a row, e.g. since their rows are deleted.
    """
    absent = sorted(set(listed) - set(users))
    if not absent or allowed:
        return len(absent), ""
    return len(absent), (
        f"users who have withdrawn must be in {source}, but {len(absent):,} of {len(listed):,} listed are not (first: {absent[0]!r}); "
        "correct their ids, or allow users without a row: --allow-unmatched, or allow_unmatched = true in a study."
    )
