"""Names of persons in Chinese. No list holds all names: their characters and their surroundings are scored together.

A candidate is a family name with one or two characters of given names. It is scored by how surely either is one, and
by the words on both sides; behind words that leave no doubt any characters are taken.
"""

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from moo.masking.recognisers.hits import Hit, listed
from moo.masking.recognisers.lexicon import common_characters, load, longest_first

_HAN = "\u4e00-\u9fff"
# forms of address; no given name begins with one
_FORMS = frozenset(("小姐", "先生", "女士", "太太", "老师"))
# characters read before and after a candidate, and those of the longest name
_LEFT, _RIGHT, _LONGEST = 6, 4, 4
# everything that decides on a candidate lies within so many characters
REACH = _LEFT + _LONGEST + _RIGHT
# points that make a candidate a name
ENOUGH = 3.0
# points of a family name that is seldom anything else, and of one with a character of no common word
SURE, RARE = 2.0, 3.0


class _Names(NamedTuple):
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
def _names() -> _Names:
    words = load("names_zh")
    points = dict.fromkeys(words["shared"], 0.5) | dict.fromkeys(words["typical"], 1.5)
    family = _family_points(words)
    provinces = load("places_zh")["provinces"]
    return _Names(
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
    return _names().family


@listed
def names_behind_cues(text: str) -> Iterator[Hit]:
    """Yield any characters behind words that leave no doubt of a name."""
    names = _names()
    for match in names.sure_cue.finditer(text):
        end = _end_of_name(text, match.end(), names, alone=match.group().rstrip()[-1] in "：:")
        if end:
            yield match.end(), end, "name", "behind a cue word"


@listed
def names_behind_relations(text: str) -> Iterator[Hit]:
    """Yield a word that stands alone behind a relation that something is handed to."""
    for match in _names().after_relation.finditer(text):
        yield match.start(1), match.end(1), "name", "behind a relation that something is handed to"


@listed
def names_before_forms(text: str) -> Iterator[Hit]:
    """Yield the word between one for handing or looking for and a form of address."""
    for match in _names().before_form.finditer(text):
        yield match.start(1), match.end(1), "name", "before a form of address"


@listed
def transliterated_names(text: str) -> Iterator[Hit]:
    """Yield Uyghur, Kazakh, Tibetan and Mongolian names as they are written in Chinese."""
    for match in _names().transliterated.finditer(text):
        yield match.start(), match.end(), "name", "parts of a name"


@listed
def scored_names(text: str) -> Iterator[Hit]:
    """Yield candidates with at least `ENOUGH` points."""
    names = _names()
    at = 0
    for match in names.candidate.finditer(text):
        start = match.start()
        if start < at or text[start : start + 2] in names.places or text[match.end() : match.end() + 2] in _FORMS:
            continue
        points, end = _best(text, start, match.end(), names, word=_is_word(text, start, names))
        if points >= ENOUGH:
            yield start, end, "name", "family name, given name and context"
            at = end


def _is_word(text: str, start: int, names: _Names) -> bool:
    """Return True if the candidate is a word of the language, or part of one."""
    if text[start : start + 2] in names.not_names:
        return True
    if text[max(0, start - 1) : start + 1] not in names.inside_words:
        return False
    near = names.near.search(text, max(0, start - _LEFT), start)
    return near is None or near.end() - near.start() < 2


def _is_han(character: str) -> bool:
    return "\u4e00" <= character <= "\u9fff"


def _edge(text: str, at: int) -> bool:
    """Return True at the end of the text and before a character that is not Chinese."""
    return at >= len(text) or not _is_han(text[at])


def _end_of_name(text: str, start: int, names: _Names, *, alone: bool) -> int:
    """Return the end of the name that starts here, 0 without one; behind a colon any word that stands alone is a name."""
    if text[start] in names.no_name:
        return 0
    if alone and (shortest := next((n for n in (2, 3, 4) if _edge(text, start + n)), 0)):
        return start + shortest
    if text[start : start + 2] in names.not_names:
        return 0
    # the shortest one that ends with the words
    for size in (2, 3, 4, 5, 6):
        if not _is_han(text[start + size - 1 : start + size] or " "):
            return 0
        if _edge(text, start + size):
            return start + size
        if size >= 4 and text[start : start + 2] not in names.family and text[start] not in names.family:
            break
    family = 2 if text[start : start + 2] in names.family else 1 if text[start] in names.family else 0
    if not family:
        return 0
    for size in (family + 2, family + 1):
        if names.title.match(text, start + size) or names.after.match(text, start + size):
            return start + size
    return start + family + 2


def _best(text: str, start: int, middle: int, names: _Names, *, word: bool) -> tuple[float, int]:
    """Return the points and the end of the better of one and two characters of given name.

    A candidate that begins like a word of the language must have two characters, the last a typical one, and fitting
    words on both sides.
    """
    left = _points_before(text, start, names)
    if word and left < 1.5:
        return -9.0, middle
    surname = names.family[text[start:middle]]
    twice = text[middle : middle + 1] * 2 == text[middle : middle + 2]
    if (
        surname < RARE
        and text[middle] not in names.points
        and not twice
        and not names.person.search(text, max(0, start - _LEFT), start)
    ):
        # any character may be in a given name, but only behind a person
        return -9.0, middle
    base = surname + left
    best = (-9.0, middle)
    inside = 0.0
    for end in (middle + 1, middle + 2):
        if end > len(text) or not _is_han(text[end - 1]):
            break
        inside += max(names.points.get(text[end - 1], -1.5), 0.5 if twice else -1.5)
        right = _points_after(text, end, names)
        if word and (end == middle + 1 or right < 1.0 or names.points.get(text[end - 1], 0.0) < 1.5):
            continue
        if base + inside + right > best[0]:
            best = (base + inside + right, end)
    return best


def _points_before(text: str, start: int, names: _Names) -> float:
    if start == 0 or not _is_han(text[start - 1]):
        return 1.0
    # a measure word, not a family name
    if text[start - 1] in "一二三四五六七八九十几两这那每整半多":
        return -2.0
    near = names.near.search(text, max(0, start - _LEFT), start)
    if near is None:
        return -0.5
    return 2.0 if near.end() - near.start() > 1 else 1.5


def _points_after(text: str, end: int, names: _Names) -> float:
    if _edge(text, end):
        return 1.0
    if names.title.match(text, end):
        return 2.5
    return 1.0 if names.after.match(text, end) else -1.0
