"""Files masked record by record: CSV, JSON Lines and Parquet, streamed, and written whole or not at all."""

import csv
import json
import os
import re
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from moo import validate
from moo.entities import ENTITY_LEVELS
from moo.errors import InputError, StorageError
from moo.masking.columns import KEEP, TEXT, Columns, Seen
from moo.masking.lines import MAX_LINE, read_lines
from moo.masking.parallel import mask_records

FORMATS = (".csv", ".jsonl", ".parquet")
Progress = Callable[[int, int], None]  # done and in all, in bytes (rows for Parquet)
_TOLD_EVERY = 500  # records
_BATCH = 4096  # rows of Parquet at a time
_HALF = re.compile(r"\\u[dD][89a-fA-F]")  # how JSON can name half of a character
_HALVES = re.compile("[\ud800-\udfff]")
MAX_WORKERS = 256


@dataclass(frozen=True, kw_only=True)
class Masked:
    """What was done to a file.

    Attributes:
        rows: Records written.
        columns: Column -> what it was taken as.
        seen: (column, type, why) -> mentions masked.
    """

    rows: int
    columns: Mapping[str, str]
    seen: Seen


def _silent(_done: int, _total: int) -> None:
    pass


def mask_file(
    source: Path, target: Path, columns: Columns, *, progress: Progress = _silent, workers: int = 1
) -> Masked:
    """Mask a table into another of the same format.

    Args:
        source: CSV or JSON Lines in UTF-8, or Parquet; read a record at a time.
        target: Written beside itself under another name and moved there when all is done: whatever fails leaves nothing behind.
        columns: What each column is, the level and the operators.
        progress: Told how far it is.
        workers: Processes that mask; the result is the same.

    Raises:
        InputError: If the file or a column is missing, or a place of it cannot be read: the error names line and byte.
        StorageError: If the target cannot be written.
    """
    validate.in_range(1, MAX_WORKERS, workers=workers)
    if source.suffix not in FORMATS:
        raise InputError(f"a file to mask must end in {', '.join(FORMATS)}, but got {source}.")
    if target.suffix != source.suffix:
        raise InputError(f"the target must have the source's format, {source.suffix}, but got {target}.")
    if not source.is_file():
        raise InputError(f"a file to mask must be readable, but got {source} (no such file).")
    if target.exists() and target.samefile(source):
        raise InputError(f"the target must be another file than the source, but got {target} for both.")
    partial = target.with_name(f".{target.name}.{os.getpid()}")
    work = {".csv": _mask_csv, ".jsonl": _mask_jsonl, ".parquet": _mask_parquet}[source.suffix]
    try:
        masked = work(source, partial, columns, progress, workers)
        os.replace(partial, target)
    except InputError:
        raise
    except OSError as error:
        raise StorageError(f"{target} must be writable, but: {error.strerror or error}.") from error
    finally:
        with suppress(OSError):
            partial.unlink()
    return masked


def _mask_csv(source: Path, partial: Path, columns: Columns, progress: Progress, workers: int) -> Masked:
    total, seen, rows = source.stat().st_size, Counter[tuple[str, str, str]](), 0
    before = csv.field_size_limit(MAX_LINE)
    try:
        with open(source, "rb") as raw, open(partial, "w", encoding="utf-8", newline="") as out:
            reader = csv.reader(read_lines(raw, source), strict=True)
            header = _next_row(reader, source)
            if not header:
                raise InputError(f"{source} must begin with a line of column names, but is empty.")
            if len(set(header)) < len(header):
                raise InputError(f"the columns of {source} must have different names, but got {header}.")
            columns.check(header, source)
            writer = csv.writer(out, lineterminator="\n")
            writer.writerow(header)
            for record in mask_records(_csv_records(reader, header, source), columns, seen, workers=workers):
                writer.writerow(record.values())
                rows += 1
                _tell(progress, raw, rows, total)
    finally:
        csv.field_size_limit(before)
    progress(total, total)
    return Masked(rows=rows, columns={c: columns.role(c) for c in header}, seen=seen)


def _csv_records(reader: Any, header: list[str], source: Path) -> Iterator[dict[str, str]]:
    while row := _next_row(reader, source):
        if len(row) != len(header):
            raise InputError(
                f"{source}, line {reader.line_num} must hold {len(header)} fields, as the first line does, but holds {len(row)}."
            )
        yield dict(zip(header, row, strict=True))


def _next_row(reader: Any, source: Path) -> list[str]:
    """The next row that is not blank; an empty list at the end."""
    try:
        for row in reader:
            if row:
                return list(row)
    except csv.Error as error:
        raise InputError(
            f"{source} must be CSV with commas and double quotes, but line {reader.line_num}: {error}."
        ) from error
    return []


