"""Rule as data: an article of law or a policy, a number, and the score of that number.

Scores run from 0 (compliant) to 1. A *graded* rule enters the penalty; a *gate* must be 0; a
*watched* rule is scored and shown, and enters neither.
"""

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import rfc8785

from moo.core.measurement import number_out

Kind = Literal["gate", "graded", "watched"]
# Judged for every trial; before a model leaves; and once it has left.
Stage = Literal["trial", "release", "watch"]
Verdict = Literal["pass", "fail", "not assessed"]

# How far the text behind a rule was read: in full, through a secondary source, recalled (counsel
# Must check it), or no law at all. No law sets epsilon, delta or k: such thresholds are policy.
STATUSES = ("read", "secondary", "recalled", "policy")
# First part of an evidence key.
MEASURED = (
    "data",
    "masking",
    "privacy",
    "utility",
    "generation",
    "declared",
    "release",
)
# `applies_if = "rule:G17"`: where that rule applies.
RULE = "rule:"
# The risk objective's evidence: counting it here would count it twice.
OTHER_OBJECTIVE = ("membership", "attribute")


def ramp(x: float, low: float, high: float) -> float:
    """Return clip((x - low) / (high - low), 0, 1)."""
    if math.isinf(x):
        return 1.0 if x > 0 else 0.0
    return min(1.0, max(0.0, (x - low) / (high - low)))


def lramp(x: float, low: float, high: float) -> float:
    """Return `ramp` on log10: 0 at `low`, 1 at `high`; 0 where x <= 0.

    Half-way at their geometric mean.
    """
    if x <= 0:
        return 0.0
    return ramp(math.log10(x), math.log10(low), math.log10(high))


def share(x: float, low: float = 0.0, high: float = 1.0) -> float:
    """Return the number itself, cut to [0, 1]."""
    return ramp(x, low, high)


SCORES: Mapping[str, Callable[[float, float, float], float]] = MappingProxyType(
    {"ramp": ramp, "lramp": lramp, "share": share}
)


@dataclass(frozen=True, kw_only=True)
class Excuse:
    """A fact from which on a gate does not close, e.g. masking.level >= 4."""

    evidence: str
    at_least: float

    def holds(self, facts: Mapping[str, float | None]) -> bool:
        value = facts.get(self.evidence)
        return value is not None and value >= self.at_least


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One rule of a pack.

    Attributes:
        id: E.g. "G01" or "S03".
        kind: "gate" (must be 0), "graded" (enters the penalty) or "watched" (neither).
        title_zh: For people.
        title_en: For people.
        basis: Articles, e.g. ("PIPL 13", "ECL 23"); never empty.
        status: The weakest reading among the articles: one of `STATUSES`.
        evidence: Keys of the facts it looks at, e.g. ("masking.small_group_share",); of several the
            worst counts.
        score: A name of `SCORES`.
        low: Where the score leaves 0.
        high: Where it reaches 1.
        domain: Of a graded rule: the scores of one domain count once, by their maximum.
        applies_if: Flag of the study without which the rule drops out, or "rule:ID", where that
            rule applies; empty: always.
        unless: What excuses a gate.
        fail_at: Score from which a rule that is no gate reads "fail".
        stage: When it is judged: of every trial, before a model is released, or afterwards.
        pia: Heading of PIPL 56: 1 purpose and method, 2 impact and risk, 3
            protective measures.
        varies: What can change the number: "data" alone refuses a study before it starts.
        source: Where the article was read, or why the policy is what it is.
        as_of: Date of that reading, ISO.
        pack: Name of the pack.
        path: File, and `line`, for error messages.
    """

    id: str
    kind: Kind
    title_zh: str
    title_en: str
    basis: tuple[str, ...]
    status: str
    evidence: tuple[str, ...]
    score: str
    low: float
    high: float
    domain: str
    applies_if: str
    unless: Excuse | None
    fail_at: float
    stage: Stage
    pia: int
    varies: tuple[str, ...]
    source: str
    as_of: str
    pack: str
    path: Path
    line: int

    @property
    def article(self) -> str:
        return "; ".join(self.basis)

    def digest(self, facts: Mapping[str, float | None]) -> str:
        """Return SHA-256, hex, of the rule's reading and its facts: the subject of a signature."""
        content: dict[str, Any] = {
            "rule": self.id,
            "pack": self.pack,
            "basis": list(self.basis),
            "as_of": self.as_of,
            "kind": self.kind,
            "score": self.score,
            "low": self.low,
            "high": self.high,
            "facts": self.read(facts),
        }
        return hashlib.sha256(rfc8785.dumps(content)).hexdigest()

    def read(self, facts: Mapping[str, float | None]) -> dict[str, float | str | None]:
        """Return the facts that it reads, as JSON can hold them; None where one is unknown."""
        keys = [*self.evidence, *([self.unless.evidence] if self.unless else [])]
        found = {key: facts.get(key) for key in keys}
        return {k: None if v is None or math.isnan(v) else number_out(float(v)) for k, v in found.items()}

    def value(self, facts: Mapping[str, float | None]) -> float | None:
        """Return the worst of its facts; None where one is unknown (missing, None or NaN).

        Infinity is a number.
        """
        values = [facts.get(key) for key in self.evidence]
        known = [v for v in values if v is not None and not math.isnan(v)]
        return max(known) if len(known) == len(values) else None

    def judge(self, facts: Mapping[str, float | None]) -> tuple[float, Verdict]:
        """Return score in [0, 1] and verdict.

        An unknown fact scores 1 and reads "not assessed", never "pass".
        """
        if self.unless is not None and self.unless.holds(facts):
            return 0.0, "pass"
        value = self.value(facts)
        if value is None:
            return 1.0, "not assessed"
        score = SCORES[self.score](value, self.low, self.high)
        failed = score > 0 if self.kind == "gate" else score >= self.fail_at
        return score, "fail" if failed else "pass"
