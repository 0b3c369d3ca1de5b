"""Users of a table, one id a person, and the list of the users who have withdrawn."""

from collections.abc import Collection
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from moo.core.errors import InputError
from moo.core.messages import Message
from moo.data.tables.columns import Problem
from moo.tables.ids import user_id


def users_of(cells: "pd.Series[Any]") -> tuple["pd.Series[Any]", list[Problem]]:
    """Return the user of each row, "" for none, and the problems: rows without a user, or with an id that lost digits.

    A list of withdrawals is matched against these ids.

    Args:
        cells: Column of the user, shape (n,).

    Returns:
        Ids of shape (n,), and the problems with their rows.
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
                    text=Message(
                        "a user in column {column!r} must be an id as it was given, but {error}; export ids as text",
                        column=cells.name,
                        error=error,
                    ),
                    rows=np.flatnonzero(codes == code),
                )
            )
    # code -1 takes the last entry
    users = pd.Series(np.array([*ids, ""], dtype=object)[codes], index=cells.index)
    broken = np.concatenate([p.rows for p in problems]) if problems else np.zeros(0, dtype=np.int64)
    nobody = np.setdiff1d(np.flatnonzero(users == ""), broken)
    if len(nobody):
        problems.append(
            Problem(
                text=Message(
                    "every row must have a user in column {column!r} (NA, null and the like are none); name them, "
                    "take those rows out, or leave user empty if each row is its own unit",
                    column=cells.name,
                ),
                rows=nobody,
            )
        )
    return users, problems


def load_withdrawals(path: str | Path, *, as_of: date | None = None) -> dict[str, date | None]:
    """Return the users who have withdrawn, with the day if it is given.

    One user a line; after a comma the day, ISO 8601. Empty lines and those that begin with # are skipped.

    Args:
        path: Text file in UTF-8.
        as_of: Last day allowed; None allows any.

    Raises:
        InputError: With file and line, if an id has lost digits, or a day is unreadable or after `as_of`.
    """
    path = Path(path).expanduser()
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            "withdrawals must be a readable UTF-8 file, got {path} ({error}).", path=path, error=error
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
                "{path}:{number}: a user must be an id, got {name!r}, which names nobody; take the line out.",
                path=path,
                number=number,
                name=name,
            )
        try:
            out[user] = date.fromisoformat(day) if day else None
        except ValueError:
            raise InputError(
                "{path}:{number}: a line must be USER or USER,2026-11-01, got {line!r}.",
                path=path,
                number=number,
                line=line,
            ) from None
        if as_of is not None and (out[user] or as_of) > as_of:
            raise InputError(
                "{path}:{number}: the day must not be after {as_of}, got {day}; correct it.",
                path=path,
                number=number,
                as_of=as_of,
                day=day,
            )
    return out


def unmatched(listed: Collection[str], users: Collection[str], source: object, *, allowed: bool) -> tuple[int, str]:
    """Return the number of listed users without a row, and the sentence that refuses them; empty if they are allowed.

    Args:
        listed: Users who have withdrawn.
        users: Users of the data.
        source: Name of the data.
        allowed: True if listed users may lack a row, e.g. since their rows are deleted.
    """
    absent = sorted(set(listed) - set(users))
    if not absent or allowed:
        return len(absent), ""
    return len(absent), Message(
        "users who have withdrawn must be in {source}, but {absent:,} of {listed:,} listed are not (first: {first!r}); "
        "correct their ids, or allow users without a row: --allow-unmatched, or allow_unmatched = true in a study.",
        source=str(source),
        absent=len(absent),
        listed=len(listed),
        first=absent[0],
    )
