"""Word lists and patterns of Chinese names, and the keys that a text with a name must hold."""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from moo.masking.recognisers.lexicon import common_characters, load, longest_first

_HAN = "\u4e00-\u9fff"
# points of a family name that is seldom anything else, and of one with a character of no common word
SURE, RARE = 2.0, 3.0


class ChineseNames(NamedTuple):
    """Word lists and patterns of Chinese names.

    Attributes:
        candidate: A family name before a character of a given name.
        sure_cue: Words that leave no doubt, before a name.
        near: Words that often come before a name.
        person: People by trade or relation, before a name.
        after: Words that often come after a name.
        title: Titles after a name.
        points: Character of given names -> points.
        family: Family name -> points.
        not_names: Words of the language that look like a name.
        no_name: Characters that begin no name behind a cue.
        inside_words: Words that end in a character which is a family name as well.
        places: First two characters of provinces and cities.
        transliterated: Names written by their sound, from their parts.
        after_relation: Handing something to a relation; group 1 is the name behind it.
        before_form: Handing something to, or looking for, a name; group 1 is the name, a form of address follows.
    """

    candidate: "re.Pattern[str]"
    sure_cue: "re.Pattern[str]"
    near: "re.Pattern[str]"
    person: "re.Pattern[str]"
    after: "re.Pattern[str]"
    title: "re.Pattern[str]"
    points: dict[str, float]
    family: dict[str, float]
    not_names: frozenset[str]
    no_name: frozenset[str]
    inside_words: frozenset[str]
    places: frozenset[str]
    transliterated: "re.Pattern[str]"
    after_relation: "re.Pattern[str]"
    before_form: "re.Pattern[str]"


@lru_cache(maxsize=1)
def chinese_names() -> ChineseNames:
    """Return the word lists and patterns, built once."""
    words = load("names_zh")
    points = dict.fromkeys(words["shared"], 0.5) | dict.fromkeys(words["typical"], 1.5)
    family = _family_points(words)
    provinces = load("places_zh")["provinces"]
    return ChineseNames(
        candidate=_candidate(family, words["compound"].split(), "".join(sorted(points))),
        sure_cue=_pattern(f"(?:{_any(words['before'])})[ ：:是叫为成写了开的]{{0,3}}+(?=[{_HAN}]{{2}})"),
        near=_pattern(f"(?:{_any(words['near'], words['roles'])})[了过着给]?$"),
        person=_pattern(f"(?:{_any(words['roles'], words['relations'])})$"),
        after=_pattern(f"(?:{_any(words['after'])})"),
        title=_pattern(f"(?:{longest_first(words['title'])})"),
        points=points,
        family=family,
        not_names=frozenset(words["not_names"].split()),
        no_name=frozenset(words["no_name"]),
        inside_words=frozenset(words["inside_words"].split()),
        places=frozenset(place[:2] for province, cities in provinces.items() for place in (province, *cities)),
        transliterated=_transliterated(_any(words["parts"]), "|".join(words["part_ends"])),
        after_relation=_after_relation(words),
        before_form=_before_form(words),
    )


def _pattern(regex: str) -> "re.Pattern[str]":
    return re.compile(regex, re.VERBOSE)


def _any(*lists: str) -> str:
    """Return the words of lists that are separated by blanks as alternatives, longest first."""
    return longest_first(word for words in lists for word in words.split())


def _family_points(words: Mapping[str, Any]) -> dict[str, float]:
    """Return family name -> points; of two lists that hold a name the later one counts."""
    return (
        dict.fromkeys(words["seldom"], -1.0)
        | dict.fromkeys(words["common"], 0.5)
        | dict.fromkeys(words["sure"], SURE)
        | {f: RARE for f in words["sure"] if f not in common_characters()}
        | dict.fromkeys(words["compound"].split(), RARE)
    )


def _candidate(family: Mapping[str, float], compound: list[str], given: str) -> "re.Pattern[str]":
    single = "".join(sorted(f for f in family if len(f) == 1))
    # a class first: the engine skips to it
    first = "".join(sorted({*single, *(f[0] for f in compound)}))
    sure = "".join(sorted(f for f, p in family.items() if p >= SURE and len(f) == 1))
    return _pattern(
        rf"""
        [{first}](?:(?<=(?={longest_first(compound)}).)[{_HAN}]|(?<=[{single}]))
        (?=[{given}]|([{_HAN}])\1|(?<=[{sure}])[{_HAN}])
        """
    )


def _transliterated(parts: str, ends: str) -> "re.Pattern[str]":
    return _pattern(
        rf"(?:{parts})(?:(?:{parts}){{1,2}}(?:{ends})?|(?:{ends})(?![{_HAN}]{{2}}))",
    )


def _after_relation(words: Mapping[str, Any]) -> "re.Pattern[str]":
    return _pattern(
        rf"""
        (?:{_any(words["handed"])})[是给]?(?:[我他她你您]的?)?(?:{_any(words["relations"])})
        (?=([{_HAN}]{{2,4}})(?![{_HAN}]))
        """
    )


def _before_form(words: Mapping[str, Any]) -> "re.Pattern[str]":
    roles = longest_first([*words["roles"].split(), "接待", "售后", "服务"])
    return _pattern(
        rf"""
        (?:{_any(words["handed"])}|找|问)(?=([{_HAN}]{{2,3}})(?:先生|女士|小姐))
        (?![一这那几两某哪各每位名个{words["no_name"]}]|{roles})
        """
    )


def cue_keys() -> frozenset[str]:
    """Return the first two characters of the words that leave no doubt of a name behind them."""
    return frozenset(word[:2] for word in load("names_zh")["before"].split())


def handing_keys() -> frozenset[str]:
    """Return the first two characters of the words for handing something to somebody."""
    return frozenset(word[:2] for word in load("names_zh")["handed"].split())


def handing_or_seeking_keys() -> frozenset[str]:
    """Return `handing_keys` and the words for looking for somebody."""
    return handing_keys() | frozenset("找问")


def transliteration_keys() -> frozenset[str]:
    """Return the first two characters of the parts of names that are written by their sound."""
    return frozenset(part[:2] for part in load("names_zh")["parts"].split())


def families() -> Mapping[str, float]:
    """Return family name -> points: how surely it is one."""
    return chinese_names().family
