"""Checks whose errors name the argument: `positive(x=x)` says "x > 0 must hold, but got x=-1.0"."""

import math
from collections.abc import Collection

from moo.errors import InputError


def _one(named: dict[str, float]) -> tuple[str, float]:
    if len(named) != 1:
        raise TypeError("give exactly one named argument")
    return next(iter(named.items()))


def refuse(rule: str, name: str, value: object, way_out: str = "") -> InputError:
    """The error of a broken rule, to be raised by the caller."""
    tail = f"; {way_out}." if way_out else "."
    return InputError(f"{rule} must hold, but got {name}={value!r}{tail}")


def positive(*, way_out: str = "", **named: float) -> float:
    """Return the value if it is a number above zero (infinity included)."""
    name, value = _one(named)
    if not value > 0:
        raise refuse(f"{name} > 0", name, value, way_out)
    return value


def finite(*, way_out: str = "", **named: float) -> float:
    """Return the value if it is neither infinite nor NaN."""
    name, value = _one(named)
    if not math.isfinite(value):
        raise refuse(f"{name} finite", name, value, way_out)
    return value


def in_range(low: float, high: float, *, way_out: str = "", **named: float) -> float:
    """Return the value if low <= value <= high."""
    name, value = _one(named)
    if not low <= value <= high:
        raise refuse(f"{low:g} <= {name} <= {high:g}", name, value, way_out)
    return value


def one_of(choices: Collection[str], *, way_out: str = "", **named: str) -> str:
    """Return the value if it is among the choices."""
    if len(named) != 1:
        raise TypeError("give exactly one named argument")
    name, value = next(iter(named.items()))
    if value not in choices:
        raise refuse(f"{name} in {sorted(choices)}", name, value, way_out)
    return value
