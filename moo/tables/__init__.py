"""The one reader of tables, for training, checks, watching and masking: CSV, JSON Lines and Parquet by the same strict rules.

A file is streamed. Each cell is read by itself: no type is inferred from other rows, so that no value of one record depends on
another record. What breaks the rules is refused with file and line.
"""

from moo.tables.base import Batch, Table
from moo.tables.opening import open_table
from moo.tables.reading import FORMATS, Reading, format_of

__all__ = ["FORMATS", "Batch", "Reading", "Table", "format_of", "open_table"]
