"""Masking ladder, L0 to L5: the mentions of a level, and the text with them replaced. Nested and record-scoped.

Each level keeps every span of the level below and adds its own types; where two overlap, the lower level's stays and
the other keeps the rest of its span. A record is read alone, so no record's words get into another's.
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

# second looks at a level, at most
_PASSES = 8
# characters on both sides of a covered span where a mention may begin or end that the cover laid bare
_BESIDE = 8
_DEFAULT = Operators()


@dataclass(frozen=True, order=True)
class Found:
    """Mention of personal information; text[start:end] is replaced by `replacement`.

    Attributes:
        start, end: Offsets in the original text, in code points.
        type: Entity type.
        level: Level that first covers the type.
        replacement: Text in its place after masking.
        why: Reason in words.
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
    """Return the mentions that a level covers.

    Args:
        text: Text of one record, of any length.
        level: Level, 0 (nothing) to 5.
        fields: The record's own structured values by entity type; each is looked for in the text.
        operators: Operators that write the replacements.
        ner: True to ask the optional recogniser of Chinese names too, from level 2 on; much slower.

    Returns:
        Mentions in order of their start; no two overlap.

    Raises:
        InputError: If the level is not between 0 and 5, or the optional recogniser is not installed.
    """
    validate.in_range(0, MAX_LEVEL, masking_level=level)
    scan = _Scan(text, fields or {}, level, ner=ner)
    for step in range(1, level + 1):
        fresh = scan.cover(scan.hits(step))
        if scan.covered is None:
            continue
        # a cover may lay bare the boundary of another mention: a second masking would see it, so the first one must
        hits = scan.hits_near(range(1, step), fresh) if fresh else []
        hits += scan.hits(step, scan.covered)
        for _ in range(_PASSES):
            if (fresh := scan.cover(hits)) is None:
                break
            hits = scan.hits_near(range(1, step + 1), fresh)
    return sorted(
        Found(s, e, kind, ENTITY_LEVELS[kind], operators.replace(kind, scan.mention(s, e), level), why)
        for s, e, kind, why in scan.hits_kept
    )


def mask(
    text: str,
    level: int,
    *,
    fields: Mapping[str, str] | None = None,
    operators: Operators = _DEFAULT,
    ner: bool = False,
) -> str:
    """Return the text with everything that the level covers replaced; see `find_spans` for the arguments and errors."""
    return apply(text, find_spans(text, level, fields=fields, operators=operators, ner=ner))


def mask_many(
    texts: Sequence[str], level: int, *, fields: Sequence[Mapping[str, str]] | None = None, ner: bool = False
) -> list[str]:
    """Return each text masked.

    Args:
        texts: Texts of n records.
        level: Level, 0 to 5.
        fields: The records' own values, n mappings; None searches for none.
        ner: True to ask the optional recogniser of Chinese names too.
    """
    values: Iterable[Mapping[str, str] | None] = fields if fields is not None else (None for _ in texts)
    return [mask(text, level, fields=f, ner=ner) for text, f in zip(texts, values, strict=True)]


def apply(text: str, spans: Sequence[Found]) -> str:
    """Return the text with its spans, in order, replaced; every character outside them stays."""
    parts, at = [], 0
    for span in spans:
        parts += [text[at : span.start], span.replacement]
        at = span.end
    return "".join([*parts, text[at:]])


class _Near(NamedTuple):
    """Neighbourhood of the covered spans, where a second look may find something.

    Attributes:
        start, end: From the first covered character to the last.
        longest: Characters of the longest number left; -1 if no letter or digit is next to a covered span: then no
            number, no handle and no Latin word can have got a new boundary.
    """

    start: int
    end: int
    longest: int


class _Scan:
    """Search of one record's text: normalised, and the same with the covered spans blanked.

    A recogniser that cannot match the normalised text cannot match it with blanks either, so each level's recognisers
    are chosen once.

    Attributes:
        hits_kept: Hits, or free pieces of hits, in the order in which they were covered.
        covered: Neighbourhood of all covered spans; None while there are none.
    """

    def __init__(self, text: str, fields: Mapping[str, str], level: int, *, ner: bool) -> None:
        self._base = self._left = normalise(text)
        self.hits_kept: list[Hit] = []
        self.covered: _Near | None = None
        self._taken = bytearray(len(text))
        if BLANK in self._base:
            self._taken[:] = bytes(c == BLANK for c in self._base)
            self.covered = _Near(0, len(text), prefilter.longest_number(self._base))
        self._fields = {k: normalise(v) for k, v in fields.items() if len(v) > 1 and ENTITY_LEVELS.get(k, 9) <= level}
        self._recognisers = prefilter.choose(self._base, level, with_ner=ner)

    def mention(self, start: int, end: int) -> str:
        """Return the normalised mention at start:end."""
        return self._base[start:end]

    def hits(self, step: int, near: _Near | None = None) -> list[Hit]:
        """Return the hits of one level in the normalised text, or in the neighbourhood of the covered spans."""
        text = self._left if near else self._base
        out = list(self._field_hits(text, step)) if self._fields else []
        for recogniser in self._recognisers[step - 1]:
            if near and recogniser.digits > near.longest and not recogniser.words:
                continue
            if recogniser.scan is None:
                out += recogniser.hits(text, near.start, near.end) if near else recogniser.hits(text)
                continue
            for match in recogniser.scan(text):
                if recogniser.check is None or recogniser.check(match.group(recogniser.group)):
                    out.append((*match.span(recogniser.group), recogniser.type, recogniser.why))
        return out

    def hits_near(self, steps: Iterable[int], near: _Near) -> list[Hit]:
        """Return the hits of several levels in the neighbourhood of the covered spans."""
        return [hit for step in steps for hit in self.hits(step, near)]

    def cover(self, hits: Iterable[Hit]) -> _Near | None:
        """Cover the free pieces of the hits, first come first served; return their neighbourhood, None without any."""
        fresh: list[tuple[int, int]] = []
        for start, end, kind, why in hits:
            for low, high in _uncovered(self._base, self._taken, start, end):
                self._taken[low:high] = b"\x01" * (high - low)
                self.hits_kept.append((low, high, kind, why))
                fresh.append((low, high))
        if not fresh:
            return None
        fresh.sort()
        self._left = left = _blanked(self._left, fresh)
        beside = "".join([left[max(0, low - _BESIDE) : low] + left[high : high + _BESIDE] for low, high in fresh])
        written, old = prefilter.is_written(beside), self.covered
        longest = prefilter.longest_number(left) if written or (old and old.longest >= 0) else -1
        near = _Near(fresh[0][0], fresh[-1][1], longest if written else -1)
        self.covered = near if old is None else _Near(min(old.start, near.start), max(old.end, near.end), longest)
        return near

    def _field_hits(self, text: str, step: int) -> Iterable[Hit]:
        """Yield the places of the record's own values of one level."""
        for kind, wanted in self._fields.items():
            if ENTITY_LEVELS[kind] != step:
                continue
            at = text.find(wanted)
            while at >= 0:
                yield at, at + len(wanted), kind, "the record's own value"
                at = text.find(wanted, at + len(wanted))


def _uncovered(text: str, taken: bytearray, start: int, end: int) -> list[tuple[int, int]]:
    """Return start:end if nothing of it is taken; else its free pieces that hold a letter or digit."""
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
    """Return the text with `BLANK` for every character of the spans."""
    parts, at = [], 0
    for low, high in spans:
        parts += [text[at:low], BLANK * (high - low)]
        at = high
    return "".join([*parts, text[at:]])
