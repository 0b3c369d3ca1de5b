"""Labels of a table: texts as written, each read by itself."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from moo.core.messages import Message
from moo.tables.clean import clean, normalise

# different numbers that may still be names of classes
MOST_NUMBERS = 30
# below so many different labels, one a row may be chance
_FEW = 6
# share of rows from which on nearly every row has its own label
_NEARLY = 0.8


def labels_of(cells: "pd.Series[Any]") -> tuple["pd.Series[Any]", NDArray[np.bool_]]:
    """Return the label of each row, "" where there is none, and a mask of those that had blanks around them.

    Nothing is inferred: "001" and "NA" stay, unless the reading declares them empty.
    """
    codes, unique = pd.factorize(cells)
    labels = [normalise(clean(cell)) for cell in unique]
    changed = np.array([bool(label) and label != cell for label, cell in zip(labels, unique, strict=True)] + [False])
    return pd.Series(np.array([*labels, ""], dtype=object)[codes], index=cells.index), changed[codes]


def counts_of(labels: "pd.Series[Any]") -> Counter[str]:
    """Return label -> rows."""
    return Counter({str(label): int(n) for label, n in labels.value_counts().items()})


def no_classes(counts: Mapping[str, int], column: str) -> str:
    """Return the reason why labels are no classes: a single one, numbers to predict, or nearly one a row.

    Args:
        counts: Label -> rows.
        column: Column of the labels.

    Returns:
        One sentence; empty if the labels may be classes.
    """
    rows, n = sum(counts.values()), len(counts)
    if n == 1:
        return Message(
            "data must hold at least two classes, but all of {rows:,} records are {label!r}; check the label column "
            "{column!r}.",
            rows=rows,
            label=next(iter(counts)),
            column=column,
        )
    each = n >= _FEW and n > _NEARLY * rows
    if (n > MOST_NUMBERS or each) and all(map(_is_number, counts)):
        return Message(
            "labels in column {column!r} must name classes, got {n:,} different numbers in {rows:,} rows, which look "
            "like a number to predict; bin them, write codes of classes as words (c17), or name another column as "
            "label.",
            column=column,
            n=n,
            rows=rows,
        )
    if each:
        return Message(
            "labels in column {column!r} must name classes, got {n:,} different ones in {rows:,} rows, nearly one a "
            "row; name another column as label.",
            column=column,
            n=n,
            rows=rows,
        )
    return ""


def _is_number(label: str) -> bool:
    try:
        float(label.replace(",", ""))
    except ValueError:
        return False
    return True
