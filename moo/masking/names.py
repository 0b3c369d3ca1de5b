"""Recognisers of names of persons. No list holds all names: what a name is made of and what stands around it are weighed together.

In Chinese a candidate is a family name with one or two characters that stand in given names. It is scored by how surely either is one,
and by the words on both sides; behind words that leave no doubt any characters are taken. In English a candidate is a run of
capitalised words.
"""

import re
import tomllib
from collections.abc import Iterator
from functools import lru_cache
from importlib import resources
from typing import Any, NamedTuple

Hit = tuple[int, int, str, str]  # start, end, entity type, why

_HAN = "\u4e00-\u9fff"
_LEFT = 6  # characters before a candidate that are looked at
_RIGHT = 4
_LOOKED_FOR = 32  # names of one record that are looked for again: a bound on the work
ENOUGH = 3.0  # points that make a Chinese candidate a name
ENOUGH_EN = 2.0


def load(name: str) -> dict[str, Any]:
    """One of the lexicons."""
    return tomllib.loads((resources.files("moo.masking.lexicon") / f"{name}.toml").read_text(encoding="utf-8"))


class _Chinese(NamedTuple):
    candidate: "re.Pattern[str]"
    sure_cue: "re.Pattern[str]"
    near: "re.Pattern[str]"
    after: "re.Pattern[str]"
    title: "re.Pattern[str]"
    points: dict[str, float]
    family: dict[str, float]
    not_names: frozenset[str]
    inside_words: frozenset[str]
    places: frozenset[str]
    parts: "re.Pattern[str]"
    told: "re.Pattern[str]"
    called: "re.Pattern[str]"


def _longest_first(words: list[str]) -> str:
    return "|".join(map(re.escape, sorted(words, key=len, reverse=True)))


@lru_cache(maxsize=1)
def _chinese() -> _Chinese:
    listed = load("names_zh")
    points = dict.fromkeys(listed["shared"], 0.5) | dict.fromkeys(listed["typical"], 1.5)
    family = (
        dict.fromkeys(listed["seldom"], -1.0)
        | dict.fromkeys(listed["common"], 0.5)
        | dict.fromkeys(listed["sure"], 2.0)
        | dict.fromkeys(listed["compound"].split(), 3.0)
    )
    single = "".join(sorted(f for f in family if len(f) == 1))
    any_family = f"(?:{_longest_first(listed['compound'].split())}|[{single}])"
    given = "".join(sorted(points))
    relations, handed = _longest_first(listed["relations"].split()), _longest_first(listed["handed"].split())
    return _Chinese(
        told=re.compile(rf"(?:{handed})[是给]?(?:[我他她你您]的?)?(?:{relations})(?=([{_HAN}]{{2,4}})(?![{_HAN}]))"),
        called=re.compile(rf"(?:{handed}|找|问)(?=([{_HAN}]{{2,3}})(?:先生|女士|小姐))(?![一这那几两某哪各每位名个]|前台|客服|导购|接待|售后|服务|快递|老板)"),
        candidate=re.compile(rf"{any_family}(?=[{given}]|([{_HAN}])\1)"),
        sure_cue=re.compile(rf"(?:{_longest_first(listed['before'].split())})[ ：:是叫为成写了开的]{{0,3}}+(?=[{_HAN}]{{2}})"),
        near=re.compile(rf"(?:{_longest_first(listed['near'].split())})[了过着给]?$"),
        after=re.compile(rf"(?:{_longest_first(listed['after'].split())})"),
        title=re.compile(rf"(?:{_longest_first(listed['title'])})"),
        points=points,
        family=family,
        not_names=frozenset(listed["not_names"].split()),
        inside_words=frozenset(listed["inside_words"].split()),
        places=frozenset(c[:2] for p, cities in load("places_zh")["provinces"].items() for c in (p, *cities)),
        parts=re.compile(rf"(?:{(parts := _longest_first(listed['parts'].split()))})(?:(?:{parts}){{1,2}}(?:{'|'.join(listed['part_ends'])})?|(?:{'|'.join(listed['part_ends'])})(?![{_HAN}]{{2}}))"),
    )  # fmt: skip


def chinese_names(text: str) -> Iterator[Hit]:
    """Names behind sure words, then candidates with points enough; and every other place where one of them stands."""
    found = list(_chinese_names(text))
    yield from found
    yield from _again(text, found)


def _again(text: str, found: list[Hit]) -> Iterator[Hit]:
    named = dict.fromkeys(text[start:end] for start, end, _, _ in found if end - start > 1)
    for name in list(named)[:_LOOKED_FOR]:
        if text.count(name) > 1:
            for match in re.finditer(re.escape(name), text):
                yield match.start(), match.end(), "name", "the same name stands elsewhere"


