"""Lines of a text file, with the place of every fault."""

from collections.abc import Iterator
from pathlib import Path
from typing import IO

from moo.core.errors import InputError
from moo.core.messages import Message
from moo.tables.reading import UTF8

# bytes: a longer record is an accident of an export
MAX_LINE = 1 << 20
_MARKS = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}
_BOM = b"\xef\xbb\xbf"
# encodings tried on a line that is not UTF-8; the result must be mostly Chinese
_OTHERS = ("gb18030", "big5", "shift_jis")


def read_lines(raw: IO[bytes], source: Path, *, encoding: str = UTF8, before: int = 0) -> Iterator[str]:
    """Yield lines with their ends, without a byte-order mark.

    Args:
        raw: File, open at the beginning of a line.
        source: Name of the file, for errors.
        encoding: One of `ENCODINGS`.
        before: Lines of the file before this one.

    Raises:
        InputError: With file, line and byte (from 1), at a line that is too long, cannot be decoded, or holds a NUL
            byte or a carriage return that ends no line.
    """
    number, beyond_ascii = before, 0
    while line := raw.readline(MAX_LINE + 1):
        number += 1
        if number == 1:
            line = _unmarked(line, source)
        if len(line) > MAX_LINE:
            raise InputError(
                "{source}:{number}: a line must hold at most {max_line:,} bytes, but is longer; split "
                "it, or look for a lost line end.",
                source=source,
                number=number,
                max_line=MAX_LINE,
            )
        _refuse_controls(line, source, number)
        try:
            text = line.decode(encoding)
        except UnicodeDecodeError as error:
            raise InputError(_undecodable(source, number, error, encoding, mixed=beyond_ascii > 0)) from error
        beyond_ascii += not text.isascii()
        yield text


def _unmarked(line: bytes, source: Path) -> bytes:
    if line[:2] in _MARKS:
        raise InputError(
            "{source}:1: the file must be UTF-8, but begins like {marks}; convert it.",
            source=source,
            marks=_MARKS[line[:2]],
        )
    return line.removeprefix(_BOM)


def _refuse_controls(line: bytes, source: Path, number: int) -> None:
    nul = line.find(0)
    if nul >= 0:
        raise InputError(
            "{source}:{number}: byte {nul} must be text, but is NUL; the file may be damaged or binary.",
            source=source,
            number=number,
            nul=nul + 1,
        )
    bare = line.replace(b"\r\n", b"  ").find(b"\r") if b"\r" in line else -1
    if bare >= 0:
        raise InputError(
            "{source}:{number}: lines must end in LF or CR LF, but byte {bare} is a bare CR; convert the line ends.",
            source=source,
            number=number,
            bare=bare + 1,
        )


def _undecodable(source: Path, number: int, error: UnicodeDecodeError, encoding: str, *, mixed: bool) -> str:
    """Return the error of a byte that the encoding cannot decode, with a guess of the encoding."""
    place = f"{source}:{number}"
    byte, value = error.start + 1, f"{error.object[error.start]:#04x}"
    if encoding != UTF8:
        return Message(
            "{place}: byte {byte} must be {encoding}, as declared, but is {value}; declare another encoding.",
            place=place,
            byte=byte,
            encoding=encoding,
            value=value,
        )
    name = _name(error.object)
    guess = Message("reads as {name}", name=name) if name else Message("is of no encoding that is tried here")
    also = Message(" while lines before it are UTF-8: the file mixes encodings") if mixed else ""
    way_out: str = ""
    if name and not mixed:
        way_out = Message(
            ' or declare encoding = "{encoding}", or e.g. iconv -f {name} -t UTF-8', encoding=name.lower(), name=name
        )
    return Message(
        "{place}: byte {byte} must be UTF-8, but is {value}; the line {guess}{also}; convert it{way_out}.",
        place=place,
        byte=byte,
        value=value,
        guess=guess,
        also=also,
        way_out=way_out,
    )


def _name(line: bytes) -> str:
    """Return the likely encoding of a line, empty for none."""
    for name in _OTHERS:
        try:
            text = line.decode(name)
        except UnicodeDecodeError:
            continue
        beyond = [c for c in text if ord(c) > 127]
        if beyond and sum("\u3000" <= c <= "\u9fff" or "\uff00" <= c <= "\uffef" for c in beyond) > 0.8 * len(beyond):
            return name.upper()
    return "WINDOWS-1252" if all(b not in (0x81, 0x8D, 0x8F, 0x90, 0x9D) for b in line) else ""
