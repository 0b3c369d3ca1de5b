"""The masking ladder, L0 to L5: what is found at a level, and the text with it replaced. Nested and record-scoped.

Each level keeps every span of the level below and adds its own types; where two overlap, the lower level's stays and the
other keeps what is left of it. A record is read alone, so masking never carries one record's words into another's.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from moo.core import validate
from moo.core.personal_data_types import ENTITY_LEVELS, MAX_LEVEL
from moo.masking import prefilter
from moo.masking.normalisation import normalise
from moo.masking.recognisers.hits import Hit
from moo.masking.replacements import Operators
from moo.masking.tokens import BLANK

_PASSES = 8  # looks again at most this often
_BESIDE = 8  # characters on both sides of what was covered, where a mention begins or ends that it laid bare
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
    text: str,
    level: int,
    *,
    fields: Mapping[str, str] | None = None,
    operators: Operators = _DEFAULT,
    ner: bool = False,
) -> list[Found]:
    """Mentions that a level covers, in order, none overlapping another.

    Args:
        text: One record's text, of any length.
        level: 0 (nothing) to 5.
        fields: The record's own structured values by entity type; each is looked for in the text.
        operators: What stands in a mention's place.
        ner: Whether the optional recogniser of Chinese names is asked too, from level 2 on; much slower.

    Raises:
        InputError: If the level is not one of the ladder's, or the optional recogniser is not installed.
    """
    validate.in_range(0, MAX_LEVEL, masking_level=level)
    look = _Look(text, fields or {}, level, ner=ner)
    for step in range(1, level + 1):
        fresh = look.take(look.hits(step))
        if look.covered is None:
            continue
        # what is covered may lay bare the boundary of something else; a second masking would see it, so the first one must
        hits = look.again(range(1, step), fresh) if fresh else []
        hits += look.hits(step, look.covered)
        for _ in range(_PASSES):
            if (fresh := look.take(hits)) is None:
                break
            hits = look.again(range(1, step + 1), fresh)
    return sorted(
        Found(s, e, kind, ENTITY_LEVELS[kind], operators.replace(kind, look.mention(s, e), level), why)
        for s, e, kind, why in look.found
    )


def mask(
    text: str,
    level: int,
    *,
    fields: Mapping[str, str] | None = None,
    operators: Operators = _DEFAULT,
    ner: bool = False,
) -> str:
    """The text with everything that the level covers replaced; see `find_spans`."""
    return apply(text, find_spans(text, level, fields=fields, operators=operators, ner=ner))


def mask_many(
    texts: Sequence[str], level: int, *, fields: Sequence[Mapping[str, str]] | None = None, ner: bool = False
) -> list[str]:
    """`mask` for each text, with each one's own fields."""
    own: Iterable[Mapping[str, str] | None] = fields if fields is not None else (None for _ in texts)
    return [mask(text, level, fields=f, ner=ner) for text, f in zip(texts, own, strict=True)]


def apply(text: str, spans: Sequence[Found]) -> str:
    """Replace the spans; every character outside them stays."""
    parts, at = [], 0
    for span in spans:
        parts += [text[at : span.start], span.replacement]
        at = span.end
    return "".join([*parts, text[at:]])


class _Near(NamedTuple):
    """Where a second look is worth while.

    Attributes:
        start, end: From the first character that was covered to the last.
        longest: Characters of the longest number left, or -1 if no letter or digit stands beside anything covered: then no number, no
            handle and no Latin word can have got a new boundary.
    """

    start: int
    end: int
    longest: int


class _Look:
    """One record's text under work: as it came (normalised), and with what was taken blanked.

    What cannot match the text as it came cannot match it with blanks either, so each level's recognisers are chosen once.
    """

    def __init__(self, text: str, fields: Mapping[str, str], level: int, *, ner: bool) -> None:
        self._base = self._seen = normalise(text)
        self.found: list[Hit] = []
        self.covered: _Near | None = None
        self._taken = bytearray(len(text))
        if BLANK in self._base:
            self._taken[:] = bytes(c == BLANK for c in self._base)
            self.covered = _Near(0, len(text), prefilter.longest_number(self._base))
        self._fields = {k: normalise(v) for k, v in fields.items() if len(v) > 1 and ENTITY_LEVELS.get(k, 9) <= level}
        self._rules = prefilter.choose(self._base, level, with_ner=ner)

    def mention(self, start: int, end: int) -> str:
        """Normalised."""
        return self._base[start:end]

    def hits(self, step: int, near: _Near | None = None) -> list[Hit]:
        """What a step adds to the text as it came, or near what was covered: the record's own values, then each rule's mentions."""
        text = self._seen if near else self._base
        out = list(self._own(text, step)) if self._fields else []
        for rule in self._rules[step - 1]:
            if near and rule.digits > near.longest and not rule.words:
                continue
            if rule.scan is None:
                out += rule.hits(text, near.start, near.end) if near else rule.hits(text)
                continue
            for match in rule.scan(text):
                if rule.check is None or rule.check(match.group(rule.group)):
                    out.append((*match.span(rule.group), rule.type, rule.why))
        return out

    def again(self, steps: Iterable[int], near: _Near) -> list[Hit]:
        """What the steps add near what was covered."""
        return [hit for step in steps for hit in self.hits(step, near)]

    def take(self, hits: Iterable[Hit]) -> _Near | None:
        """Keep of the hits what is still uncovered, first come first served; and where that was."""
        fresh: list[tuple[int, int]] = []
        for start, end, kind, why in hits:
            for low, high in _uncovered(self._base, self._taken, start, end):
                self._taken[low:high] = b"\x01" * (high - low)
                self.found.append((low, high, kind, why))
                fresh.append((low, high))
        if not fresh:
            return None
        fresh.sort()
        self._seen = seen = _blanked(self._seen, fresh)
        beside = "".join([seen[max(0, low - _BESIDE) : low] + seen[high : high + _BESIDE] for low, high in fresh])
        written, old = prefilter.is_written(beside), self.covered
        longest = prefilter.longest_number(seen) if written or (old and old.longest >= 0) else -1
        near = _Near(fresh[0][0], fresh[-1][1], longest if written else -1)
        self.covered = near if old is None else _Near(min(old.start, near.start), max(old.end, near.end), longest)
        return near

    def _own(self, text: str, step: int) -> Iterable[Hit]:
        for kind, wanted in self._fields.items():
            if ENTITY_LEVELS[kind] != step:
                continue
            at = text.find(wanted)
            while at >= 0:
                yield at, at + len(wanted), kind, "the record's own value"
                at = text.find(wanted, at + len(wanted))


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