def _chinese_names(text: str) -> Iterator[Hit]:
    c = _chinese()
    for match in c.sure_cue.finditer(text):
        end = _behind_a_sure_word(text, match.end(), c, alone=match.group().rstrip()[-1] in "：:")
        if end:
            yield match.end(), end, "name", "behind a cue word"
    for pattern, why in (
        (c.told, "behind a relation that something is handed to"),
        (c.called, "before a form of address"),
    ):
        for match in pattern.finditer(text):
            yield match.start(1), match.end(1), "name", why
    for match in c.parts.finditer(text):
        yield match.start(), match.end(), "name", "parts of a name"
    at = 0
    for match in c.candidate.finditer(text):
        start = match.start()
        if start < at or text[start : start + 2] in c.places:
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
    if alone and (shortest := next((n for n in (2, 3, 4) if _edge(text, start + n)), 0)):
        return start + shortest
    if text[start : start + 2] in c.not_names or text[start] in "我你您他她它这那":
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
    base = c.family[text[start:middle]] + left
    best = (-9.0, middle)
    inside = 0.0
    for end in (middle + 1, middle + 2):
        if end > len(text) or not _is_han(text[end - 1]):
            break
        twice = text[middle : middle + 1] * 2 == text[middle : middle + 2]
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


class _English(NamedTuple):
    run: "re.Pattern[str]"
    before: "re.Pattern[str]"
    near: "re.Pattern[str]"
    after: "re.Pattern[str]"
    given: frozenset[str]
    family: frozenset[str]
    not_names: frozenset[str]


_TITLES = ("Mr", "Mrs", "Ms", "Miss", "Dr", "Prof")
_WORD = r"[A-Z][A-Za-z'’\-]{1,20}"


@lru_cache(maxsize=1)
def _english() -> _English:
    listed = load("names_en")
    return _English(
        run=re.compile(rf"[A-Z](?<![A-Za-z0-9@._\-].)(?:(?<=[MDP])(?:rs?|s|iss|rof)\.? [A-Z])?[A-Za-z'’\-]{{1,20}}(?: (?:[A-Z]\.|{_WORD}|(?:de|van|von|bin|al|del|la|der) {_WORD})){{0,3}}(?![A-Za-z0-9@_])"),
        before=re.compile(rf"(?:{_longest_first(listed['before'])})[ :]{{1,2}}$", re.IGNORECASE),
        near=re.compile(rf"(?<![A-Za-z])(?:{_longest_first(listed['near'])}) $", re.IGNORECASE),
        after=re.compile(rf"(?:'s)?,? (?:{_longest_first(listed['after'])})(?![A-Za-z])"),
        given=frozenset(listed["given"].split()),
        family=frozenset(listed["family"].split()),
        not_names=frozenset(listed["not_names"].split()),
    )  # fmt: skip


def english_names(text: str) -> Iterator[Hit]:
    """Runs of capitalised words with points enough."""
    found = list(_english_names(text))
    yield from found
    yield from _again(text, found)


def _english_names(text: str) -> Iterator[Hit]:
    e = _english()
    for match in e.run.finditer(text):
        for start, end in _persons(text, match.start(), match.end(), e):
            if _english_points(text, start, end, e) >= ENOUGH_EN:
                yield start, end, "name", "given name, family name and context"


def _persons(text: str, start: int, end: int, e: _English) -> Iterator[tuple[int, int]]:
    """The run without words that are no names: they part it."""
    at, first = start, -1
    last = start
    for word in text[start:end].split(" "):
        bare = word.removesuffix("'s").rstrip("'-")
        known = (
            text[first:last] in e.given if first >= 0 else False
        )  # then even a word of the language is a family name
        if bare in e.not_names and bare not in e.given and not known:
            if first >= 0:
                yield first, last
            first = -1
        else:
            first = at if first < 0 else first
            last = at + len(bare)
        at += len(word) + 1
    if first >= 0:
        yield first, last


def _english_points(text: str, start: int, end: int, e: _English) -> float:
    words = text[start:end].split(" ")
    titled = len(words) > 1 and words[0].rstrip(".") in _TITLES
    words = words[titled:]
    points = (
        2.0 * titled
        + 2.0 * (words[0] in e.given)
        + 1.0 * (len(words) > 1)
        + 1.0 * (len(words) > 1 and words[-1] in e.family)
    )
    window = text[max(0, start - 24) : start]
    if e.before.search(window):
        points += 2.0
    elif e.near.search(window):
        points += 1.0
    points += 1.0 if e.after.match(text, end) else 0.0
    return points - (1.0 if len(words) == 1 else 0.0)
