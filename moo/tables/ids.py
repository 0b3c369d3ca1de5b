"""Ids of users: one id a person, as text, in one form for every file format."""

import math
import re

from moo.tables.clean import clean, normalise

_WHOLE = re.compile(r"([+-]?\d+)\.0*", re.ASCII)
_SCIENTIFIC = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)[eE][+-]?\d+", re.ASCII)
# whole numbers from here on are not all floats
_EXACT = 2**53
# first characters of a number
_NUMERIC = frozenset("0123456789+-.")
_NONE = frozenset({"", "na", "n/a", "#n/a", "<na>", "nan", "null", "none"})


def user_id(cell: str | None) -> str:
    """Return the id in a cell, without invisible characters and blanks around it; 123.0 is 123. Empty for nobody.

    Spellings of an empty cell, such as NA and null, name nobody: as an id they would join all users without one.

    Raises:
        ValueError: If the cell is a number with lost digits: in scientific notation, or a float of 2^53 or more.
    """
    text = cell or ""
    if not (text.isascii() and text.isprintable() and " " not in text):
        text = normalise(clean(text))
    if text.lower() in _NONE:
        return ""
    if text[0] not in _NUMERIC:
        return text
    if _SCIENTIFIC.fullmatch(text) and math.isfinite(float(text)):
        raise ValueError(f"scientific notation, {text!r}, has lost digits")
    whole = _WHOLE.fullmatch(text)
    if not whole:
        return text
    if len(whole[1]) > 20 or abs(int(whole[1])) >= _EXACT:
        raise ValueError(f"a float of 2^53 or more, {text!r}, has lost digits")
    return whole[1]
