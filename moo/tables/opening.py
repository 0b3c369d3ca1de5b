"""Opening of a path as a table, by its ending."""

from pathlib import Path

from moo.core.errors import InputError
from moo.tables.columnar import ParquetTable
from moo.tables.delimited import DelimitedTable
from moo.tables.objects import ObjectTable
from moo.tables.reading import Reading, format_of

AnyTable = DelimitedTable | ObjectTable | ParquetTable
_KINDS: dict[str, type[AnyTable]] = {
    ".csv": DelimitedTable,
    ".tsv": DelimitedTable,
    ".jsonl": ObjectTable,
    ".parquet": ParquetTable,
}


def open_table(path: str | Path, reading: Reading | None = None) -> AnyTable:
    """Open a table and read its header.

    Args:
        path: File in CSV, JSON Lines or Parquet; "~" is the user's home.
        reading: Encoding, separator and empty values of the file.

    Raises:
        InputError: If there is no such file, or its header cannot be read.
    """
    source = Path(path).expanduser()
    kind = _KINDS[format_of(source)]
    try:
        with source.open("rb"):
            pass
    except OSError as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else (error.strerror or str(error)).lower()
        raise InputError(
            "data must be a readable file, got {source} ({reason}).", source=source, reason=reason
        ) from error
    return kind(source, reading or Reading())
