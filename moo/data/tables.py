"""A user's own table: CSV, Parquet or JSON Lines, with the names of a few columns."""

from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from moo.data.clean import clean, normalise
from moo.data.columns import places, refuse_first, typed_frame, untrue, users_of
from moo.data.schema import UNLABELLED, Records, first_units
from moo.errors import InputError
from moo.records import Transformation

FORMATS = (".csv", ".parquet", ".jsonl")


def load_table(
    path: Path,
    *,
    text: str = "text",
    label: str = "label",
    user: str = "",
    n_records: int = 0,
    as_of: date | None = None,
    withdrawals: str = "",
    groups: Sequence[str] = (),
) -> Records:
    """Read a table, and clean and normalise its texts, each by itself. Only repeats of a text within one user are removed: across
    users that would read other people's rows. What each step did stands in the records' transformations.

    Args:
        path: CSV (UTF-8), Parquet or JSON Lines.
        text, label: Columns of the text and of its class; no label where none is asked for.
        user: Column of the unit of privacy; empty makes every record its own unit.
        n_records: Stop at the user that reaches this many records, which no DP claim survives (`first_units`); 0 takes all.
        as_of: The day at which the data are judged; no date of theirs may lie after it. None does not look.
        withdrawals: List of users who have withdrawn, see `load_withdrawals`; needs `user`.
        groups: Columns of personal attributes; each value is a group, an empty cell is not known.

    Raises:
        InputError: If the file or a column is missing, a group is the text or the user, the data are empty or of one class, or
            (with file and line) a row has no user, or a cell of a column that the law asks about cannot be read or is in the future.
    """
    frame = _read(path, user)
    for name in (text, *(name for name in (label, user) if name), *groups):
        if name not in frame.columns:
            raise InputError(f"column {name!r} must be in {path}, but it has {list(map(str, frame.columns))}.")
    if {text, user} & set(groups):
        raise InputError(f"attributes other than the text and the user must hold, but got {list(groups)}.")
    attributes = frame[list(dict.fromkeys(groups))]
    columns, problems = typed_frame(frame)
    refuse_first(path, problems + (untrue(columns, as_of) if as_of else []))
    frame = frame.assign(**{c: v for c, v in columns.items() if c not in (text, label, user)})
    users = _users(path, frame[user]) if user else None
    frame, steps = _prepared(frame, text, label)
    if frame.empty:
        raise InputError(f"data must hold at least one record with {text} and {label}, but got none in {path}.")
    owners = (
        pd.Series(np.arange(len(frame)).astype(str), index=frame.index) if users is None else users.loc[frame.index]
    )
    before = len(frame)
    frame = frame[~pd.DataFrame({"u": owners, "t": frame[text].astype(str)}).duplicated()]
    steps.append(
        Transformation(
            name="duplicates_within_unit",
            scope="user",
            detail="one copy of a text a user",
            before=before,
            after=len(frame),
            why="a repeated text would count, and be remembered, twice",
        )
    )
    units, unit_ids = pd.factorize(owners.loc[frame.index])
    typed: dict[str, NDArray[Any]] = {c: frame[c].to_numpy(dtype=columns[c].dtype) for c in columns}
    if withdrawals:
        if users is None:
            raise InputError(
                f"withdrawals need the column of the user, but user is empty; name it beside {withdrawals}."
            )
        listed = load_withdrawals(Path(withdrawals))
        steps.append(_looked_up(listed, users))
        withdrawn: NDArray[Any] = owners.loc[frame.index].isin(listed).to_numpy(dtype=bool)
        typed["withdrawn"] = withdrawn | typed["withdrawn"] if "withdrawn" in typed else withdrawn
    labels, classes = _labels(frame, label)
    records = Records(
        name=path.name,
        texts=tuple(frame[text].astype(str)),
        labels=labels,
        classes=classes,
        units=units.astype(np.int64),
        unit_ids=tuple(map(str, unit_ids)),
        unit_name=user or "record",
        language="zh" if _is_chinese(frame[text].astype(str).head(200)) else "en",
        gold=((),) * len(frame),
        fields=({},) * len(frame),
        columns=typed,
        groups={c: _codes(attributes[c].loc[frame.index]) for c in dict.fromkeys(groups)},
        transformations=tuple(steps),
        licence="yours",
    )
    return _cut(records, n_records) if n_records else records


def _cut(records: Records, n_records: int) -> Records:
    """Whole units in order until `n_records` are reached. The records say so also where all stay: one unit more, and some might not."""
    kept = records.units <= int(np.searchsorted(np.cumsum(np.bincount(records.units)), n_records))
    return records.take(kept, first_units(len(records), int(kept.sum())))


