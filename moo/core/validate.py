"""Checks whose errors name the argument: `positive(x=x)` says "x > 0 must hold, but got x=-1.0"."""

import difflib
import math
import numbers
from collections.abc import Collection, Iterable
from typing import Any

from moo.core.errors import InputError


def _one(named: dict[str, Any]) -> tuple[str, Any]:
    if len(named) != 1:
        raise TypeError("give exactly one named argument")
    return next(iter(named.items()))


def _number(named: dict[str, Any], way_out: str = "") -> tuple[str, Any]:
    """The name and the value, which is a number and no truth value."""
    name, value = _one(named)
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise refuse(f"{name} a number", name, value, way_out)
    return name, value


def refuse(rule: str, name: str, value: object, way_out: str = "") -> InputError:
    """The error of a broken rule, to be raised by the caller."""
    tail = f"; {way_out}." if way_out else "."
    return InputError("{rule} must hold, but got {name}={value!r}{tail}", rule=rule, name=name, value=value, tail=tail)


def positive(*, way_out: str = "", **named: float) -> float:
    """Return the value if it is a number above zero (infinity included)."""
    name, value = _number(named, way_out)
    if not value > 0:
        raise refuse(f"{name} > 0", name, value, way_out)
    return value  # type: ignore[no-any-return]


def finite(*, way_out: str = "", **named: float) -> float:
    """Return the value if it is neither infinite nor NaN."""
    name, value = _number(named, way_out)
    if not math.isfinite(value):
        raise refuse(f"{name} finite", name, value, way_out)
    return value  # type: ignore[no-any-return]


def in_range(low: float, high: float, *, way_out: str = "", **named: float) -> float:
    """Return the value if low <= value <= high."""
    name, value = _number(named, way_out)
    if not low <= value <= high:
        raise refuse(f"{low:g} <= {name} <= {high:g}", name, value, way_out)
    return value  # type: ignore[no-any-return]


def whole(low: int, high: int, *, way_out: str = "", **named: int) -> int:
    """Return the value if it is a whole number, low <= value <= high."""
    name, value = _number(named, way_out)
    if not isinstance(value, numbers.Integral):
        raise refuse(f"{name} a whole number", name, value, way_out)
    if not low <= int(value) <= high:
        raise refuse(f"{low:,} <= {name} <= {high:,}", name, value, way_out)
    return int(value)


def one_of(choices: Collection[str], *, way_out: str = "", **named: str) -> str:
    """Return the value if it is among the choices."""
    name, value = _one(named)
    if not isinstance(value, str) or value not in choices:
        tail = f" {way_out[0].upper()}{way_out[1:]}." if way_out else ""
        raise InputError(
            "{name} must be one of {choices}, got {value!r}.{nearest}{tail}",
            name=name,
            choices=", ".join(choices),
            value=value,
            nearest=nearest(value, choices),
            tail=tail,
        )
    return value


def nearest(name: object, choices: Iterable[str]) -> str:
    """Return " Did you mean 'x'?" for the choice that a name is most like, or nothing."""
    folded = {choice.casefold(): choice for choice in choices}
    found = difflib.get_close_matches(str(name).casefold(), folded, n=1)
    return f" Did you mean {folded[found[0]]!r}?" if found else ""
