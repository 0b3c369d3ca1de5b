"""Masking of files record by record: CSV, JSON Lines and Parquet, streamed, and written whole or not at all."""

import csv
import json
import os
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from moo.core import validate
from moo.core.errors import InputError, StorageError
from moo.core.personal_data_types import ENTITY_LEVELS
from moo.masking.ladder import mask
from moo.masking.tables.columns import KEEP, TEXT, ColumnPlan, MentionCounts
from moo.masking.tables.key_columns import ROWS as KEY_ROWS
from moo.masking.tables.key_columns import KeySearch
from moo.masking.tables.numbers import digits_of
from moo.masking.tables.parallel import mask_records
from moo.tables import Reading, format_of, open_table
from moo.tables.base import Progress, silent
from moo.tables.columnar import ParquetTable
from moo.tables.delimited import DelimitedTable
from moo.tables.objects import ObjectTable
from moo.tables.reading import SEPARATORS

MAX_WORKERS = 256


@dataclass(frozen=True, kw_only=True)
class MaskedFile:
    """Account of the masking of a file.

    Attributes:
        rows: Records written.
        columns: Column -> its role: "text", "keep" or an entity type.
        counts: (column, type, reason) -> mentions masked.
        keys: Columns that are left and identify rows.
    """

    rows: int
    columns: Mapping[str, str]
    counts: MentionCounts
    keys: tuple[str, ...] = ()


def mask_file(
    source: Path,
    target: Path,
    plan: ColumnPlan,
    *,
    progress: Progress = silent,
    workers: int = 1,
    reading: Reading | None = None,
) -> MaskedFile:
    """Mask a table into another of the same format.

    Args:
        source: File in CSV, JSON Lines or Parquet; read a record at a time.
        target: File to write. It appears when all is done: a failure leaves nothing behind.
        plan: Role of each column, the level and the operators.
        progress: Callback with the work done and the work in all.
        workers: Processes that mask; the result is the same.
        reading: Encoding and separator of the source. The target has its separator, and is in UTF-8.

    Raises:
        InputError: If the file or a column is missing, or a row is malformed: the error names the line.
        StorageError: If the target cannot be written.
    """
    validate.in_range(1, MAX_WORKERS, workers=workers)
    source, target = source.expanduser(), target.expanduser()
    if format_of(target) != format_of(source):
        raise InputError(
            "The target must have the format of the source, {suffix}, got {target}.",
            suffix=source.suffix,
            target=target,
        )
    table = open_table(source, reading)
    if target.exists() and target.samefile(source):
        raise InputError("The target must be another file than the source, got {target} for both.", target=target)
    partial = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        match table:
            case ParquetTable():
                masked = _mask_parquet(table, partial, plan, progress, workers)
            case DelimitedTable():
                masked = _mask_delimited(table, partial, plan, progress, workers)
            case _:
                masked = _mask_objects(table, partial, plan, progress, workers)
        os.replace(partial, target)
    except InputError:
        raise
    except OSError as error:
        raise StorageError(
            "{target} must be writable, but: {cause}; choose another target or free the disk.",
            target=target,
            cause=error.strerror or error,
        ) from error
    finally:
        with suppress(OSError):
            partial.unlink()
    return masked


def _mask_delimited(
    table: DelimitedTable, partial: Path, plan: ColumnPlan, progress: Progress, workers: int
) -> MaskedFile:
    counts, rows, search = MentionCounts(), 0, KeySearch()
    plan.check([*table.columns], table.path)
    with open(partial, "w", encoding="utf-8", newline="") as out:
        writer = csv.writer(out, delimiter=table.separator, lineterminator="\n")
        _write_header(out, table)
        for record in mask_records(table.records(progress), plan, counts, workers=workers):
            writer.writerow(record.values())
            search.add(record)
            rows += 1
    return MaskedFile(
        rows=rows, columns={c: plan.role(c) for c in table.columns}, counts=counts, keys=search.keys(table.columns)
    )


