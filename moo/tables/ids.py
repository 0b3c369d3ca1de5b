"""One person, one id: users as text, in one form whatever file they came from."""

import math
import re

from moo.tables.clean import clean, normalise

_WHOLE = re.compile(r"([+-]?\d+)\.0*", re.ASCII)
_SCIENTIFIC = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)[eE][+-]?\d+", re.ASCII)
_EXACT = 2**53  # whole numbers from here on are not all floats
_NUMERIC = frozenset("0123456789+-.")  # how a number begins
_NONE = frozenset({"", "na", "n/a", "#n/a", "<na>", "nan", "null", "none"})


def user_id(cell: str | None) -> str:
    """Return the id that a cell names: without unseen characters and blanks around it; 123.0 is 123. Empty where it names nobody.

    Spellings of an empty cell, such as NA and null, name nobody: as an id they would join all who lack one.

    Raises:
        ValueError: If the cell is a number whose digits are lost, in scientific notation or as a float of 2^53 and more.
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
