"""Batches of text cells with their places, and the interface that every format of table implements."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from moo.core.errors import InputError
from moo.tables.reading import Reading

# bytes (rows of Parquet) done, and in all
Progress = Callable[[int, int], None]


def silent(_done: int, _total: int) -> None:
    """Ignore the progress."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Consecutive rows of some columns.

    Attributes:
        cells: Column -> n texts, null where the cell is empty.
        lines: Shape (n,). Line of the file on which each row begins, from 1; in Parquet the number of the row.
    """

    cells: Mapping[str, pa.Array]
    lines: NDArray[np.int64]

    def frame(self) -> pd.DataFrame:
        """Return the cells as texts, NaN where a cell is empty."""
        columns = {name: array.to_pandas() for name, array in self.cells.items()}
        return pd.DataFrame(columns, index=pd.RangeIndex(len(self.lines)))


class Table(ABC):
    """A table in a file.

    Attributes:
        path: Path of the file.
        reading: Encoding, separator and empty values.
        columns: Names of its columns; of JSON Lines those so far, all of them once its rows have been read.
    """

    def __init__(self, path: Path, reading: Reading) -> None:
        self.path, self.reading = path, reading
        self.columns: tuple[str, ...] = ()

    @abstractmethod
    def batches(self, wanted: Sequence[str]) -> Iterator[Batch]:
        """Yield all rows in order; a wanted column that the table lacks is empty in each row.

        Raises:
            InputError: With file and line, at the first row that is malformed or has a nested wanted cell.
        """

    def require(self, *names: str) -> None:
        """Raise if the table lacks a column.

        Raises:
            InputError: If a column is missing.
        """
        for name in names:
            if name not in self.columns:
                raise InputError(
                    "column {name!r} must be in {path}, but it has {columns}.",
                    name=name,
                    path=self.path,
                    columns=list(self.columns),
                )

    def place(self, line: int) -> str:
        """Return the name of a row's place, from its entry in `Batch.lines`."""
        return f"{self.path}:{line}"

    def named(self, names: Sequence[str]) -> tuple[str, ...]:
        """Return the names of columns, all different.

        Raises:
            InputError: If two are the same.
        """
        twice = sorted({name for name in names if list(names).count(name) > 1})
        if twice:
            raise InputError(
                "{value}: columns must have different names, got {twice!r} {count} times; rename or remove them.",
                value=self.place(1) if self.path.suffix.lower() != ".parquet" else self.path,
                twice=twice[0],
                count=list(names).count(twice[0]),
            )
        return tuple(names)
