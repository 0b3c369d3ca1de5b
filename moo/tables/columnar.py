"""Parquet: columns of declared types, read in batches of rows."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from moo.core.errors import InputError
from moo.tables.base import Batch, Table
from moo.tables.cells import NestedError, texts_of_array, without
from moo.tables.reading import Reading

_ROWS = 100_000
_ROWS_OF_RECORDS = 4096


class ParquetTable(Table):
    """A table in Parquet.

    Attributes:
        schema: Names and types of its columns.
    """

    def __init__(self, path: Path, reading: Reading) -> None:
        super().__init__(path, reading)
        with self._opened() as file:
            self.schema: pa.Schema = file.schema_arrow
        self.columns = self.named([str(name) for name in self.schema.names])

    def place(self, line: int) -> str:
        return f"{self.path}, row {line}"

    def batches(self, wanted: Sequence[str]) -> Iterator[Batch]:
        there = [name for name in wanted if name in self.columns]
        at = 0
        for found in self.record_batches(there or self.columns[:1], rows=_ROWS):
            cells = {name: pa.nulls(found.num_rows, pa.string()) for name in wanted}
            for name in there:
                try:
                    cells[name] = without(texts_of_array(found.column(name)), self.reading.na_values)
                except NestedError as error:
                    raise error.at(self.place(at + error.row + 1), name) from None
                except pa.ArrowInvalid:
                    raise InputError(
                        "{path}: column {name!r} must be UTF-8, but is not; convert it.", path=self.path, name=name
                    ) from None
            yield Batch(cells=cells, lines=np.arange(at + 1, at + found.num_rows + 1))
            at += found.num_rows

    def record_batches(self, wanted: Sequence[str], *, rows: int = _ROWS_OF_RECORDS) -> Iterator[pa.RecordBatch]:
        """Yield batches of the wanted columns in their own types; a batch is never empty."""
        with self._opened() as file:
            for batch in file.iter_batches(batch_size=rows, columns=list(wanted)):
                if batch.num_rows:
                    yield batch

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        with self._opened() as file:
            return int(file.metadata.num_rows)

    @contextmanager
    def _opened(self) -> Iterator[pq.ParquetFile]:
        try:
            with pq.ParquetFile(self.path) as file:
                yield file
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(
                "{path} must be a readable parquet table, but: {error}.",
                path=self.path,
                error=str(error).splitlines()[0],
            ) from error
