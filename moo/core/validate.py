"""Checks of arguments: `positive(x=x)` says "x must be > 0, got -1.0."."""

import difflib
import math
import numbers
from collections.abc import Collection, Iterable, Mapping
from typing import TypeVar

from moo.core.errors import InputError
from moo.core.messages import Message, Verbatim

T = TypeVar("T")


def argument_error(rule: str, name: str, value: object, way_out: str = "", **values: object) -> InputError:
    """Return the error of an argument that breaks a rule, for the caller to raise.

    Args:
        rule: Template of the rule, without a full stop: "{name} must be > 0". It may name every
            value below.
        name: Name of the argument.
        value: Value that came.
        way_out: Advice, without a full stop; empty for none.
        values: Further values of the rule.
    """
    if not way_out:
        return InputError(rule + ", got {value!r}.", name=Verbatim(name), value=value, **values)
    return InputError(rule + ", got {value!r}; {way_out}.", name=Verbatim(name), value=value, way_out=way_out, **values)


def positive(*, way_out: str = "", **named: float) -> float:
    """Return the value if it is a number above zero (infinity included)."""
    name, value = _number(named, way_out)
    if not value > 0:
        raise argument_error("{name} must be > 0", name, value, way_out)
    return value


def finite(*, way_out: str = "", **named: float) -> float:
    """Return the value if it is neither infinite nor NaN."""
    name, value = _number(named, way_out)
    if not math.isfinite(value):
        raise argument_error("{name} must be finite", name, value, way_out)
    return value


def in_range(low: float, high: float, *, way_out: str = "", **named: float) -> float:
    """Return the value if low <= value <= high."""
    name, value = _number(named, way_out)
    if not low <= value <= high:
        raise argument_error("{name} must be between {low:g} and {high:g}", name, value, way_out, low=low, high=high)
    return value


def whole(low: int, high: int, *, way_out: str = "", **named: int) -> int:
    """Return the value if it is a whole number, low <= value <= high."""
    values: Mapping[str, object] = named
    name, value = _number(values, way_out)
    if not isinstance(value, numbers.Integral):
        raise argument_error("{name} must be a whole number", name, value, way_out)
    if not low <= int(value) <= high:
        raise argument_error("{name} must be between {low:,} and {high:,}", name, value, way_out, low=low, high=high)
    return int(value)


def one_of(choices: Collection[str], *, way_out: str = "", **named: str) -> str:
    """Return the value if it is among the choices."""
    name, value = _one(named)
    if not isinstance(value, str) or value not in choices:
        tail = Message(" {way_out}.", way_out=way_out[0].upper() + way_out[1:]) if way_out else ""
        raise InputError(
            "{name} must be one of {choices}, got {value!r}.{nearest}{tail}",
            name=Verbatim(name),
            choices=", ".join(choices),
            value=value,
            nearest=nearest(value, choices),
            tail=tail,
        )
    return value


def nearest(name: object, choices: Iterable[str]) -> str:
    """Return " Did you mean 'x'?" for the choice that a name is most like, or nothing."""
    folded = {choice.casefold(): choice for choice in choices}
    close = difflib.get_close_matches(str(name).casefold(), folded, n=1)
    return Message(" Did you mean {choice!r}?", choice=folded[close[0]]) if close else ""


def _one(named: Mapping[str, T]) -> tuple[str, T]:
    if len(named) != 1:
        raise TypeError("give exactly one named argument")
    return next(iter(named.items()))


def _number(named: Mapping[str, T], way_out: str = "") -> tuple[str, T]:
    """Return the name and the value, which is a number and no truth value."""
    name, value = _one(named)
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise argument_error("{name} must be a number", name, value, way_out)
    return name, value
