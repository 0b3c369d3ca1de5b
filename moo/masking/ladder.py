"""The masking ladder, L0 to L5: what is found at a level, and the text with it replaced. Nested and record-scoped.

Each level keeps every span of the level below and adds its own types; where two overlap, the lower level's stays and the
other keeps what is left of it. A record is read alone, so masking never carries one record's words into another's.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from moo import validate
from moo.entities import ENTITY_LEVELS, MAX_LEVEL
from moo.masking import names, places, words
from moo.masking.normal import BLANK, normalise
from moo.masking.operators import Operators
from moo.masking.patterns import PATTERNS, Pattern
from moo.masking.quasi import QUASI

Recogniser = Callable[[str], Iterable[names.Hit]]

_PASSES = 8  # looks again at most this often
_NUMBER = re.compile(r"[0-9](?:[ \-.()（）·,:]{0,2}[0-9])*")
_CAPITAL = re.compile("[A-Z]")
_BY_LEVEL = {
    level: [(p, p.keys) for p in (*PATTERNS, *QUASI) if ENTITY_LEVELS[p.type] == level]
    for level in range(MAX_LEVEL + 1)
}
Gate = Callable[[], frozenset[str]]  # characters and pairs of them of which the text must hold one
_CHINESE: dict[int, tuple[tuple[Recogniser, Gate | None], ...]] = {
    2: ((places.addresses, lambda: places.ADDRESS_KEYS), (names.chinese_names, None)),
    3: ((places.cities, places.city_keys),),
    4: ((words.sensitive, words.sensitive_keys),),
}
_LATIN: dict[int, tuple[Recogniser, ...]] = {
    2: (places.english_addresses, names.english_names),
    4: (words.english_sensitive,),
}
_ANY: dict[int, tuple[Recogniser, ...]] = {5: (words.rare, words.digits)}
_DEFAULT = Operators()


@dataclass(frozen=True, order=True)
class Found:
    """A mention: text[start:end] is replaced by `replacement`.

    Attributes:
        start, end: Offsets in the text as it was given, in code points.
        type: Entity type.
        level: Level that first covers it.
        replacement: What stands there afterwards.
        why: What it was recognised by.
    """

    start: int
    end: int
    type: str
    level: int
    replacement: str
    why: str = ""


def find_spans(
    text: str, level: int, *, fields: Mapping[str, str] | None = None, operators: Operators = _DEFAULT
) -> list[Found]:
    """Mentions that a level covers, in order, none overlapping another.

    Args:
        text: One record's text, of any length.
        level: 0 (nothing) to 5.
        fields: The record's own structured values by entity type; each is looked for in the text.
        operators: What stands in a mention's place.

    Raises:
        InputError: If the level is not one of the ladder's.
    """
    validate.in_range(0, MAX_LEVEL, masking_level=level)
    look = _Look(text, fields or {}, level)
    for step in range(1, level + 1):
        fresh = look.take(look.hits(look.base, [step]))
        # what is covered may lay bare the boundary of something else; a second masking would see it, so the first one must
        again: Sequence[int] = range(1, step + 1) if fresh else [step]
        for _ in range(_PASSES if look.seen != look.base else 0):
            if not look.take(look.hits(look.seen, again)):
                break
            again = range(1, step + 1)
    return sorted(
        Found(s, e, kind, ENTITY_LEVELS[kind], operators.replace(kind, look.base[s:e], level), why)
        for s, e, kind, why in look.found
    )


def mask(text: str, level: int, *, fields: Mapping[str, str] | None = None, operators: Operators = _DEFAULT) -> str:
    """The text with everything that the level covers replaced; see `find_spans`."""
    return apply(text, find_spans(text, level, fields=fields, operators=operators))


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


class _Look:
    """One record's text under work: as it came (normalised), and with what was taken blanked.

    What cannot match the text as it came cannot match it with blanks either, so each level's recognisers are chosen once.
    """

    def __init__(self, text: str, fields: Mapping[str, str], level: int) -> None:
        self.base = self.seen = normalise(text)
        self.found: list[names.Hit] = []
        self._taken = bytearray(len(text))
        if BLANK in self.base:
            self._taken[:] = bytes(c == BLANK for c in self.base)
        self._fields = {k: normalise(v) for k, v in fields.items() if len(v) > 1 and ENTITY_LEVELS.get(k, 9) <= level}
        lower = self.base.lower()
        keys = {*lower, *map(str.__add__, lower, lower[1:])}
        chinese, capital = not self.base.isascii(), _CAPITAL.search(self.base) is not None
        self._longest = _longest_number(self.base)
        self._patterns: dict[int, list[Pattern]] = {}
        self._recognisers: dict[int, list[Recogniser]] = {}
        for step in range(1, level + 1):
            self._patterns[step] = [
                p
                for p, own in _BY_LEVEL[step]
                if self._longest >= p.digits
                and (not own or (not own.isdisjoint(keys) and any(cue in lower for cue in p.cues)))
            ]
            self._recognisers[step] = [
                *(r for r, gate in _CHINESE.get(step, ()) if chinese and (gate is None or not keys.isdisjoint(gate()))),
                *(_LATIN.get(step, ()) if capital or step != 2 else ()),
                *_ANY.get(step, ()),
            ]

    def hits(self, text: str, steps: Iterable[int]) -> Iterator[names.Hit]:
        """What the steps add: the record's own values, structured types, words."""
        longest = self._longest if text is self.base else _longest_number(text)
        for step in steps:
            if self._fields:
                yield from self._own(text, step)
            for p in self._patterns[step]:
                if p.digits <= longest:
                    yield from _matches(p, text)
            for recogniser in self._recognisers[step]:
                yield from recogniser(text)

    def take(self, hits: Iterable[names.Hit]) -> bool:
        """Keep of the hits what is still uncovered, first come first served; whether there was any."""
        fresh: list[tuple[int, int]] = []
        for start, end, kind, why in hits:
            for low, high in _uncovered(self.base, self._taken, start, end):
                self._taken[low:high] = b"\x01" * (high - low)
                self.found.append((low, high, kind, why))
                fresh.append((low, high))
        if fresh:
            self.seen = _blanked(self.seen, sorted(fresh))
        return bool(fresh)

    def _own(self, text: str, step: int) -> Iterator[names.Hit]:
        for kind, wanted in self._fields.items():
            if ENTITY_LEVELS[kind] != step:
                continue
            at = text.find(wanted)
            while at >= 0:
                yield at, at + len(wanted), kind, "the record's own value"
                at = text.find(wanted, at + len(wanted))


def _longest_number(text: str) -> int:
    """Characters of the longest run of digits, with what may part them."""
    return max(map(len, _NUMBER.findall(text)), default=0)


def _matches(p: Pattern, text: str) -> Iterator[names.Hit]:
    group = 1 if p.regex.groups else 0
    for match in p.regex.finditer(text):
        if p.check is None or p.check(match.group(group)):
            yield match.start(group), match.end(group), p.type, p.why


def _uncovered(text: str, taken: bytearray, start: int, end: int) -> list[tuple[int, int]]:
    """The whole of start:end if nothing of it is taken; else its free pieces that hold a letter or digit."""
    if 1 not in taken[start:end]:
        return [(start, end)] if start < end else []
    pieces, at = [], start
    while (low := taken.find(0, at, end)) >= 0:
        high = taken.find(1, low, end)
        at = end if high < 0 else high
        if any(c.isalnum() for c in text[low:at]):
            pieces.append((low, at))
    return pieces


def _blanked(text: str, spans: Sequence[tuple[int, int]]) -> str:
    parts, at = [], 0
    for low, high in spans:
        parts += [text[at:low], BLANK * (high - low)]
        at = high
    return "".join([*parts, text[at:]])
