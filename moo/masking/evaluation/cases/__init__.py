"""Hard cases by kind: one text a line, mentions marked as ⟦type|mention⟧. Written for moo; all values are made up."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

from moo.core.errors import InputError
from moo.core.measurement import Span
from moo.core.personal_data_types import ENTITY_LEVELS
from moo.masking.evaluation.evaluate import evaluate

KINDS = ("obfuscated", "joined", "scripts", "lookalikes")
_MARKED = re.compile(r"⟦([a-z_]+)\|([^⟧]*)⟧")


@dataclass(frozen=True, kw_only=True)
class Case:
    """Text with the spans of its mentions and the level of its evaluation."""

    text: str
    gold: tuple[Span, ...]
    level: int


def unmark(marked: str) -> tuple[str, tuple[Span, ...]]:
    """Return the plain text of a marked one, and the spans of its mentions.

    Args:
        marked: Text with mentions as ⟦type|mention⟧.

    Raises:
        InputError: If a type is unknown.
    """
    text, spans, at = "", [], 0
    for match in _MARKED.finditer(marked):
        kind, mention = match.groups()
        if kind not in ENTITY_LEVELS:
            raise InputError(
                "The type of a mention must be one of {entity_levels}, got {kind!r}.",
                entity_levels=", ".join(ENTITY_LEVELS),
                kind=kind,
            )
        text += marked[at : match.start()]
        spans.append(Span(start=len(text), end=len(text) + len(mention), type=kind, level=ENTITY_LEVELS[kind]))
        text += mention
        at = match.end()
    return text + marked[at:], tuple(spans)


def load_cases(kind: str) -> list[Case]:
    """Return the cases of one kind of `KINDS`.

    Raises:
        InputError: If the kind is unknown.
    """
    if kind not in KINDS:
        raise InputError("kind must be one of {kinds}, got {kind!r}.", kinds=", ".join(KINDS), kind=kind)
    lines = (resources.files("moo.masking.evaluation.cases") / f"{kind}.jsonl").read_text(encoding="utf-8").splitlines()
    cases = []
    for line in lines:
        record = json.loads(line)
        text, gold = unmark(record["text"])
        cases.append(Case(text=text, gold=gold, level=record.get("level", 2)))
    return cases


def passed(case: Case) -> bool:
    """Return True if masking covers all mentions of the case, and makes no mention that touches none of them."""
    evaluation = evaluate([case.text], [case.gold], case.level)
    return not any(s.missed or s.wrong for s in evaluation.types)


def score_cases(cases: Sequence[Case]) -> float:
    """Return the share of the cases that pass."""
    return sum(map(passed, cases)) / len(cases)
