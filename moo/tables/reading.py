"""Declared properties of a table's file: encoding, separator and texts that mean an empty cell."""

import codecs
from dataclasses import dataclass
from pathlib import Path

from moo.core import validate
from moo.core.errors import InputError

FORMATS = (".csv", ".tsv", ".parquet", ".jsonl")
UTF8 = "utf-8"
# Encodings in which the bytes of a comma, a quote and a line end mean nothing else: lines can be cut before decoding
ENCODINGS = (UTF8, "gb18030", "gbk", "gb2312", "big5", "shift_jis", "cp1252")
SEPARATORS = (",", ";", "\t")


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Encoding, separator and empty values of a table's file.

    Attributes:
        encoding: Name of the encoding, e.g. "gb18030"; empty for UTF-8. A byte-order mark is accepted.
        separator: Separator of CSV: ",", ";" or a tab; empty takes the one in the header line.
        na_values: Texts of cells that count as empty, e.g. ("NA", "null"); blanks around a cell are ignored.
    """

    encoding: str = ""
    separator: str = ""
    na_values: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "encoding", _encoding(self.encoding))
        separator = "\t" if self.separator in ("\\t", "tab") else self.separator
        if separator and separator not in SEPARATORS:
            raise validate.argument_error('{name} must be ",", ";" or "tab"', "separator", self.separator)
        object.__setattr__(self, "separator", separator)


def _encoding(name: str) -> str:
    if not name:
        return UTF8
    try:
        found = codecs.lookup(name).name.replace("utf-8-sig", UTF8)
    except (LookupError, ValueError):
        found = ""
    if found not in ENCODINGS:
        raise InputError(
            "encoding must be one of {encodings}, got {name!r}; convert the file to UTF-8.",
            encodings=", ".join(ENCODINGS),
            name=name,
        )
    return found


def format_of(path: Path) -> str:
    """Return the suffix of a path, one of `FORMATS`, in lower case.

    Raises:
        InputError: If the path ends in another suffix.
    """
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        raise InputError(
            "data must be a known name or a file ending in {formats}, got {path!r}.",
            formats=", ".join(FORMATS),
            path=str(path),
        )
    return suffix
