"""Labels of a table: texts as they are written, each read by itself."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from moo.tables.clean import clean, normalise

MOST_NUMBERS = 30  # different numbers that may still be names of classes
_FEW = 6  # below so many different labels, one a row may be chance
_NEARLY = 0.8  # share of rows from which on there is nearly a label for each


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
    """Return why labels are no classes, empty where they may be: a single one, numbers to predict, or nearly one a row.

    Args:
        counts: Label -> rows.
        column: Their column.
    """
    rows, n = sum(counts.values()), len(counts)
    if n == 1:
        return (
            f"data must hold at least two classes, but every one of {rows:,} records is {next(iter(counts))!r}; check the label column "
            f"{column!r}."
        )
    each = n >= _FEW and n > _NEARLY * rows
    if (n > MOST_NUMBERS or each) and all(map(_is_number, counts)):
        return (
            f"labels in column {column!r} must name classes, but {n:,} different numbers stand in {rows:,} rows: these look like a "
            "number to predict; bin them, write codes of classes as words (c17), or name another column as label."
        )
    if each:
        return (
            f"labels in column {column!r} must name classes, but {n:,} different ones stand in {rows:,} rows: nearly one a row; name "
            "another column as label."
        )
    return ""


def _is_number(label: str) -> bool:
    try:
        float(label.replace(",", ""))
    except ValueError:
        return False
    return True
