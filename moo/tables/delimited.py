"""CSV by strict rules: as many fields in each row as in the header, double quotes, LF or CR LF.

Arrow parses blocks in which every quote opens or closes a whole field; it then agrees with Python's strict reader. At
the first other block, or one that Arrow refuses, Python's reader takes over and names the line.
"""

import csv
import re
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa

from moo.core.errors import InputError
from moo.tables.base import Batch, Progress, Table, silent
from moo.tables.blocks import parse_block
from moo.tables.cells import without
from moo.tables.lines import MAX_LINE, read_lines
from moo.tables.reading import SEPARATORS, UTF8, Reading

_ROWS = 50_000
_EVERY = 500  # records between two reports of progress
BLOCK = 16 << 20  # bytes


class DelimitedTable(Table):
    """A table in CSV.

    Attributes:
        separator: What stands between its fields.
    """

    def __init__(self, path: Path, reading: Reading) -> None:
        super().__init__(path, reading)
        csv.field_size_limit(max(csv.field_size_limit(), MAX_LINE))
        with path.open("rb") as raw:
            text, self._lines = self._header_text(raw)
            self._offset = raw.tell()
        self.separator = reading.separator or self._found_separator(text)
        lines = re.findall(r"[^\n]*\n|[^\n]+", text)
        names = next(row for _, row in self._rows(iter(lines), before=self._lines - len(lines)))
        self.columns = self.named(names)

    def batches(self, wanted: Sequence[str]) -> Iterator[Batch]:
        with self.path.open("rb") as raw:
            raw.seek(self._offset)
            at, line, rest = self._offset, self._lines, b""
            while self.reading.encoding == UTF8 and (chunk := raw.read(BLOCK)):
                block = rest + chunk
                parsed = parse_block(block, columns=self.columns, wanted=wanted, separator=self.separator)
                if parsed is None:
                    break
                if len(parsed.lines):
                    yield self._batch(parsed.cells, parsed.lines + line)
                at, line, rest = at + parsed.used, line + parsed.n_lines, block[parsed.used :]
            raw.seek(
                at
            )  # what is left: nothing, a last line without an end, or all from the first block that is not plain
            yield from self._slow(raw, line, wanted)

    def records(self, progress: Progress = silent) -> Iterator[dict[str, str]]:
        """Yield each row as column -> value, as it is in the file; raises as `batches` does."""
        total = self.path.stat().st_size
        with self.path.open("rb") as raw:
            raw.seek(self._offset)
            for row, (_, cells) in enumerate(self._body(raw, self._lines)):
                if row % _EVERY == 0:
                    progress(raw.tell(), total)
                yield dict(zip(self.columns, cells, strict=True))
        progress(total, total)

    def _slow(self, raw: IO[bytes], line: int, wanted: Sequence[str]) -> Iterator[Batch]:
        at = [self.columns.index(name) if name in self.columns else -1 for name in wanted]
        lines: list[int] = []
        cells: list[list[str | None]] = [[] for _ in wanted]
        for number, row in chain(self._body(raw, line), [(0, [])]):
            if len(lines) == _ROWS or (lines and not number):
                texts = {n: pa.array(c, pa.string()) for n, c in zip(wanted, cells, strict=True)}
                yield self._batch(texts, np.array(lines, dtype=np.int64))
                lines, cells = [], [[] for _ in wanted]
            if number:
                lines.append(number)
                for index, column in zip(at, cells, strict=True):
                    column.append(None if index < 0 else row[index])

    def _batch(self, cells: Any, lines: Any) -> Batch:
        return Batch(cells={n: without(a, self.reading.na_values) for n, a in cells.items()}, lines=lines)

    def _body(self, raw: IO[bytes], before: int) -> Iterator[tuple[int, list[str]]]:
        lines = read_lines(raw, self.path, encoding=self.reading.encoding, before=before)
        for line, row in self._rows(lines, before=before):
            if len(row) != len(self.columns):
                raise InputError(
                    "{path}:{line}: a row must hold {n_columns} fields, as the header does, but holds "
                    "{n_row}; put quotes around fields with a separator in them, and take away separators at "
                    "the end of rows.",
                    path=self.path,
                    line=line,
                    n_columns=len(self.columns),
                    n_row=len(row),
                )
            yield line, row

    def _rows(self, lines: Iterator[str], *, before: int) -> Iterator[tuple[int, list[str]]]:
        """Yield rows that are not blank, each with the line on which it begins."""
        reader = csv.reader(lines, delimiter=self.separator, strict=True)
        begins = before + 1
        try:
            for row in reader:
                if row:
                    yield begins, row
                begins = before + reader.line_num + 1
        except csv.Error as error:
            raise InputError(
                "{path}:{begins}: a row must be CSV with double quotes around whole fields, but the one "
                "that begins here is not (read to line {before}: {error}).",
                path=self.path,
                begins=begins,
                before=before + reader.line_num,
                error=error,
            ) from error

    def _header_text(self, raw: IO[bytes]) -> tuple[str, int]:
        """Return the header, which may hold quoted line ends, and the number of lines up to its end."""
        text, line = "", 0
        for more in read_lines(raw, self.path, encoding=self.reading.encoding):
            text, line = text + more, line + 1
            if text.strip("\r\n") and text.count('"') % 2 == 0:
                break
            text = text if text.strip("\r\n") else ""
        if not text.strip("\r\n"):
            raise InputError(
                "{path} must be a readable csv table that begins with a line of column names, but is empty.",
                path=self.path,
            )
        return text, line

    def _found_separator(self, header: str) -> str:
        bare = re.sub(r'"[^"]*"', "", header)
        found = [s for s in SEPARATORS if s in bare]
        if len(found) > 1:
            raise InputError(
                "{path}:1: one separator must be seen in the header, but got {repr}; declare it: "
                'separator = ",", ";" or "tab".',
                path=self.path,
                repr=" and ".join(map(repr, found)),
            )
        return found[0] if found else SEPARATORS[0]
