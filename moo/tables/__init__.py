"""Reader of tables for training, checks, monitoring and masking: CSV, JSON Lines and Parquet by the same strict rules.

A file is streamed. Each cell is read by itself: no type is inferred from other rows, so that no value of one record
depends on another record. A malformed row is refused with file and line.
"""

from typing import TYPE_CHECKING

from moo.core.lazy_names import lazy_names
from moo.tables.reading import FORMATS, Reading, format_of

__all__ = ["FORMATS", "Batch", "Reading", "Table", "format_of", "open_table"]

if TYPE_CHECKING:
    from moo.tables.base import Batch, Table
    from moo.tables.opening import open_table

_HOMES = {"Batch": "moo.tables.base", "Table": "moo.tables.base", "open_table": "moo.tables.opening"}
__getattr__ = lazy_names(__name__, _HOMES)