def _tell(progress: Progress, raw: IO[bytes], rows: int, total: int) -> None:
    if rows % _TOLD_EVERY == 0:
        progress(raw.tell(), total)


def _mask_jsonl(source: Path, partial: Path, columns: Columns, progress: Progress, workers: int) -> Masked:
    total, seen, rows = source.stat().st_size, Counter[tuple[str, str, str]](), 0
    names: dict[str, str] = {}
    with open(source, "rb") as raw, open(partial, "wb") as out:
        for record in mask_records(_json_records(raw, source, columns, names), columns, seen, workers=workers):
            out.write(json.dumps(record, ensure_ascii=False).encode() + b"\n")
            rows += 1
            _tell(progress, raw, rows, total)
    columns.check([*names], source)
    progress(total, total)
    return Masked(rows=rows, columns=names, seen=seen)


def _json_records(raw: IO[bytes], source: Path, columns: Columns, names: dict[str, str]) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(read_lines(raw, source), start=1):
        if not line.strip():
            continue
        record = _record(line, number, source)
        if _HALF.search(line) and (half := _HALVES.search(json.dumps(record, ensure_ascii=False))):
            raise InputError(
                f"{source}, line {number} must hold whole characters, but holds half of one ({half.group()!a})."
            )
        names.update((c, columns.role(c)) for c in record)
        yield record


def _record(line: str, number: int, source: Path) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        told = f"column {error.colno}: {error.msg}" if isinstance(error, json.JSONDecodeError) else str(error)
        raise InputError(f"{source}, line {number} must be one JSON object, but at {told}.") from error
    if not isinstance(record, dict):
        raise InputError(f"{source}, line {number} must be one JSON object, but is {type(record).__name__}.")
    return record


def _mask_parquet(source: Path, partial: Path, columns: Columns, progress: Progress, workers: int) -> Masked:
    seen, rows = Counter[tuple[str, str, str]](), 0
    try:
        with pq.ParquetFile(source) as file:
            columns.check(file.schema_arrow.names, source)
            roles = {f.name: _parquet_role(f, columns, source) for f in file.schema_arrow}
            plan = Columns(level=columns.level, roles=roles, operators=columns.operators, ner=columns.ner)
            schema = pa.schema([_out_field(f, roles[f.name], columns.level) for f in file.schema_arrow])
            with pq.ParquetWriter(partial, schema) as writer:
                touched = [n for n in schema.names if roles[n] != KEEP]
                batches: deque[pa.RecordBatch] = deque()  # read, and not written yet
                records = mask_records(_parquet_records(file, touched, batches), plan, seen, workers=workers)
                while (first := next(records, None)) is not None:
                    batch = batches.popleft()
                    masked = [first, *islice(records, batch.num_rows - 1)]
                    writer.write_batch(_masked_batch(batch, schema, touched, masked))
                    rows += batch.num_rows
                    progress(rows, file.metadata.num_rows)
    except pa.ArrowException as error:
        raise InputError(f"{source} must be readable Parquet, but: {str(error).splitlines()[0]}.") from error
    return Masked(rows=rows, columns=roles, seen=seen)


def _is_string(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        return _is_string(kind.value_type)
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _parquet_role(column: pa.Field, columns: Columns, source: Path) -> str:
    """Numbers that nobody named stay; a nested column must be named, so that none goes through unseen."""
    role = columns.role(column.name)
    if role == TEXT and not _is_string(column.type):
        if pa.types.is_nested(column.type) or pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type):
            raise InputError(
                f"column {column.name!r} of {source} must hold text or numbers, but holds {column.type}; flatten it, or name it with "
                f"{column.name}={KEEP} to leave it as it is."
            )
        return KEEP
    return role


def _out_field(column: pa.Field, role: str, level: int) -> pa.Field:
    masked = role in ENTITY_LEVELS and ENTITY_LEVELS[role] <= level
    return pa.field(column.name, pa.string()) if masked or role == TEXT else column


def _parquet_records(
    file: pq.ParquetFile, touched: list[str], batches: "deque[pa.RecordBatch]"
) -> Iterator[dict[str, Any]]:
    for batch in file.iter_batches(batch_size=_BATCH):
        if batch.num_rows:
            batches.append(batch)
            yield from batch.select(touched).to_pylist() if touched else [{}] * batch.num_rows


def _masked_batch(
    batch: pa.RecordBatch, schema: pa.Schema, touched: list[str], records: list[dict[str, Any]]
) -> pa.RecordBatch:
    arrays = []
    for column in schema:
        if column.name in touched and pa.types.is_string(column.type):
            values = [r[column.name] for r in records]
            arrays.append(pa.array([v if v is None else str(v) for v in values], type=column.type))
        else:
            arrays.append(batch.column(column.name))
    return pa.RecordBatch.from_arrays(arrays, schema=schema)
