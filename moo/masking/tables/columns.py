"""Columns of a table: which are text, which hold one type of personal information, which stay; and one record masked by them."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from functools import lru_cache
from typing import Any

from moo.core import validate
from moo.core.errors import InputError
from moo.core.personal_data_types import ENTITY_LEVELS, MAX_LEVEL
from moo.masking.ladder import apply, find_spans
from moo.masking.normalisation import normalise
from moo.masking.recognisers import names_ner
from moo.masking.recognisers.lexicon import load
from moo.masking.replacements import Operators
from moo.masking.tables.numbers import digits_of
from moo.masking.tokens import BLANK

TEXT, KEEP = "text", "keep"
Seen = Counter[tuple[str, str, str]]  # (column, type, why) -> mentions


@dataclass(frozen=True, kw_only=True)
class Columns:
    """How a table's columns are masked.

    Attributes:
        level: 0..5.
        roles: Column -> "text", "keep", or an entity type whose values stand alone in it. A column that is not named is taken
            by its name where that says what it holds (`lexicon/columns.toml`), else as text.
        operators: What stands in a mention's place.
        ner: Whether the optional recogniser of Chinese names is asked too.
    """

    level: int
    roles: Mapping[str, str] = field(default_factory=dict)
    operators: Operators = field(default_factory=Operators)
    ner: bool = False

    def __post_init__(self) -> None:
        validate.in_range(0, MAX_LEVEL, masking_level=self.level)
        if self.ner:
            names_ner.version()
        for column, role in self.roles.items():
            if role not in (TEXT, KEEP) and role not in ENTITY_LEVELS:
                raise InputError(
                    "a column must be {text}, {keep} or a type of {entity_levels}, but got {column}={role}.{nearest}",
                    text=TEXT,
                    keep=KEEP,
                    entity_levels=", ".join(ENTITY_LEVELS),
                    column=column,
                    role=role,
                    nearest=validate.nearest(role, (TEXT, KEEP, *ENTITY_LEVELS)),
                )

    def role(self, column: str) -> str:
        """What the column is taken as."""
        return self.roles.get(column) or _by_name().get(column.strip().lower(), TEXT)

    def check(self, columns: list[str], place: object) -> None:
        """Every column that was named must be there."""
        for column in self.roles:
            if column not in columns:
                near = validate.nearest(column, columns)
                raise InputError(
                    "column {column!r} must be in {place}, but it has {columns}.{near}",
                    column=column,
                    place=place,
                    columns=columns,
                    near=near,
                )


@lru_cache(maxsize=1)
def _by_name() -> dict[str, str]:
    listed = load("columns")
    return {name: kind for kind, names in listed.items() if kind != "version" for name in names}


def mask_record(record: Mapping[str, Any], columns: Columns, seen: Seen | None = None) -> dict[str, Any]:
    """One record masked: values of typed columns as a whole, and searched for in its texts.

    Args:
        record: Column -> value; texts may stand inside lists and mappings.
        columns: How.
        seen: Counts what was masked, by column, type and why.
    """
    roles = {c: columns.role(c) for c in record}
    fields: dict[str, str] = {}
    for column, role in roles.items():
        if role in ENTITY_LEVELS and isinstance(record[column], str | int | float | Decimal):
            fields.setdefault(role, digits_of(record[column]) or str(record[column]))
    return {c: _masked(v, c, roles[c], columns, fields, seen) for c, v in record.items()}


def _masked(value: Any, column: str, role: str, columns: Columns, fields: Mapping[str, str], seen: Seen | None) -> Any:
    if role == KEEP or value is None or value == "" or isinstance(value, bool):
        return value
    if isinstance(value, list):
        return [_masked(v, column, role, columns, fields, seen) for v in value]
    if isinstance(value, dict):
        return {k: _masked(v, column, role, columns, fields, seen) for k, v in value.items()}
    if role == TEXT:
        return _masked_text(value, column, columns, fields, seen)
    level = ENTITY_LEVELS[role]
    plain = normalise(digits_of(value) or str(value))
    if level > columns.level or not plain.strip(BLANK + " "):  # above the level, or masked before
        return value
    if seen is not None:
        seen[column, role, "the column's type"] += 1
    return columns.operators.replace(role, plain, columns.level)


def _masked_text(value: Any, column: str, columns: Columns, fields: Mapping[str, str], seen: Seen | None) -> Any:
    text = digits_of(value) or value
    if not isinstance(text, str):
        return value
    spans = find_spans(text, columns.level, fields=fields, operators=columns.operators, ner=columns.ner)
    if seen is not None:
        seen.update((column, s.type, s.why) for s in spans)
    return apply(text, spans) if spans else value
