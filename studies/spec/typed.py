"""Conversion of a frozen dataclass's fields to the types of their defaults, from Python, TOML or JSON."""

import dataclasses
import math
import numbers
import os
from collections.abc import Mapping
from typing import Any, cast

from moo.core import validate
from moo.core.errors import InputError


def set_typed(spec: Any, prefix: str = "") -> None:
    """Bring every field into the type of its default; for `__post_init__`.

    Args:
        spec: Dataclass to convert in place.
        prefix: Prefix of a field's name in errors, e.g. "space.".

    Raises:
        InputError: If a value has another type.
    """
    for f in dataclasses.fields(spec):
        default = f.default if f.default is not dataclasses.MISSING else cast(Any, f.default_factory)()
        object.__setattr__(spec, f.name, _typed(getattr(spec, f.name), default, prefix + f.name))


def build(cls: type[Any], values: Mapping[str, Any], prefix: str = "") -> Any:
    """Make a dataclass from a mapping.

    Raises:
        InputError: If a key is unknown, or a value has the wrong type.
    """
    known = [f.name for f in dataclasses.fields(cls)]
    for name in values:
        if name not in known:
            raise InputError(
                "Keys must be among {known}, got {prefix}{name}.{nearest}",
                known=sorted(known),
                prefix=prefix,
                name=name,
                nearest=validate.nearest(name, known),
            )
    return cls(**values)


def _typed(value: Any, default: Any, name: str) -> Any:
    if dataclasses.is_dataclass(default) and not isinstance(default, type):
        return value if isinstance(value, type(default)) else build(type(default), _table(value, name), f"{name}.")
    if isinstance(default, Mapping):
        return dict(_table(value, name))
    if isinstance(default, tuple):
        return _items(value, default, name)
    if isinstance(default, str) and isinstance(value, os.PathLike):
        value = os.fspath(value)
    kinds: dict[type, type] = {bool: bool, int: numbers.Integral, float: numbers.Real}
    kind: type[Any] = type(default)
    if not isinstance(value, kinds.get(kind, kind)) or isinstance(value, bool) != (kind is bool):
        raise InputError("{name} must be {type}, got {value!r}.", name=name, type=kind.__name__, value=value)
    if isinstance(value, float) and math.isnan(value):
        raise InputError("{name} must be a number, got NaN.", name=name)
    return value if isinstance(value, kind) else kind(value)


def _table(value: Any, name: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise InputError("{name} must be a table, got {value!r}.", name=name, value=value)
    return value


def _items(value: Any, default: tuple[Any, ...], name: str) -> tuple[Any, ...]:
    """Return a pair (low, high) if the default is a pair of numbers, else texts."""
    if not isinstance(value, (list, tuple)):
        raise InputError("{name} must be a list, got {value!r}.", name=name, value=value)
    pair = bool(default) and not isinstance(default[0], str)
    if pair and len(value) != len(default):
        raise InputError("{name} must be [low, high], got {value!r}.", name=name, value=value)
    kinds = default if pair else ("",) * len(value)
    return tuple(_typed(v, d, name) for v, d in zip(value, kinds, strict=True))
