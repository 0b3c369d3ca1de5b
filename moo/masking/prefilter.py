"""Which recognisers can find anything at all in a text: cheap tests, made once a record.

Each recogniser has keys, single characters or pairs of them in small letters, of which a text must hold one. All keys are looked
for in one pass over the text, and whoever owns one of those found is worth a look.
"""

import re
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import chain
from typing import NamedTuple

from moo.core.personal_data_types import ENTITY_LEVELS, MAX_LEVEL
from moo.masking.recognisers import addresses, names_en, names_ner, names_zh, vocabulary
from moo.masking.recognisers.hits import Hit, again
from moo.masking.recognisers.quasi_identifiers import QUASI
from moo.masking.recognisers.structured import PATTERNS, Pattern
from moo.masking.tokens import parted_numbers

_NUMBER = re.compile(r"[0-9](?:[ \-.()（）·,:]{0,2}[0-9])*")
_CAPITAL = re.compile("[A-Z]")
_WRITTEN = re.compile("[0-9A-Za-z_@零〇一二三四五六七八九十百千两]")


class Rule(NamedTuple):
    """A recogniser and what a text must hold for it.

    Attributes:
        find: Text -> mentions. Of a pattern, which has none, `scan`, `check`, `group`, `type` and `why` stand for it.
        keys: The text must hold one, or there are none.
        cues: The text in small letters must hold one, or there are none.
        digits: The longest number must have so many characters.
        words: Whether a boundary may be a Chinese character's, and not only that of letters and digits.
        script: "" for any, "han" for a text beyond ASCII, "capital" for one with capitals.
        reach: Within so many characters stands all that decides on a mention, itself and what is around it; 0 for no bound.
        everywhere: Whether the string of a mention is looked for in the whole text.
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
        """Mentions: all of them, or those that anything in start:end can have to do with where that is quicker."""
        low, high = max(0, start - 2 * self.reach), min(len(text), end + 2 * self.reach)
        if not self.reach or high - low == len(text):
            found = self.find(text)
        else:  # near a cut there is nothing to rely on
            least, most = low and low + self.reach, high - (0 if high == len(text) else self.reach)
            piece = self.find(text[low:high])
            found = [(s + low, e + low, k, w) for s, e, k, w in piece if s + low >= least and e + low <= most]
        return [*found, *again(text, found)] if self.everywhere and found else found


def _of(p: Pattern) -> Rule:
    return Rule(
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
def _rules() -> dict[int, list[Rule]]:
    """Level -> its rules in order of trust."""
    rules = {n: [_of(p) for p in (*PATTERNS, *QUASI) if ENTITY_LEVELS[p.type] == n] for n in range(1, MAX_LEVEL + 1)}
    rules[1].append(Rule(parted_numbers))
    rules[2] += [
        Rule(addresses.addresses, addresses.ADDRESS_KEYS, script="han"),
        Rule(names_zh.behind_cues, names_zh.cue_keys(), script="han", everywhere=True),
        Rule(names_zh.told, names_zh.told_keys(), script="han", everywhere=True),
        Rule(names_zh.called, names_zh.called_keys(), script="han", everywhere=True),
        Rule(names_zh.in_parts, names_zh.part_keys(), script="han", everywhere=True),
        Rule(names_zh.weighed, script="han", reach=names_zh.REACH, everywhere=True),
        Rule(addresses.english_addresses, addresses.street_keys(), words=False, digits=1, script="capital"),
        Rule(names_en.english_names, words=False, script="capital", everywhere=True),
    ]
    rules[3].append(Rule(addresses.cities, addresses.city_keys(), script="han"))
    rules[4] += [
        Rule(vocabulary.sensitive, vocabulary.sensitive_keys(), script="han"),
        Rule(vocabulary.english_sensitive, vocabulary.english_keys(), words=False),
    ]
    rules[5] += [Rule(vocabulary.rare), Rule(vocabulary.digits)]
    return rules


class _Index(NamedTuple):
    owners: dict[str, int]  # key -> bits of the rules that have it
    keys: frozenset[str]
    always: int  # bits of the rules without keys
    levels: tuple[tuple[tuple[int, Rule], ...], ...]  # by level: bit and rule


@lru_cache(maxsize=1)
def _index() -> _Index:
    owners: defaultdict[str, int] = defaultdict(int)
    always, levels, bit = 0, [], 1
    for _, rules in sorted(_rules().items()):
        numbered = []
        for rule in rules:
            for key in rule.keys:
                owners[key] |= bit
            always |= 0 if rule.keys else bit
            numbered.append((bit, rule))
            bit <<= 1
        levels.append(tuple(numbered))
    return _Index(dict(owners), frozenset(owners), always, tuple(levels))


_NER = Rule(names_ner.chinese_names, script="han", everywhere=True)


def choose(text: str, level: int, *, with_ner: bool = False) -> list[list[Rule]]:
    """The rules of levels 1 to `level` that can find something in a normalised text, or in the same with blanks in it."""
    index, lower = _index(), text.lower()
    chosen = index.always
    for key in index.keys.intersection(chain(lower, map(str.__add__, lower, lower[1:]))):
        chosen |= index.owners[key]
    fit = {"": True, "han": not text.isascii(), "capital": _CAPITAL.search(text) is not None}
    longest = longest_number(text)
    rules = [
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
        rules[1].append(_NER)
    return rules


def longest_number(text: str) -> int:
    """Characters of the longest run of digits, with what may part them."""
    return max(map(len, _NUMBER.findall(text)), default=0)


def is_written(text: str) -> bool:
    """Whether the text holds anything at which a number, a handle or a word of letters could begin or end."""
    return _WRITTEN.search(text) is not None
