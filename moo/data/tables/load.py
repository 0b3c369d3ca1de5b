"""Records from the user's own table: texts, classes and users, read by `moo.tables`."""

from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from moo.core.errors import InputError
from moo.core.messages import Message
from moo.core.trial_record import Transformation
from moo.data.records import UNLABELLED, Records, first_units
from moo.data.scopes import Preparation
from moo.data.tables.columns import LAW_COLUMNS, future_dates, raise_first, typed_frame
from moo.data.tables.labels import counts_of, labels_of, no_classes
from moo.data.tables.users import load_withdrawals, unmatched, users_of
from moo.tables import Reading, Table, open_table
from moo.tables.clean import clean, normalise


def load_table(
    path: str | Path,
    *,
    text: str = "text",
    label: str = "label",
    user: str = "",
    n_records: int = 0,
    as_of: date | None = None,
    withdrawals: str = "",
    allow_unmatched: bool = False,
    groups: Sequence[str] = (),
    reading: Reading | None = None,
    language: str = "",
    classes: Sequence[str] = (),
) -> Records:
    """Read a table, and clean and normalise its texts, each by itself.

    Labels, users and attributes are texts, never inferred from other rows. Only repeats of a text within one user are
    removed: across users that would read other people's rows. Each step leaves a transformation in the records.

    Args:
        path: File in CSV, Parquet or JSON Lines.
        text, label: Columns of the text and of its class; an empty label reads none.
        user: Column of the unit of privacy; empty makes every record its own unit.
        n_records: Stop at the user that reaches this many records, which no DP claim survives (`first_units`); 0 takes
            all.
        as_of: Day of the judgement; a date of the data after it is refused. None checks no date.
        withdrawals: List of users who have withdrawn, see `load_withdrawals`; needs `user`.
        allow_unmatched: True if listed users may lack a row.
        groups: Columns of personal attributes; each value is a group, an empty cell is not known.
        reading: Encoding, separator and empty values of the file.
        language: Language of the texts, "zh" or "en"; empty where it is not declared.
        classes: Classes, in order; empty reads them from the labels of all users, see `class_list`.

    Returns:
        Records in the order of the table.

    Raises:
        InputError: If the file or a column is missing, a group is the text or the user, a listed user has no row,
            labels are no classes, the data are empty or of one class, or (with file and line) a row is malformed, has
            no user, or has a cell for the law that is unreadable or in the future.
    """
    _check_columns(text, user, groups, withdrawals)
    table = open_table(path, reading)
    frame, lines = _read(table, list(dict.fromkeys(name for name in (text, label, user, *groups) if name)))
    columns, problems = typed_frame(frame)
    users, lost = users_of(frame[user]) if user else (pd.Series(list(map(str, range(len(frame))))), [])
    late = future_dates(columns, as_of) if as_of else []
    raise_first([*problems, *lost, *late], lambda row: table.place(int(lines[row])))
    listed = load_withdrawals(withdrawals, as_of=as_of) if withdrawals else {}
    absent, refusal = unmatched(listed, users.unique(), table.path, allowed=allow_unmatched)
    if refusal:
        raise InputError(refusal)
    prepared = _prepared(frame, users, text, label, table.path)
    rows = prepared.rows
    owners, steps = users[rows.index], list(prepared.steps)
    typed: dict[str, NDArray[Any]] = {c: v[rows.index] for c, v in columns.items()}
    if withdrawals:
        steps += [_withdrawal_step(absent, len(listed))] if listed else []
        withdrawn: NDArray[Any] = owners.isin(listed).to_numpy(dtype=bool)
        typed["withdrawn"] = withdrawn | typed["withdrawn"] if "withdrawn" in typed else withdrawn
    units, unit_ids = pd.factorize(owners)
    codes, held = _labels(rows["label"], label, classes, table.path)
    records = Records(
        name=table.path.name,
        texts=tuple(rows["text"]),
        labels=codes,
        classes=held,
        units=units.astype(np.int64),
        unit_ids=tuple(map(str, unit_ids)),
        unit_name=user or "record",
        language=language,
        gold=((),) * len(rows),
        fields=({},) * len(rows),
        columns=typed,
        groups={c: _codes(frame[c][rows.index]) for c in dict.fromkeys(groups)},
        transformations=tuple(steps),
        licence="yours",
        fixed_classes=bool(classes),
    )
    return _first_records(records, n_records) if n_records else records


def _check_columns(text: str, user: str, groups: Sequence[str], withdrawals: str) -> None:
    """Raise if an attribute is the text or the user, or withdrawals have no column of the user."""
    if {text, user} & set(groups):
        raise InputError(
            "attributes must be other columns than the text {text!r} and the user {user!r}, got {groups}; leave both "
            "out of attributes.",
            text=text,
            user=user,
            groups=list(groups),
        )
    if withdrawals and not user:
        raise InputError(
            "user must name the column of the user for the withdrawals in {withdrawals}, but it is empty; name the "
            "column.",
            withdrawals=withdrawals,
        )