def _users(path: Path, cells: "pd.Series[Any]") -> "pd.Series[Any]":
    """Users as text, one in every row.

    Raises:
        InputError: If a row has none, with how many and the line of the first.
    """
    users = users_of(cells)
    without = np.flatnonzero(users == "")
    if len(without):
        raise InputError(
            f"{places(path, [int(without[0])])[0]}: every row must have a user in column {cells.name!r} (in CSV, NA and null are none "
            f"too), but {len(without):,} of {len(users):,} have none, this one first; name them, take those rows out, or leave user "
            "empty where each row is its own unit."
        )
    return users


def _labels(frame: pd.DataFrame, label: str) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    if not label:
        return np.zeros(len(frame), dtype=np.int64), UNLABELLED
    labels, classes = pd.factorize(frame[label].astype(str), sort=True)
    return labels.astype(np.int64), tuple(map(str, classes))


def _codes(values: "pd.Series[Any]") -> NDArray[np.int64]:
    """Values in the order of their text, -1 where there is none."""
    found: NDArray[np.int64] = pd.factorize(values.astype(str).where(values.notna()), sort=True)[0].astype(np.int64)
    return found


def _prepared(frame: pd.DataFrame, text: str, label: str) -> tuple[pd.DataFrame, list[Transformation]]:
    """Rows with a text and a label, cleaned and normalised, and what each step did."""
    before = len(frame)
    frame = frame[frame[[text, *([label] if label else [])]].notna().all(axis=1)]
    raw = frame[text].astype(str)
    cleaned = raw.map(clean)
    texts = cleaned.map(normalise)
    kept = texts.str.len() > 0
    steps = [
        Transformation(
            name="complete", scope="record", detail="rows with a text and a label", before=before, after=len(frame),
            why="nothing can be learnt from the others",
        ),
        Transformation(
            name="cleaned", scope="record", detail="unseen characters out, white space as one space; empty texts dropped",
            before=len(frame), after=int(kept.sum()), changed=int((cleaned != raw).sum()), why="what nobody sees must not be learnt",
        ),
        Transformation(
            name="normalised", scope="record", detail="Unicode NFC", before=int(kept.sum()), after=int(kept.sum()),
            changed=int((texts != cleaned)[kept].sum()), why="what looks the same must be masked the same",
        ),
    ]  # fmt: skip
    return frame.assign(**{text: texts})[kept], steps


def _looked_up(listed: dict[str, date | None], users: "pd.Series[Any]") -> Transformation:
    """How many of the list are among the data's users; an id written otherwise is not found, and drops nobody."""
    n = len(set(listed) - set(users))
    return Transformation(
        name="withdrawals", scope="user", detail=f"{n} of {len(listed)} listed users were not found in the data",
        why="who has withdrawn is found by the id as it is written, to the letter",
    )  # fmt: skip


def load_withdrawals(path: Path, *, as_of: date | None = None) -> dict[str, date | None]:
    """Users who have withdrawn, with the day if it is given.

    One user a line; after a comma the day, ISO 8601. Empty lines and those that begin with # are passed over.

    Raises:
        InputError: With file and line, if a day cannot be read or lies after `as_of`.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"withdrawals must be a readable UTF-8 file, but got {path} ({error}).") from error
    out: dict[str, date | None] = {}
    for number, line in enumerate(lines, start=1):
        name, _, day = (part.strip() for part in line.partition(","))
        if not name or name.startswith("#"):
            continue
        try:
            out[name] = date.fromisoformat(day) if day else None
        except ValueError:
            raise InputError(f"{path}:{number}: USER or USER,2026-11-01 must hold, but got {line!r}.") from None
        if as_of is not None and (out[name] or as_of) > as_of:
            raise InputError(f"{path}:{number}: a day until {as_of} must hold, but {day} is in the future.")
    return out


def _read(path: Path, user: str) -> pd.DataFrame:
    """The table, its rows numbered from 0. Types are guessed but for the user's: an id is text, and keeps its zeros."""
    kept = {user: object} if user else {}
    readers: dict[str, Callable[[Path], pd.DataFrame]] = {
        ".csv": lambda p: pd.read_csv(p, dtype=dict.fromkeys(kept, str)),
        ".parquet": pd.read_parquet,
        ".jsonl": lambda p: pd.read_json(p, lines=True, dtype=kept or True),
    }
    if path.suffix not in readers:
        raise InputError(f"data must be a known name or a file ending in {', '.join(FORMATS)}, but got {str(path)!r}.")
    try:
        frame: pd.DataFrame = readers[path.suffix](path)
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} must be UTF-8, but byte {error.start} is {error.object[error.start]:#04x}; convert it."
        ) from error
    except FileNotFoundError as error:
        raise InputError(f"data must be a readable file, but got {path} (no such file).") from error
    except (ValueError, OSError) as error:
        raise InputError(
            f"{path} must be a readable {path.suffix[1:]} table, but: {str(error).splitlines()[0]}."
        ) from error
    return frame.reset_index(drop=True)


def _is_chinese(texts: "pd.Series[str]") -> bool:
    joined = "".join(texts)
    return sum("\u4e00" <= c <= "\u9fff" for c in joined) > 0.2 * max(1, len(joined))
