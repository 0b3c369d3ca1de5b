"""Digits of a number in any type or notation, so that an int64 or a float is masked like the same digits of a text."""

import decimal
import math
import re

_WRITTEN = re.compile(r"\s*[+-]?[0-9]{1,20}(?:\.[0-9]{0,20})?[eE][+-]?[0-9]{1,2}\s*|\s*[+-]?[0-9]{7,20}\.0+\s*")
# digits from which a number may belong to a person
FEWEST = 7


def digits_of(value: object) -> str:
    """Return the digits of a whole number of 7 digits or more, in any type or notation; else an empty string."""
    if isinstance(value, bool):
        return ""
    if isinstance(value, str):
        if not _WRITTEN.fullmatch(value):
            return ""
        value = decimal.Decimal(value.strip())
    if isinstance(value, float):
        if not math.isfinite(value) or not value.is_integer():
            return ""
        value = int(value)
    if isinstance(value, decimal.Decimal):
        if not value.is_finite() or value != value.to_integral_value():
            return ""
        value = int(value)
    if not isinstance(value, int):
        return ""
    digits = str(abs(value))
    return digits if len(digits) >= FEWEST else ""
