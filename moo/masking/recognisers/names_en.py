"""Names of persons in English: a run of capitalised words, weighed by what it is made of and what stands around it."""

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from moo.masking.recognisers.hits import Hit, listed
from moo.masking.recognisers.lexicon import load, longest_first

ENOUGH_EN = 2.0  # points that make a candidate a name


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
        before=re.compile(rf"(?:{longest_first(listed['before'])})[ :]{{1,2}}$", re.IGNORECASE),
        near=re.compile(rf"(?<![A-Za-z])(?:{longest_first(listed['near'])}) $", re.IGNORECASE),
        after=re.compile(rf"(?:'s)?,? (?:{longest_first(listed['after'])})(?![A-Za-z])"),
        given=frozenset(listed["given"].split()),
        family=frozenset(listed["family"].split()),
        not_names=frozenset(listed["not_names"].split()),
    )  # fmt: skip


@listed
def english_names(text: str) -> Iterator[Hit]:
    """Runs of capitalised words with points enough."""
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
    if window[-1:] in (" ", ":", "\n"):  # no cue word ends otherwise
        points += 2.0 if e.before.search(window) else 1.0 if e.near.search(window) else 0.0
    points += 1.0 if e.after.match(text, end) else 0.0
    return points - (1.0 if len(words) == 1 else 0.0)
