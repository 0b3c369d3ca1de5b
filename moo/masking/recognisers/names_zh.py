"""Names of persons in Chinese. No list holds all names: what a name is made of and what stands around it are weighed together.

A candidate is a family name with one or two characters that stand in given names. It is scored by how surely either is one,
and by the words on both sides; behind words that leave no doubt any characters are taken.
"""

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import NamedTuple

from moo.masking.recognisers.hits import Hit, listed
from moo.masking.recognisers.lexicon import common_characters, load, longest_first

_HAN = "\u4e00-\u9fff"
_FORMS = frozenset(("小姐", "先生", "女士", "太太", "老师"))  # of address: a given name begins with none
_LEFT = 6  # characters before a candidate that are looked at
_RIGHT = 4
_LONGEST = 4
REACH = _LEFT + _LONGEST + _RIGHT  # whatever decides on a candidate stands within
ENOUGH = 3.0  # points that make a candidate a name
SURE, RARE = 2.0, 3.0  # of a family name that is seldom anything else, and of one whose character is in no common word


class _Chinese(NamedTuple):
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
    parts: "re.Pattern[str]"
    told: "re.Pattern[str]"
    called: "re.Pattern[str]"


@lru_cache(maxsize=1)
def _chinese() -> _Chinese:
    listed = load("names_zh")
    points = dict.fromkeys(listed["shared"], 0.5) | dict.fromkeys(listed["typical"], 1.5)
    family = (
        dict.fromkeys(listed["seldom"], -1.0)
        | dict.fromkeys(listed["common"], 0.5)
        | dict.fromkeys(listed["sure"], 2.0)
        | {f: RARE for f in listed["sure"] if f not in common_characters()}
        | dict.fromkeys(listed["compound"].split(), RARE)
    )
    compound = listed["compound"].split()
    single = "".join(sorted(f for f in family if len(f) == 1))
    first = "".join(sorted({*single, *(f[0] for f in compound)}))  # a class first: the engine skips to it
    any_family = rf"[{first}](?:(?<=(?={longest_first(compound)}).)[{_HAN}]|(?<=[{single}]))"
    given = "".join(sorted(points))
    sure = "".join(sorted(f for f, p in family.items() if p >= SURE and len(f) == 1))
    relations, handed = longest_first(listed["relations"].split()), longest_first(listed["handed"].split())
    roles = longest_first([*listed["roles"].split(), "接待", "售后", "服务"])
    return _Chinese(
        told=re.compile(rf"(?:{handed})[是给]?(?:[我他她你您]的?)?(?:{relations})(?=([{_HAN}]{{2,4}})(?![{_HAN}]))"),
        called=re.compile(rf"(?:{handed}|找|问)(?=([{_HAN}]{{2,3}})(?:先生|女士|小姐))(?![一这那几两某哪各每位名个{listed['no_name']}]|{roles})"),
        candidate=re.compile(rf"{any_family}(?=[{given}]|([{_HAN}])\1|(?<=[{sure}])[{_HAN}])"),
        sure_cue=re.compile(rf"(?:{longest_first(listed['before'].split())})[ ：:是叫为成写了开的]{{0,3}}+(?=[{_HAN}]{{2}})"),
        near=re.compile(rf"(?:{longest_first([*listed['near'].split(), *listed['roles'].split()])})[了过着给]?$"),
        person=re.compile(rf"(?:{longest_first(w for w in [*listed['roles'].split(), *listed['relations'].split()])})$"),
        after=re.compile(rf"(?:{longest_first(listed['after'].split())})"),
        title=re.compile(rf"(?:{longest_first(listed['title'])})"),
        points=points,
        family=family,
        not_names=frozenset(listed["not_names"].split()),
        no_name=frozenset(listed["no_name"]),
        inside_words=frozenset(listed["inside_words"].split()),
        places=frozenset(c[:2] for p, cities in load("places_zh")["provinces"].items() for c in (p, *cities)),
        parts=re.compile(rf"(?:{(parts := longest_first(listed['parts'].split()))})(?:(?:{parts}){{1,2}}(?:{'|'.join(listed['part_ends'])})?|(?:{'|'.join(listed['part_ends'])})(?![{_HAN}]{{2}}))"),
    )  # fmt: skip


def cue_keys() -> frozenset[str]:
    """First two characters of the words behind which anything is a name."""
    return frozenset(word[:2] for word in load("names_zh")["before"].split())


def told_keys() -> frozenset[str]:
    """First two characters of the words for handing something to somebody."""
    return frozenset(word[:2] for word in load("names_zh")["handed"].split())


def called_keys() -> frozenset[str]:
    """The same, and the words for looking for somebody."""
    return told_keys() | frozenset("找问")


def part_keys() -> frozenset[str]:
    """First two characters of the parts of names that are written by their sound."""
    return frozenset(part[:2] for part in load("names_zh")["parts"].split())


def families() -> Mapping[str, float]:
    """Family name -> points: how surely it is one."""
    return _chinese().family


