"""Search for columns that still identify rows after masking: ids and order numbers, which join a row to its person."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

_NAMED = re.compile(
    r"(?:^|[_\s.\-])(?:id|ids|uid|uuid|guid|key|no|nr|number|num|ref|account|acct|serial)$"
    r"|(?<=[a-z])(?:Id|ID|No)$|编号|号码|单号|账号|帐号|流水号|(?<![A-Za-z])[iI][dD]$"
)
# rows that are read
ROWS = 2000
# rows below which values decide nothing
_FEWEST = 20
# share of different values that makes a key
_SHARE = 0.9
_KEY = re.compile(r"[A-Za-z0-9_\-./#:]*[0-9][A-Za-z0-9_\-./#:]*")


class KeySearch:
    """Search for key columns in the rows that are written."""

    def __init__(self) -> None:
        self._rows = 0
        self._values: dict[str, set[str]] = {}
        self._shown: dict[str, int] = {}

    def add(self, record: Mapping[str, Any]) -> None:
        """Add one masked row."""
        if self._rows >= ROWS:
            return
        self._rows += 1
        for column, value in record.items():
            text = str(value)
            if not isinstance(value, bool) and isinstance(value, str | int) and _KEY.fullmatch(text):
                self._values.setdefault(column, set()).add(text)
                self._shown[column] = self._shown.get(column, 0) + 1

    def keys(self, columns: Iterable[str]) -> tuple[str, ...]:
        """Return the columns with values left that are keys by their name or by their values."""
        return tuple(c for c in columns if self._shown.get(c) and (_NAMED.search(c) or self._different(c)))

    def _different(self, column: str) -> bool:
        shown = self._shown[column]
        return shown >= _FEWEST and shown > self._rows / 2 and len(self._values[column]) >= _SHARE * shown
