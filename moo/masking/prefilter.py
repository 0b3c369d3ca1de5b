"""Choice of the recognisers that can find anything in a text, by cheap tests made once a record.

Each recogniser has keys: single characters or pairs of them, in small letters. A text must hold one of them. One pass
over the text looks for all keys, and chooses the recognisers that own one of those present.
"""

import re
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import chain
from typing import NamedTuple

from moo.core.personal_data_types import ENTITY_LEVELS, MAX_LEVEL
from moo.masking.recognisers import addresses, names_en, names_ner, names_zh, names_zh_lexicon, vocabulary
from moo.masking.recognisers.hits import Hit, repeated
from moo.masking.recognisers.pattern import Pattern
from moo.masking.recognisers.quasi_identifiers import QUASI
from moo.masking.recognisers.structured import PATTERNS
from moo.masking.tokens import parted_numbers

_NUMBER = re.compile(r"[0-9](?:[ \-.()（）·,:]{0,2}[0-9])*")
_CAPITAL = re.compile("[A-Z]")
_WRITTEN = re.compile("[0-9A-Za-z_@零〇一二三四五六七八九十百千两]")


class Recogniser(NamedTuple):
    """A way to find mentions, and what a text must hold for it to be tried.

    Attributes:
        find: Text -> mentions. A pattern has none; `scan`, `check`, `group`, `type` and `why` take its place.
        keys: Keys, of which the text must hold one; empty for no such test.
        cues: Strings, of which the text in small letters must hold one; empty for no such test.
        digits: Least length of the text's longest number, in characters.
        words: True if a boundary may be a Chinese character's, and not only one of letters and digits.
        script: "" for any text, "han" for one beyond ASCII, "capital" for one with capitals.
        reach: Distance in characters of all that decides on a mention, itself included; 0 for no bound.
        everywhere: True if the string of a mention is looked for in the whole text.
        scan: Text -> matches of the pattern.
        check: Test of the mention; None accepts every match.
        group: Group of the match that is the mention; 0 for the whole match.
        type: Entity type of the pattern.
        why: Reason in words of the pattern.
    """

    find: Callable[[str], list[Hit]] = lambda _: []
    keys: frozenset[str] = frozenset()
    cues: tuple[str, ...] = ()
    digits: int = 0
    words: bool = True
    script: str = ""
    reach: int = 0
    everywhere: bool = False
    scan: "Callable[[str], Iterator[re.Match[str]]] | None" = None
    check: Callable[[str], bool] | None = None
    group: int = 0
    type: str = ""
    why: str = ""

    def hits(self, text: str, start: int = 0, end: int = sys.maxsize) -> list[Hit]:
        """Return all mentions, or, where that is quicker, those that text[start:end] can have changed."""
        low, high = max(0, start - 2 * self.reach), min(len(text), end + 2 * self.reach)
        if not self.reach or high - low == len(text):
            mentions = self.find(text)
        else:
            # a mention near a cut is not to be relied on
            least, most = low and low + self.reach, high - (0 if high == len(text) else self.reach)
            piece = self.find(text[low:high])
            mentions = [(s + low, e + low, k, w) for s, e, k, w in piece if s + low >= least and e + low <= most]
        return [*mentions, *repeated(text, mentions)] if self.everywhere and mentions else mentions


def _from_pattern(p: Pattern) -> Recogniser:
    return Recogniser(
        keys=frozenset(cue[:2] for cue in p.cues),
        cues=p.cues if any(len(cue) > 2 for cue in p.cues) else (),
        digits=p.digits,
        words="\\u4e00" in p.regex.pattern,
        scan=p.regex.finditer,
        check=p.check,
        group=min(1, p.regex.groups),
        type=p.type,
        why=p.why,
    )


