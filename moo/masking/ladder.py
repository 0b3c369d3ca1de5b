"""The masking ladder, L0 to L5: what is found at a level, and the text with it replaced. Nested and record-scoped.

Each level keeps every span of the level below and adds its own types; where two overlap, the lower level's stays and the
other keeps what is left of it. A record is read alone, so masking never carries one record's words into another's.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

from moo import validate
from moo.entities import ENTITY_LEVELS, MAX_LEVEL
from moo.masking import words
from moo.masking.normal import BLANK, normalise
from moo.masking.operators import replacement
from moo.masking.patterns import PATTERNS

_BY_LEVEL = {level: [p for p in PATTERNS if ENTITY_LEVELS[p.type] == level] for level in range(MAX_LEVEL + 1)}
_WORDS = {2: (words.names, words.addresses), 3: (words.cities,), 4: (words.sensitive,), 5: (words.rare, words.digits)}
_PASSES = 8  # looks again at most this often


@dataclass(frozen=True, order=True)
class Found:
    """A mention: text[start:end] is replaced by `replacement`.

    Attributes:
        start, end: Offsets in the text as it was given, in code points.
        type: Entity type.
        level: Level that first covers it.
        replacement: What stands there afterwards.
    """

    start: int
    end: int
    type: str
    level: int
    replacement: str


def find_spans(text: str, level: int, *, fields: Mapping[str, str] | None = None) -> list[Found]:
    """Mentions that a level covers, in order, none overlapping another.

    Args:
        text: One record's text, of any length.
        level: 0 (nothing) to 5.
        fields: The record's own structured values by entity type; each is looked for in the text.

    Raises:
        InputError: If the level is not one of the ladder's.
    """
    validate.in_range(0, MAX_LEVEL, masking_level=level)
    found: list[Found] = []
    base = seen = normalise(text)
    for step in range(1, level + 1):
        fresh, seen = _take(_hits(base, [step], fields or {}), seen, text, level)
        found += fresh
        for _ in range(_PASSES if seen != base else 0):  # what is covered may lay bare the boundary of something else
            fresh, seen = _take(_hits(seen, range(1, step + 1), fields or {}), seen, text, level)
            if not fresh:
                break
            found += fresh
    return sorted(found)


def mask(text: str, level: int, *, fields: Mapping[str, str] | None = None) -> str:
    """The text with everything that the level covers replaced; see `find_spans`."""
    return apply(text, find_spans(text, level, fields=fields))


def mask_many(texts: Sequence[str], level: int, *, fields: Sequence[Mapping[str, str]] | None = None) -> list[str]:
    """`mask` for each text, with each one's own fields."""
    own: Iterable[Mapping[str, str] | None] = fields if fields is not None else (None for _ in texts)
    return [mask(text, level, fields=f) for text, f in zip(texts, own, strict=True)]


def apply(text: str, spans: Sequence[Found]) -> str:
    """Replace the spans; every character outside them stays."""
    parts, at = [], 0
    for span in spans:
        parts += [text[at : span.start], span.replacement]
        at = span.end
    return "".join([*parts, text[at:]])


def _hits(text: str, levels: Iterable[int], fields: Mapping[str, str]) -> list[words.Hit]:
    """What the levels add: the record's own values, structured types, words."""
    return [
        hit
        for level in levels
        for hit in chain(
            _own(text, level, fields), _structured(text, level), *(find(text) for find in _WORDS.get(level, ()))
        )
    ]


def _structured(text: str, level: int) -> Iterable[words.Hit]:
    for pattern in _BY_LEVEL[level]:
        if pattern.needs and not any(c in text for c in pattern.needs):
            continue
        for match in pattern.regex.finditer(text):
            group = 1 if pattern.regex.groups else 0
            if pattern.check is None or pattern.check(match.group(group)):
                yield match.start(group), match.end(group), pattern.type


def _own(text: str, level: int, fields: Mapping[str, str]) -> Iterable[words.Hit]:
    for kind, value in fields.items():
        if ENTITY_LEVELS.get(kind) != level or len(value) < 2:
            continue
        wanted = normalise(value)
        at = text.find(wanted)
        while at >= 0:
            yield at, at + len(wanted), kind
            at = text.find(wanted, at + len(wanted))


def _take(hits: Iterable[words.Hit], seen: str, text: str, level: int) -> tuple[list[Found], str]:
    """Spans of what is still uncovered, first come first served, and the text with them blanked."""
    fresh = []
    for start, end, kind in hits:
        for low, high in _uncovered(seen, start, end):
            fresh.append(Found(low, high, kind, ENTITY_LEVELS[kind], replacement(kind, text[low:high], level)))
            seen = seen[:low] + BLANK * (high - low) + seen[high:]
    return fresh, seen


def _uncovered(seen: str, start: int, end: int) -> list[tuple[int, int]]:
    """Pieces of seen[start:end] between blanks that hold a letter or digit."""
    if BLANK not in seen[start:end]:
        return [(start, end)] if start < end else []
    pieces, at = [], start
    for part in seen[start:end].split(BLANK):
        if any(c.isalnum() for c in part):
            pieces.append((at, at + len(part)))
        at += len(part) + 1
    return pieces
