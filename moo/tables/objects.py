"""Reader of JSON Lines: one object a line; the columns are the union over all lines."""

import json
import re
from collections.abc import Iterator, Sequence
from typing import IO, Any

import numpy as np

from moo.core.errors import InputError
from moo.tables.base import Batch, Progress, Table, silent
from moo.tables.cells import NestedError, Written, texts_of, without
from moo.tables.lines import read_lines

_ROWS = 50_000
# records between two reports of progress
_EVERY = 500
# escape with which JSON can name half of a character
_HALF = re.compile(r"\\u[dD][89a-fA-F]")
_HALVES = re.compile("[\ud800-\udfff]")


class ObjectTable(Table):
    """A table in JSON Lines."""

    def batches(self, wanted: Sequence[str]) -> Iterator[Batch]:
        lines: list[int] = []
        cells: list[list[Any]] = [[] for _ in wanted]
        with self.path.open("rb") as raw:
            for line, record in self._objects(raw):
                lines.append(line)
                for name, column in zip(wanted, cells, strict=True):
                    column.append(record.get(name))
                if len(lines) == _ROWS:
                    yield self._batch(wanted, cells, lines)
                    lines, cells = [], [[] for _ in wanted]
        if lines:
            yield self._batch(wanted, cells, lines)

    def records(self, progress: Progress = silent) -> Iterator[dict[str, Any]]:
        """Yield each row as column -> value, as in the file.

        Args:
            progress: Callback with the bytes read and the bytes in all.

        Raises:
            InputError: With file and line, at the first malformed row.
        """
        total = self.path.stat().st_size
        with self.path.open("rb") as raw:
            for row, (_, record) in enumerate(self._objects(raw)):
                if row % _EVERY == 0:
                    progress(raw.tell(), total)
                yield record
        progress(total, total)

    def _batch(self, wanted: Sequence[str], cells: list[list[Any]], lines: list[int]) -> Batch:
        out = {}
        for name, column in zip(wanted, cells, strict=True):
            try:
                out[name] = without(texts_of(column), self.reading.na_values)
            except NestedError as error:
                raise error.at(self.place(lines[error.row]), name) from None
        return Batch(cells=out, lines=np.array(lines, dtype=np.int64))

    def _objects(self, raw: IO[bytes]) -> Iterator[tuple[int, dict[str, Any]]]:
        known = dict.fromkeys(self.columns)
        for line, text in enumerate(read_lines(raw, self.path, encoding=self.reading.encoding), start=1):
            if not text.strip():
                continue
            record = self._object(text, line)
            if not record.keys() <= known.keys():
                known.update(dict.fromkeys(record))
                self.columns = tuple(known)
            yield line, record

    def _object(self, text: str, line: int) -> dict[str, Any]:
        try:
            record = _DECODER.decode(text)
            # more colons than keys: look for a repeated key
            if isinstance(record, dict) and text.count(":") > len(record):
                record = _STRICT.decode(text)
        except (ValueError, RecursionError) as error:
            where = f"column {error.colno}: {error.msg}" if isinstance(error, json.JSONDecodeError) else str(error)
            raise InputError(
                "{place}: a line must be one JSON object, but at {where}; correct it.",
                place=self.place(line),
                where=where,
            ) from error
        if not isinstance(record, dict):
            raise InputError(
                "{place}: a line must be one JSON object, got {type}.",
                place=self.place(line),
                type=type(record).__name__,
            )
        if "\\u" in text and _HALF.search(text) and (half := _HALVES.search(json.dumps(record, ensure_ascii=False))):
            raise InputError(
                "{place}: a line must hold whole characters, got half of one ({half!a}); correct it.",
                place=self.place(line),
                half=half.group(),
            )
        return record


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"key {twice!r}, which stands {names.count(twice)} times; columns must have different names")
    return out


_DECODER = json.JSONDecoder(parse_float=Written)
_STRICT = json.JSONDecoder(parse_float=Written, object_pairs_hook=_once)