@lru_cache(maxsize=1)
def _recognisers() -> dict[int, list[Recogniser]]:
    """Return level -> its recognisers in order of trust."""
    levels: dict[int, list[Recogniser]] = {level: [] for level in range(1, MAX_LEVEL + 1)}
    for pattern in (*PATTERNS, *QUASI):
        levels[ENTITY_LEVELS[pattern.type]].append(_from_pattern(pattern))
    levels[1].append(Recogniser(parted_numbers))
    levels[2] += [
        Recogniser(addresses.addresses, addresses.ADDRESS_KEYS, script="han"),
        Recogniser(names_zh.names_behind_cues, names_zh_lexicon.cue_keys(), script="han", everywhere=True),
        Recogniser(names_zh.names_behind_relations, names_zh_lexicon.handing_keys(), script="han", everywhere=True),
        Recogniser(
            names_zh.names_before_forms, names_zh_lexicon.handing_or_seeking_keys(), script="han", everywhere=True
        ),
        Recogniser(
            names_zh.transliterated_names, names_zh_lexicon.transliteration_keys(), script="han", everywhere=True
        ),
        Recogniser(names_zh.scored_names, script="han", reach=names_zh.REACH, everywhere=True),
        Recogniser(addresses.english_addresses, addresses.street_keys(), words=False, digits=1, script="capital"),
        Recogniser(names_en.english_names, words=False, script="capital", everywhere=True),
    ]
    levels[3].append(Recogniser(addresses.cities, addresses.city_keys(), script="han"))
    levels[4] += [
        Recogniser(vocabulary.sensitive, vocabulary.sensitive_keys(), script="han"),
        Recogniser(vocabulary.english_sensitive, vocabulary.english_keys(), words=False),
    ]
    levels[5] += [Recogniser(vocabulary.rare), Recogniser(vocabulary.digits)]
    return levels


class _Index(NamedTuple):
    """Recognisers by key, each with one bit.

    Attributes:
        owners: Key -> bits of the recognisers that have it.
        keys: All keys.
        always: Bits of the recognisers without keys.
        levels: Level by level, bit and recogniser.
    """

    owners: dict[str, int]
    keys: frozenset[str]
    always: int
    levels: tuple[tuple[tuple[int, Recogniser], ...], ...]


@lru_cache(maxsize=1)
def _index() -> _Index:
    owners: defaultdict[str, int] = defaultdict(int)
    always, levels, bit = 0, [], 1
    for _, recognisers in sorted(_recognisers().items()):
        numbered = []
        for recogniser in recognisers:
            for key in recogniser.keys:
                owners[key] |= bit
            always |= 0 if recogniser.keys else bit
            numbered.append((bit, recogniser))
            bit <<= 1
        levels.append(tuple(numbered))
    return _Index(dict(owners), frozenset(owners), always, tuple(levels))


_NER = Recogniser(names_ner.chinese_names, script="han", everywhere=True)


def choose(text: str, level: int, *, with_ner: bool = False) -> list[list[Recogniser]]:
    """Return the recognisers that can find something in a normalised text, or in the same text with blanks in it.

    Args:
        text: Normalised text.
        level: Highest level asked for, 0 to 5.
        with_ner: True to add the optional recogniser of names.

    Returns:
        Recognisers of levels 1 to `level`, by level, in order of trust.
    """
    index, lower = _index(), text.lower()
    chosen = index.always
    for key in index.keys.intersection(chain(lower, map(str.__add__, lower, lower[1:]))):
        chosen |= index.owners[key]
    fit = {"": True, "han": not text.isascii(), "capital": _CAPITAL.search(text) is not None}
    longest = longest_number(text)
    recognisers = [
        [
            r
            for bit, r in numbered
            if chosen & bit
            and r.digits <= longest
            and fit[r.script]
            and (not r.cues or any(c in lower for c in r.cues))
        ]
        for numbered in index.levels[:level]
    ]
    if with_ner and level > 1 and fit[_NER.script]:
        recognisers[1].append(_NER)
    return recognisers


def longest_number(text: str) -> int:
    """Return the length of the longest number in characters, separators inside it included."""
    return max(map(len, _NUMBER.findall(text)), default=0)


def is_written(text: str) -> bool:
    """Return True if a number, a handle or a word of letters could begin or end in the text."""
    return _WRITTEN.search(text) is not None
