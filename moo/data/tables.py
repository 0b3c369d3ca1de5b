"""A user's own table: CSV, Parquet or JSON Lines, with the names of a few columns."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from moo.data.prepare import RULES
from moo.data.schema import Records
from moo.errors import InputError
from moo.records import Transformation

FORMATS = (".csv", ".parquet", ".jsonl")


def load_table(path: Path, *, text: str = "text", label: str = "label", user: str = "", n_records: int = 0) -> Records:
    """Read a table. Only repeats of a text within one user are removed: across users that would read other people's rows.

    Args:
        path: CSV (UTF-8), Parquet or JSON Lines.
        text, label: Columns of the text and of its class.
        user: Column of the unit of privacy; empty makes every record its own unit.
        n_records: Stop at the user that reaches this many records; 0 takes all.

    Raises:
        InputError: If the file or a column is missing, or the data are empty or of one class.
    """
    frame = _read(path)
    for name in (text, label, *([user] if user else [])):
        if name not in frame.columns:
            raise InputError(f"column {name!r} must be in {path}, but it has {list(map(str, frame.columns))}.")
    frame = frame[frame[text].notna() & frame[label].notna()]
    if frame.empty:
        raise InputError(f"data must hold at least one record with {text} and {label}, but got none in {path}.")
    owners = frame[user].astype(str) if user else pd.Series(np.arange(len(frame)).astype(str), index=frame.index)
    frame = frame[~pd.DataFrame({"u": owners, "t": frame[text].astype(str)}).duplicated()]
    units, unit_ids = pd.factorize(owners.loc[frame.index])
    labels, classes = pd.factorize(frame[label].astype(str), sort=True)
    known = {column for needed, _ in RULES.values() for column in needed}
    records = Records(
        name=path.name,
        texts=tuple(frame[text].astype(str)),
        labels=labels.astype(np.int64),
        classes=tuple(map(str, classes)),
        units=units.astype(np.int64),
        unit_ids=tuple(map(str, unit_ids)),
        unit_name=user or "record",
        language="zh" if _is_chinese(frame[text].astype(str).head(200)) else "en",
        gold=((),) * len(frame),
        fields=({},) * len(frame),
        columns={c: _column(frame[c]) for c in frame.columns if c in known},
        transformations=(
            Transformation(name="duplicates_within_unit", scope="user", detail="one copy of a text a user"),
        ),
        licence="yours",
    )
    if not n_records or n_records >= len(records):
        return records
    sizes = np.cumsum(np.bincount(records.units))
    return records.take(records.units <= int(np.searchsorted(sizes, n_records)))


def _read(path: Path) -> pd.DataFrame:
    readers: dict[str, Callable[[Path], pd.DataFrame]] = {
        ".csv": pd.read_csv,
        ".parquet": pd.read_parquet,
        ".jsonl": lambda p: pd.read_json(p, lines=True),
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
    return frame


def _column(values: "pd.Series[Any]") -> np.ndarray:
    if values.name in ("collected", "consented", "used_from"):
        return pd.to_datetime(values).to_numpy().astype("datetime64[D]")
    if values.name in ("basis", "purposes"):
        return values.fillna("").astype(str).to_numpy(dtype=object)
    return values.to_numpy()


def _is_chinese(texts: "pd.Series[str]") -> bool:
    joined = "".join(texts)
    return sum("\u4e00" <= c <= "\u9fff" for c in joined) > 0.2 * max(1, len(joined))
