"""Plan of a table's columns (text, one type of personal information, or kept) and the masking of a record."""

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
# (column, type, why) -> mentions
MentionCounts = Counter[tuple[str, str, str]]


@dataclass(frozen=True, kw_only=True)
class ColumnPlan:
    """Plan of how the columns of a table are masked.

    Attributes:
        level: Level of the ladder, 0 to 5.
        roles: Column -> "text", "keep", or the entity type of its values. A column that is not named gets the type that
            `lexicon/columns.toml` lists for its name, else "text".
        operators: Operators that write the replacements.
        ner: True to ask the optional recogniser of Chinese names too.
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
                    "A column must be {text}, {keep} or a type of {entity_levels}, got {column}={role}.{nearest}",
                    text=TEXT,
                    keep=KEEP,
                    entity_levels=", ".join(ENTITY_LEVELS),
                    column=column,
                    role=role,
                    nearest=validate.nearest(role, (TEXT, KEEP, *ENTITY_LEVELS)),
                )

    def role(self, column: str) -> str:
        """Return the role of a column: "text", "keep" or an entity type."""
        return self.roles.get(column) or _by_name().get(column.strip().lower(), TEXT)

    def check(self, columns: list[str], place: object) -> None:
        """Raise if the table lacks a column that the plan names.

        Args:
            columns: Columns of the table.
            place: File of the table.

        Raises:
            InputError: If a named column is missing.
        """
        for column in self.roles:
            if column not in columns:
                near = validate.nearest(column, columns)
                raise InputError(
                    "Column {column!r} must be in {place}, but it has {columns}.{near}",
                    column=column,
                    place=place,
                    columns=columns,
                    near=near,
                )


@lru_cache(maxsize=1)
def _by_name() -> dict[str, str]:
    listed = load("columns")
    return {name: kind for kind, names in listed.items() if kind != "version" for name in names}


def mask_record(record: Mapping[str, Any], plan: ColumnPlan, counts: MentionCounts | None = None) -> dict[str, Any]:
    """Return one record masked: values of typed columns as a whole, and the same values wherever its texts hold them.

    Args:
        record: Column -> value; texts may be inside lists and mappings.
        plan: Plan of the columns.
        counts: Counter to which the masked mentions are added, by column, type and reason.
    """
    roles = {c: plan.role(c) for c in record}
    fields: dict[str, str] = {}
    for column, role in roles.items():
        if role in ENTITY_LEVELS and isinstance(record[column], str | int | float | Decimal):
            fields.setdefault(role, digits_of(record[column]) or str(record[column]))
    return {c: _masked(v, c, roles[c], plan, fields, counts) for c, v in record.items()}


def _masked(
    value: Any, column: str, role: str, plan: ColumnPlan, fields: Mapping[str, str], counts: MentionCounts | None
) -> Any:
    if role == KEEP or value is None or value == "" or isinstance(value, bool):
        return value
    if isinstance(value, list):
        return [_masked(v, column, role, plan, fields, counts) for v in value]
    if isinstance(value, dict):
        return {k: _masked(v, column, role, plan, fields, counts) for k, v in value.items()}
    if role == TEXT:
        return _masked_text(value, column, plan, fields, counts)
    level = ENTITY_LEVELS[role]
    plain = normalise(digits_of(value) or str(value))
    # above the level, or masked before
    if level > plan.level or not plain.strip(BLANK + " "):
        return value
    if counts is not None:
        counts[column, role, "the column's type"] += 1
    return plan.operators.replace(role, plain, plan.level)


def _masked_text(
    value: Any, column: str, plan: ColumnPlan, fields: Mapping[str, str], counts: MentionCounts | None
) -> Any:
    text = digits_of(value) or value
    if not isinstance(text, str):
        return value
    spans = find_spans(text, plan.level, fields=fields, operators=plan.operators, ner=plan.ner)
    if counts is not None:
        counts.update((column, s.type, s.why) for s in spans)
    return apply(text, spans) if spans else value
