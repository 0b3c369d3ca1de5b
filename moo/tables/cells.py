"""Text of a cell, read by itself: the same text for the same value in every format."""

import datetime
import decimal
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from moo.core.errors import InputError


class Written(float):
    """A JSON number with a fraction or an exponent.

    Attributes:
        text: Digits as written in the file.
    """

    text: str

    def __new__(cls, text: str) -> "Written":
        number = super().__new__(cls, text)
        number.text = text
        return number


def text_of(value: Any) -> str | None:
    """Return the text of a cell, None for an empty one.

    Raises:
        TypeError: If the cell is nested or binary, with the name of its kind.
    """
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return None if value != value else value.text if isinstance(value, Written) else repr(value)
    if isinstance(value, datetime.datetime):
        return value.isoformat(" ")
    if isinstance(value, int | decimal.Decimal | datetime.date | datetime.time | datetime.timedelta):
        return str(value)
    names: dict[type, str] = {list: "a list", dict: "a mapping"}
    raise TypeError(names.get(type(value), type(value).__name__))


def texts_of(values: Sequence[Any]) -> pa.Array:
    """Return the texts of a column's cells.

    Raises:
        NestedError: At the first cell that is no single value.
    """
    try:
        array = pa.array(values)
        if array.type in (pa.string(), pa.bool_(), pa.int64()):
            return array.cast(pa.string())
    except (pa.ArrowException, OverflowError, TypeError, ValueError):
        pass
    texts = []
    for row, value in enumerate(values):
        try:
            texts.append(text_of(value))
        except TypeError as error:
            raise NestedError(row, str(error)) from None
    return pa.array(texts, pa.string())


def texts_of_array(array: pa.Array) -> pa.Array:
    """Return the texts of an Arrow column; each different value is read once.

    Raises:
        NestedError: At the first cell that is no single value.
        pa.ArrowInvalid: If a string is not UTF-8.
    """
    kind = array.type
    if pa.types.is_dictionary(kind):
        array, kind = array.dictionary_decode(), kind.value_type
    if pa.types.is_null(kind):
        return pa.nulls(len(array), pa.string())
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        array.validate(full=True)
        return array.cast(pa.string())
    if pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        full = np.flatnonzero(array.is_valid().to_numpy(zero_copy_only=False))
        if len(full):
            raise NestedError(int(full[0]), f"a value of type {kind}")
        return pa.nulls(len(array), pa.string())
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        return array.cast(pa.string())
    coded = array.dictionary_encode()
    return texts_of(coded.dictionary.to_pylist()).take(coded.indices)


class NestedError(TypeError):
    """Cell without a single value: `row` counts from 0, `kind` names its content."""

    def __init__(self, row: int, kind: str) -> None:
        super().__init__(kind)
        self.row, self.kind = row, kind

    def at(self, place: str, column: str) -> InputError:
        """Return the error for the user."""
        return InputError(
            "{place}: column {column!r} must hold one value a row, got {kind}; nested cells and "
            "multi-label rows are not supported: write one text, or one row for each label.",
            place=place,
            column=column,
            kind=self.kind,
        )


def without(array: pa.Array, na_values: Sequence[str]) -> pa.Array:
    """Return the texts, null where they are among `na_values`; blanks around a text are ignored."""
    if not na_values:
        return array
    empty, coded = {value.strip() for value in na_values}, array.dictionary_encode()
    texts = [None if text is None or text.strip() in empty else text for text in coded.dictionary.to_pylist()]
    return pa.array(texts, pa.string()).take(coded.indices)