def _write_header(out: IO[str], table: DelimitedTable) -> None:
    """Write the names of the columns, all in quotes if one holds a separator."""
    others = any(s in name for name in table.columns for s in SEPARATORS)
    csv.writer(
        out,
        delimiter=table.separator,
        lineterminator="\n",
        quoting=csv.QUOTE_ALL if others else csv.QUOTE_MINIMAL,
    ).writerow(table.columns)


def _mask_objects(table: ObjectTable, partial: Path, plan: ColumnPlan, progress: Progress, workers: int) -> MaskedFile:
    counts, rows, search = MentionCounts(), 0, KeySearch()
    with open(partial, "wb") as out:
        for record in mask_records(table.records(progress), plan, counts, workers=workers):
            out.write(json.dumps(record, ensure_ascii=False).encode() + b"\n")
            search.add(record)
            rows += 1
    plan.check([*table.columns], table.path)
    return MaskedFile(
        rows=rows, columns={c: plan.role(c) for c in table.columns}, counts=counts, keys=search.keys(table.columns)
    )


def _mask_parquet(table: ParquetTable, partial: Path, plan: ColumnPlan, progress: Progress, workers: int) -> MaskedFile:
    counts, rows, total, search = MentionCounts(), 0, table.n_rows, KeySearch()
    plan.check([*table.columns], table.path)
    roles = {f.name: _parquet_role(f, plan, table) for f in table.schema}
    whole_plan = replace(plan, roles=roles)
    schema = pa.schema([_out_field(f, roles[f.name], plan.level) for f in table.schema])
    with pq.ParquetWriter(partial, schema) as writer:
        touched = [n for n in schema.names if roles[n] != KEEP]
        # read, and not written yet
        batches: deque[pa.RecordBatch] = deque()
        records = mask_records(_parquet_records(table, touched, batches), whole_plan, counts, workers=workers)
        while (first := next(records, None)) is not None:
            batch = batches.popleft()
            masked = [first, *islice(records, batch.num_rows - 1)]
            written = _masked_batch(batch, schema, touched, masked)
            writer.write_batch(written)
            for record in written.slice(0, max(0, KEY_ROWS - rows)).to_pylist():
                search.add(record)
            rows += batch.num_rows
            progress(rows, total)
    return MaskedFile(rows=rows, columns=roles, counts=counts, keys=search.keys(table.columns))


def _is_string(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        return _is_string(kind.value_type)
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _parquet_role(column: pa.Field, plan: ColumnPlan, table: ParquetTable) -> str:
    """Return the role of a column: a column of numbers that is not named is kept unless one would be masked.

    Raises:
        InputError: If the column is nested and the plan does not name it: none goes through unseen.
    """
    role = plan.role(column.name)
    if role == TEXT and not _is_string(column.type):
        if pa.types.is_nested(column.type) or pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type):
            raise InputError(
                "Column {name!r} of {path} must hold text or numbers, got {type}; flatten it, or name it with "
                "{name}={keep} to leave it as it is.",
                name=column.name,
                path=table.path,
                type=column.type,
                keep=KEEP,
            )
        return TEXT if _holds_identifiers(column, plan, table) else KEEP
    return role


def _holds_identifiers(column: pa.Field, plan: ColumnPlan, table: ParquetTable) -> bool:
    """Return True if the level masks a number of the column; the column is then written as texts."""
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)):
        return False
    return any(
        mask(digits, plan.level) != digits
        for batch in table.record_batches([column.name])
        for value in batch.column(0).unique().to_pylist()
        if (digits := digits_of(value))
    )


def _out_field(column: pa.Field, role: str, level: int) -> pa.Field:
    masked = role in ENTITY_LEVELS and ENTITY_LEVELS[role] <= level
    return pa.field(column.name, pa.string()) if masked or role == TEXT else column


def _parquet_records(
    table: ParquetTable, touched: list[str], batches: "deque[pa.RecordBatch]"
) -> Iterator[dict[str, Any]]:
    for batch in table.record_batches(table.columns):
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
