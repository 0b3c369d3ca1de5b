"""Measurements with standard errors, and the spans that masking is measured on.

Inside moo an epsilon of `math.inf` means "trained without DP"; JSON has no infinity, so it travels
as "inf".
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from moo.core.messages import Message

# 97.5 and 95 % quantiles of the standard normal: half-width of a 95 % interval, and a one-sided 95 % bound
Z95, Z90 = 1.959963984540054, 1.6448536269514722


@dataclass(frozen=True, kw_only=True, slots=True, order=True)
class Span:
    """A piece of text that says something about a person: text[start:end].

    Attributes:
        start: First character, a 0-based offset in code points.
        end: One past the last character; start < end.
        type: Entity type, e.g. "mobile", "name", "health".
        level: Masking level (1..5) at which the ladder first covers the type.
    """

    start: int
    end: int
    type: str
    level: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Measurement:
    """A number with its standard error; `low` and `high` are its 95 % interval.

    Attributes:
        value: The number; NaN only where `note` says why ("not assessed: ...").
        stderr: Its standard error.
        note: Remark for people.
        df: Degrees of freedom behind `stderr`; intervals are of Student's law, which is normal at
            infinity.
    """

    value: float
    stderr: float = 0.0
    note: str = ""
    df: float = math.inf

    @property
    def low(self) -> float:
        return self.value - self.half

    @property
    def high(self) -> float:
        return self.value + self.half

    @property
    def half(self) -> float:
        """Half-width of the 95 % interval."""
        return self.stderr * (Z95 if math.isinf(self.df) else _student(self.df, 0.975))

    @property
    def upper(self) -> float:
        """Upper bound at 95 %, one-sided: what a limit is compared with."""
        return self.value + self.stderr * (Z90 if math.isinf(self.df) else _student(self.df, 0.95))

    @property
    def why(self) -> str:
        """Reason why the number was not assessed; the note itself if it was."""
        if isinstance(self.note, Message) and self.note.values.keys() == {"why"}:
            reason: str = self.note.values["why"]
            return reason
        return self.note.removeprefix("not assessed: ")

    def to_json(self) -> dict[str, Any]:
        out: dict[str, Any] = {"value": number_out(self.value), "stderr": number_out(self.stderr)}
        out |= {} if math.isinf(self.df) else {"df": self.df}
        return out | ({"note": self.note} if self.note else {})

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Measurement":
        return cls(
            value=number_in(data["value"]),
            stderr=number_in(data["stderr"]),
            note=data.get("note", ""),
            df=number_in(data.get("df", math.inf)),
        )


def _student(df: float, probability: float) -> float:
    """Return a quantile of Student's law with df degrees of freedom."""
    # scipy.special takes a quarter of a second to import, and most measurements are normal
    from scipy.special import stdtrit

    return float(stdtrit(df, probability))


def not_assessed(why: str) -> Measurement:
    """Return a measurement without a number.

    Args:
        why: Reason why there is none.
    """
    return Measurement(value=math.nan, note=Message("not assessed: {why}", why=why))


def number_out(value: float) -> float | str:
    """Return a float as JSON can hold it: infinities and NaN become strings."""
    return value if math.isfinite(value) else str(value)


def number_in(value: float | str) -> float:
    """Return the number that `number_out` wrote."""
    return float(value)
