"""Parser of a block of plain CSV by Arrow, with the line of each row; it declines what is ambiguous."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.csv
from numpy.typing import NDArray

from moo.tables.lines import MAX_LINE

_NUL, _LF, _CR, _QUOTE = 0, 10, 13, 34


@dataclass(frozen=True, kw_only=True)
class Parsed:
    """Whole rows at the beginning of a block.

    Attributes:
        cells: Column -> n texts.
        lines: Shape (n,). Line on which each row begins, from 1 within the block.
        used: Bytes of the block that were read.
        n_lines: Lines in those bytes.
    """

    cells: Mapping[str, pa.Array]
    lines: NDArray[np.int64]
    used: int
    n_lines: int


def parse_block(block: bytes, *, columns: Sequence[str], wanted: Sequence[str], separator: str) -> Parsed | None:
    """Parse the whole rows of a block that begins with a row.

    Args:
        block: Bytes in UTF-8.
        columns: Names of all columns.
        wanted: Columns to return; null where the table lacks one.
        separator: Separator, one byte.

    Returns:
        The rows; None if the block has no whole row, or anything that Arrow and a strict reader might read differently.
    """
    bytes_ = np.frombuffer(block, dtype=np.uint8)
    newlines, quotes = np.flatnonzero(bytes_ == _LF), np.flatnonzero(bytes_ == _QUOTE)
    ends = newlines[np.searchsorted(quotes, newlines) % 2 == 0]
    if not len(ends):
        return None
    used = int(ends[-1]) + 1
    starts = np.concatenate([[0], ends[:-1] + 1])
    quotes = quotes[: np.searchsorted(quotes, used)]
    if (ends - starts > MAX_LINE).any() or not _is_plain(bytes_[:used], quotes, ord(separator)):
        return None
    blank = (bytes_[starts] == _LF) | (bytes_[starts] == _CR)
    cells = _cells(block[:used], columns, wanted, separator, int((~blank).sum()))
    if cells is None:
        return None
    return Parsed(
        cells=cells,
        lines=np.searchsorted(newlines, starts[~blank]).astype(np.int64) + 1,
        used=used,
        n_lines=int(np.searchsorted(newlines, used)),
    )


def _is_plain(block: NDArray[np.uint8], quotes: NDArray[np.int64], separator: int) -> bool:
    """Return True if there are no NULs, no bare CRs, and each quote opens, closes or doubles within a whole field."""
    if (block == _NUL).any():
        return False
    returns = np.flatnonzero(block == _CR)
    # the block ends in LF, so that there is a next byte
    if len(returns) and (block[returns + 1] != _LF).any():
        return False
    opening, closing = quotes[0::2], quotes[1::2]
    before = block[opening[opening > 0] - 1]
    return bool(np.isin(before, (separator, _LF, _QUOTE)).all()) and bool(
        np.isin(block[closing + 1], (separator, _LF, _CR, _QUOTE)).all()
    )


def _cells(
    block: bytes, columns: Sequence[str], wanted: Sequence[str], separator: str, n: int
) -> Mapping[str, pa.Array] | None:
    there = [name for name in wanted if name in columns]
    numbers = {name: str(columns.index(name)) for name in there or columns[:1]}
    if not n:
        return {name: pa.nulls(0, pa.string()) for name in wanted}
    text = pa.Array.from_buffers(
        pa.large_string(), 1, [None, pa.py_buffer(np.array([0, len(block)], dtype=np.int64)), pa.py_buffer(block)]
    )
    try:
        # UTF-8 in every column, read or not
        text.validate(full=True)
        table = pyarrow.csv.read_csv(
            pa.BufferReader(block),
            read_options=pyarrow.csv.ReadOptions(
                column_names=[str(i) for i in range(len(columns))], block_size=len(block) + 1
            ),
            parse_options=pyarrow.csv.ParseOptions(delimiter=separator, newlines_in_values=True),
            convert_options=pyarrow.csv.ConvertOptions(
                include_columns=[*numbers.values()],
                column_types=dict.fromkeys(numbers.values(), pa.string()),
                strings_can_be_null=False,
            ),
        )
    except pa.ArrowInvalid:
        return None
    if table.num_rows != n:
        return None
    cells = {name: table.column(number).combine_chunks() for name, number in numbers.items()}
    return {name: cells.get(name) if name in there else pa.nulls(n, pa.string()) for name in wanted}
