"""Notices of how trials ran, those alike made one."""

import numbers
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from moo.core.messages import Message, joined
from moo.core.trial_record import STATUS_QUO_TRIAL, TrialRecord


@dataclass(frozen=True)
class Range:
    """Smallest and largest of several numbers: "12", or "12–15"."""

    low: float
    high: float

    def __format__(self, spec: str) -> str:
        return "–".join(format(number, spec) for number in sorted({self.low, self.high}))


def notices_of(records: Sequence[TrialRecord]) -> dict[str, str]:
    """Return each notice of some trials -> the trials that have it, in words.

    Notices that differ in their numbers alone are one, with the smallest and the largest of each.
    """
    alike: dict[tuple[object, ...], dict[int, str]] = {}
    for record in records:
        for notice in record.notices:
            alike.setdefault(_kind(notice), {})[record.number] = notice
    return {_together(list(by.values())): _trials(list(by), len(records)) for by in alike.values()}


def _kind(notice: str) -> tuple[object, ...]:
    """Return what two notices must share to be one: the template and every value that is no number."""
    if not isinstance(notice, Message):
        return (notice,)
    return (notice.template, *((name, value) for name, value in notice.values.items() if not _is_number(value)))


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _together(notices: Sequence[str]) -> str:
    first = notices[0]
    if not isinstance(first, Message):
        return first
    values = [notice.values for notice in notices if isinstance(notice, Message)]
    return Message(
        first.template,
        **{
            name: Range(min(v[name] for v in values), max(v[name] for v in values)) if _is_number(value) else value
            for name, value in first.values.items()
        },
    )


def _trials(numbers: Sequence[int], total: int) -> str:
    """Return trials in words, as few as it takes."""
    if len(numbers) >= 4:
        if len(numbers) == total:
            return Message("every trial")
        return Message("{n} of {total} trials", n=len(numbers), total=total)
    return joined(
        ", ", [Message("status quo") if n == STATUS_QUO_TRIAL else Message("trial {number}", number=n) for n in numbers]
    )
