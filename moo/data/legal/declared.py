"""Facts of a whole table, declared by a person under `[declare]` in a study's TOML; never shown as measured."""

from collections.abc import Mapping
from datetime import date
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moo.core import validate
from moo.core.errors import InputError
from moo.core.messages import Message, joined
from moo.data.tables.columns import BASES, LAW_COLUMNS, basis_of, typed

SIGNED = ("date", "signer")
ALIASES = {"purpose": "purposes", "retention": "retention_days"}
KEYS = (*LAW_COLUMNS, *ALIASES, "source", *SIGNED)


def declaration(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the declaration in types of JSON, under the names of columns.

    Args:
        values: Column -> its one value in all rows (of `collected` the earliest, of `birth_year` the latest), "source"
            in words, and "date" and "signer" of the declaration. Empty declares nothing.

    Raises:
        InputError: If a key is unknown, a value is unfit, or date or signer is missing.
    """
    out: dict[str, Any] = {}
    for key, value in values.items():
        if key not in KEYS:
            raise InputError(
                "A key of [declare] must be one of {keys}, got {key!r}.{nearest}",
                keys=", ".join(KEYS),
                key=key,
                nearest=validate.nearest(key, KEYS),
            )
        name = ALIASES.get(key, key)
        if name in out:
            raise InputError("[declare] must state {name} once, but got {key!r} too.", name=name, key=key)
        out[name] = _plain(value)
    for name in SIGNED if out else ():
        if not isinstance(out.get(name), str) or not out[name].strip():
            raise InputError(
                '[declare] must have a {name}: write date = 2026-11-01 and signer = "who answers for it".', name=name
            )
    if out:
        _read("date", out["date"], as_column="collected")
    for name in out.keys() & set(LAW_COLUMNS):
        _read(name, out[name], as_column=name)
    return out


def declared_columns(declared: Mapping[str, Any], n: int) -> dict[str, NDArray[Any]]:
    """Return the declared columns, each of shape (n,), and those that a declared value makes irrelevant."""
    out = {name: np.repeat(_read(name, declared[name], as_column=name), n) for name in LAW_COLUMNS if name in declared}
    # dates of consent belong to the basis consent alone
    if "basis" in declared and basis_of(declared["basis"]) != "consent":
        out = {name: np.repeat(np.datetime64("NaT", "D"), n) for name in ("consented", "used_from")} | out
    if declared.get("sensitive") is False:
        out.setdefault("sensitive_consent", np.zeros(n, dtype=bool))
    if "birth_year" in declared:
        out.setdefault("guardian_consent", np.zeros(n, dtype=bool))
    return out


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return " ".join(map(str, value))
    return value.isoformat() if isinstance(value, date) else value


def _read(name: str, value: Any, *, as_column: str) -> NDArray[Any]:
    """Return the value as a column of one row, shape (1,)."""
    import pandas as pd

    text = str(value).lower() if isinstance(value, bool) else str(value)
    column, problems = typed(as_column, pd.Series([text], dtype=object))
    unlisted = name == "basis" and column[0] not in BASES
    if problems or not text.strip() or unlisted:
        wanted = (
            Message("one of {bases}", bases=joined(", ", BASES))
            if unlisted
            else Message("a value that a column of this name may hold")
        )
        near = validate.nearest(value, BASES) if unlisted else ""
        raise InputError(
            "[declare] {name} must be {wanted}, got {value!r}.{near}",
            name=name,
            wanted=wanted,
            value=value,
            near=near,
        )
    return column