@listed
def behind_cues(text: str) -> Iterator[Hit]:
    """Whatever stands behind words that leave no doubt."""
    c = _chinese()
    for match in c.sure_cue.finditer(text):
        end = _behind_a_sure_word(text, match.end(), c, alone=match.group().rstrip()[-1] in "：:")
        if end:
            yield match.end(), end, "name", "behind a cue word"


@listed
def told(text: str) -> Iterator[Hit]:
    """What stands alone behind a relation that something is handed to."""
    for match in _chinese().told.finditer(text):
        yield match.start(1), match.end(1), "name", "behind a relation that something is handed to"


@listed
def called(text: str) -> Iterator[Hit]:
    """What stands between a word for handing or looking for and a form of address."""
    for match in _chinese().called.finditer(text):
        yield match.start(1), match.end(1), "name", "before a form of address"


@listed
def in_parts(text: str) -> Iterator[Hit]:
    """Uyghur, Kazakh, Tibetan and Mongolian names as they are written in Chinese."""
    for match in _chinese().parts.finditer(text):
        yield match.start(), match.end(), "name", "parts of a name"


@listed
def weighed(text: str) -> Iterator[Hit]:
    """Candidates with points enough."""
    c = _chinese()
    at = 0
    for match in c.candidate.finditer(text):
        start = match.start()
        if start < at or text[start : start + 2] in c.places or text[match.end() : match.end() + 2] in _FORMS:
            continue
        points, end = _best(text, start, match.end(), c, word=_is_word(text, start, c))
        if points >= ENOUGH:
            yield start, end, "name", "family name, given name and context"
            at = end


def _is_word(text: str, start: int, c: _Chinese) -> bool:
    """Whether the candidate is a word of the language, or stands inside one."""
    if text[start : start + 2] in c.not_names:
        return True
    if text[max(0, start - 1) : start + 1] not in c.inside_words:
        return False
    near = c.near.search(text, max(0, start - _LEFT), start)
    return near is None or near.end() - near.start() < 2


def _is_han(character: str) -> bool:
    return "\u4e00" <= character <= "\u9fff"


def _edge(text: str, at: int) -> bool:
    return at >= len(text) or not _is_han(text[at])


def _behind_a_sure_word(text: str, start: int, c: _Chinese, *, alone: bool) -> int:
    """Where the name that starts here ends; 0 for none. Behind a colon a word that stands alone is a name, whatever else it means."""
    if text[start] in c.no_name:
        return 0
    if alone and (shortest := next((n for n in (2, 3, 4) if _edge(text, start + n)), 0)):
        return start + shortest
    if text[start : start + 2] in c.not_names:
        return 0
    for size in (2, 3, 4, 5, 6):  # the shortest that is followed by the end of the words
        if not _is_han(text[start + size - 1 : start + size] or " "):
            return 0
        if _edge(text, start + size):
            return start + size
        if size >= 4 and text[start : start + 2] not in c.family and text[start] not in c.family:
            break
    family = 2 if text[start : start + 2] in c.family else 1 if text[start] in c.family else 0
    if not family:
        return 0
    for size in (family + 2, family + 1):
        if c.title.match(text, start + size) or c.after.match(text, start + size):
            return start + size
    return start + family + 2


def _best(text: str, start: int, middle: int, c: _Chinese, *, word: bool) -> tuple[float, int]:
    """The points and the end of the better of one and two characters of given name.

    What begins like a word of the language must have two characters, the last a typical one, and fitting words on both sides.
    """
    left = _points_before(text, start, c)
    if word and left < 1.5:
        return -9.0, middle
    surname = c.family[text[start:middle]]
    twice = text[middle : middle + 1] * 2 == text[middle : middle + 2]
    if (
        surname < RARE
        and text[middle] not in c.points
        and not twice
        and not c.person.search(text, max(0, start - _LEFT), start)
    ):
        return -9.0, middle  # any character is a given name's, but only behind somebody
    base = surname + left
    best = (-9.0, middle)
    inside = 0.0
    for end in (middle + 1, middle + 2):
        if end > len(text) or not _is_han(text[end - 1]):
            break
        inside += max(c.points.get(text[end - 1], -1.5), 0.5 if twice else -1.5)
        right = _points_after(text, end, c)
        if word and (end == middle + 1 or right < 1.0 or c.points.get(text[end - 1], 0.0) < 1.5):
            continue
        if base + inside + right > best[0]:
            best = (base + inside + right, end)
    return best


def _points_before(text: str, start: int, c: _Chinese) -> float:
    if start == 0 or not _is_han(text[start - 1]):
        return 1.0
    if text[start - 1] in "一二三四五六七八九十几两这那每整半多":  # a measure word, not a family name
        return -2.0
    near = c.near.search(text, max(0, start - _LEFT), start)
    if near is None:
        return -0.5
    return 2.0 if near.end() - near.start() > 1 else 1.5


def _points_after(text: str, end: int, c: _Chinese) -> float:
    if _edge(text, end):
        return 1.0
    if c.title.match(text, end):
        return 2.5
    return 1.0 if c.after.match(text, end) else -1.0