def _read(table: Table, named: Sequence[str]) -> tuple[pd.DataFrame, NDArray[np.int64]]:
    """Return the named columns and those of the law as texts, rows numbered from 0, and the line of each row."""
    wanted = list(dict.fromkeys([*named, *LAW_COLUMNS]))
    if table.columns:
        table.require(*named)
    batches = list(table.batches(wanted))
    if not batches:
        raise InputError("data must hold at least one record, got none in {path}; check the file.", path=table.path)
    table.require(*named)
    frame = pd.concat([batch.frame() for batch in batches], ignore_index=True)
    return frame[[c for c in wanted if c in table.columns]], np.concatenate([batch.lines for batch in batches])


def label_refusal(counts: Mapping[str, int], column: str, source: object) -> str:
    """Return the sentence that refuses labels which are no classes; empty if they may be.

    Args:
        counts: Label -> rows.
        column: Column of the labels.
        source: Name of the data.
    """
    reason = no_classes(counts, column)
    return Message("{source}: {reason}", source=str(source), reason=reason) if reason else ""


def empty_refusal(text: str, label: str, source: object) -> str:
    """Return the sentence that refuses data without a usable row."""
    return Message(
        "data must hold at least one record with {text} and {label}, got none in {source}; check the columns.",
        text=text,
        label=label,
        source=str(source),
    )


def _first_records(records: Records, n_records: int) -> Records:
    """Return whole units in order until `n_records` are reached.

    The records say so also where all stay: with one unit more, some might not.
    """
    kept = records.units <= int(np.searchsorted(np.cumsum(np.bincount(records.units)), n_records))
    return records.take(kept, first_units(len(records), int(kept.sum())))


def _labels(
    labels: "pd.Series[str]", column: str, declared: Sequence[str], source: object
) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    if not column:
        return np.zeros(len(labels), dtype=np.int64), UNLABELLED
    if not declared:
        codes, classes = pd.factorize(labels, sort=True)
        return codes.astype(np.int64), tuple(map(str, classes))
    codes = pd.Index(declared).get_indexer(pd.Index(labels))
    if (codes < 0).any():
        other = sorted(set(labels[codes < 0]))
        raise InputError(
            "{source}: labels in column {column!r} must be among classes = {declared}, but {rows:,} rows have others "
            "(first: {other!r}); add it to classes, or take those rows out.",
            source=source,
            column=column,
            declared=list(declared),
            rows=int((codes < 0).sum()),
            other=other[0],
        )
    return codes.astype(np.int64), tuple(declared)


def _codes(values: "pd.Series[Any]") -> NDArray[np.int64]:
    """Return the rank of each value among those of its column, -1 where a cell is empty."""
    plain = values.str.strip()
    codes: NDArray[np.int64] = pd.factorize(plain.where(plain != ""), sort=True)[0].astype(np.int64)
    return codes


def _prepared(frame: pd.DataFrame, users: "pd.Series[str]", text: str, label: str, source: object) -> Preparation:
    """Return the rows with a text and a label, cleaned and normalised, with one copy of a text a user.

    Raises:
        InputError: If labels are no classes, or no row is left.
    """
    prepared = Preparation(frame, users)
    _clean_steps(prepared, text, label)
    rows = prepared.rows
    refusal = label_refusal(counts_of(rows["label"]), label, source) if label else ""
    if refusal or rows.empty:
        raise InputError(refusal or empty_refusal(text, label, source))
    prepared.step(
        "duplicates_within_unit",
        lambda rows: rows[~pd.DataFrame({"u": users[rows.index], "t": rows["text"]}).duplicated()],
        scope="user",
        detail="one copy of a text a user",
        why="a repeated text would count, and be remembered, twice",
    )
    return prepared


def _clean_steps(prepared: Preparation, text: str, label: str) -> None:
    """Keep text and label of the rows that have both, cleaned and normalised."""

    def complete(frame: pd.DataFrame) -> pd.DataFrame:
        labels = labels_of(frame[label])[0] if label else pd.Series("", index=frame.index)
        kept = (frame[text].str.strip().fillna("") != "") & ((labels != "") | (not label))
        return pd.DataFrame({"text": frame[text][kept].astype(object), "label": labels[kept]})

    def cleaned(rows: pd.DataFrame) -> pd.DataFrame:
        texts = rows["text"].map(clean).astype(object)
        return rows.assign(text=texts)[texts.map(normalise).astype(str).str.len() > 0]

    labels, changed = labels_of(prepared.rows[label]) if label else (pd.Series([], dtype=object), np.zeros(0))
    prepared.step(
        "complete",
        complete,
        scope="record",
        detail=Message(
            "rows with a text and a label; {n} had no label, blanks around {changed} labels taken away",
            n=int((labels == "").sum()),
            changed=int(changed.sum()),
        )
        if label
        else "rows with a text",
        why="nothing can be learnt from the others",
    )
    prepared.step(
        "cleaned",
        cleaned,
        scope="record",
        detail="unseen characters out, white space as one space; empty texts dropped",
        why="what nobody sees must not be learnt",
        emptied=True,
    )
    prepared.step(
        "normalised",
        lambda rows: rows.assign(text=rows["text"].map(normalise).astype(object)),
        scope="record",
        detail="Unicode NFC",
        why="what looks the same must be masked the same",
    )


def _withdrawal_step(absent: int, listed: int) -> Transformation:
    """Return the step that looks for the listed users."""
    return Transformation(
        name="withdrawals",
        scope="user",
        detail=Message("{n} of {total} listed users were not found in the data", n=absent, total=listed),
        why="who has withdrawn is found by the id as it is written, to the letter",
    )
