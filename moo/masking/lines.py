"""Lines of a text file, with the place of whatever is wrong with them."""

from collections.abc import Iterator
from pathlib import Path
from typing import IO

from moo.errors import InputError

MAX_LINE = 1 << 20  # bytes: a record that is longer is an accident of an export
_MARKS = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}
_OTHERS = ("gb18030", "big5", "shift_jis")  # tried on a line that is not UTF-8; what they give must be mostly Chinese


def read_lines(raw: IO[bytes], source: Path) -> Iterator[str]:
    """Lines with their ends, without a byte order mark.

    Raises:
        InputError: At a line that is too long, holds a NUL byte or is not UTF-8; with line and byte, counted from one.
    """
    number, beyond_ascii = 0, 0
    while line := raw.readline(MAX_LINE + 1):
        number += 1
        if number == 1 and line[:2] in _MARKS:
            raise InputError(f"{source} must be UTF-8, but begins like {_MARKS[line[:2]]}; convert it.")
        if len(line) > MAX_LINE:
            raise InputError(
                f"{source}, line {number} must hold at most {MAX_LINE:,} bytes, but is longer; split it, or look for a lost line end."
            )
        nul = line.find(0)
        if nul >= 0:
            raise InputError(
                f"{source}, line {number}, byte {nul + 1} must be text, but is NUL; the file may be damaged or binary."
            )
        try:
            text = line.decode()
        except UnicodeDecodeError as error:
            raise InputError(_not_utf8(source, number, error, mixed=beyond_ascii > 0)) from error
        beyond_ascii += not text.isascii()
        yield text.removeprefix("\ufeff") if number == 1 else text


def _not_utf8(source: Path, number: int, error: UnicodeDecodeError, *, mixed: bool) -> str:
    name = _name(error.object)
    told = f"reads as {name}" if name else "is of no encoding that is tried here"
    before = " while lines before it are UTF-8: the file mixes encodings" if mixed else ""
    return (
        f"{source}, line {number}, byte {error.start + 1} must be UTF-8, but is {error.object[error.start]:#04x}; the line {told}{before}; "
        "convert it" + (f", e.g. iconv -f {name} -t UTF-8." if name and not mixed else ".")
    )


def _name(line: bytes) -> str:
    for name in _OTHERS:
        try:
            text = line.decode(name)
        except UnicodeDecodeError:
            continue
        beyond = [c for c in text if ord(c) > 127]
        if beyond and sum("\u3000" <= c <= "\u9fff" or "\uff00" <= c <= "\uffef" for c in beyond) > 0.8 * len(beyond):
            return name.upper()
    return "WINDOWS-1252" if all(b not in (0x81, 0x8D, 0x8F, 0x90, 0x9D) for b in line) else ""
