"""Names of persons in English: runs of capitalised words, scored by their words and their surroundings."""

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from moo.masking.recognisers.hits import Hit, listed
from moo.masking.recognisers.lexicon import load, longest_first

# points that make a candidate a name
ENOUGH_EN = 2.0


class _Names(NamedTuple):
    """Word lists and patterns of English names.

    Attributes:
        run: A run of one to four capitalised words, with a title and particles.
        before: Words directly before a name that leave little doubt.
        near: Words that often come before a name.
        after: Words that often come after a name.
        given: Given names.
        family: Family names.
        not_names: Capitalised words that are no names.
    """

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
def _names() -> _Names:
    words = load("names_en")
    return _Names(
        run=re.compile(
            rf"""
            [A-Z](?<![A-Za-z0-9@._\-].)(?:(?<=[MDP])(?:rs?|s|iss|rof)\.?[ ][A-Z])?[A-Za-z'’\-]{{1,20}}
            (?:[ ](?:[A-Z]\.|{_WORD}|(?:de|van|von|bin|al|del|la|der)[ ]{_WORD})){{0,3}}(?![A-Za-z0-9@_])
            """,
            re.VERBOSE,
        ),
        before=re.compile(rf"(?:{longest_first(words['before'])})[ :]{{1,2}}$", re.IGNORECASE),
        near=re.compile(rf"(?<![A-Za-z])(?:{longest_first(words['near'])}) $", re.IGNORECASE),
        after=re.compile(rf"(?:'s)?,? (?:{longest_first(words['after'])})(?![A-Za-z])"),
        given=frozenset(words["given"].split()),
        family=frozenset(words["family"].split()),
        not_names=frozenset(words["not_names"].split()),
    )


@listed
def english_names(text: str) -> Iterator[Hit]:
    """Yield runs of capitalised words with at least `ENOUGH_EN` points."""
    names = _names()
    for match in names.run.finditer(text):
        for start, end in _persons(text, match.start(), match.end(), names):
            if _points(text, start, end, names) >= ENOUGH_EN:
                yield start, end, "name", "given name, family name and context"


def _persons(text: str, start: int, end: int, names: _Names) -> Iterator[tuple[int, int]]:
    """Yield the pieces of a run between the words that are no names."""
    at, first = start, -1
    last = start
    for word in text[start:end].split(" "):
        bare = word.removesuffix("'s").rstrip("'-")
        # behind a given name even a word of the language is a family name
        known = first >= 0 and text[first:last] in names.given
        if bare in names.not_names and bare not in names.given and not known:
            if first >= 0:
                yield first, last
            first = -1
        else:
            first = at if first < 0 else first
            last = at + len(bare)
        at += len(word) + 1
    if first >= 0:
        yield first, last


def _points(text: str, start: int, end: int, names: _Names) -> float:
    """Return the points of text[start:end] as a name."""
    words = text[start:end].split(" ")
    titled = len(words) > 1 and words[0].rstrip(".") in _TITLES
    words = words[titled:]
    points = (
        2.0 * titled
        + 2.0 * (words[0] in names.given)
        + 1.0 * (len(words) > 1)
        + 1.0 * (len(words) > 1 and words[-1] in names.family)
    )
    window = text[max(0, start - 24) : start]
    # every cue word ends with one of these
    if window[-1:] in (" ", ":", "\n"):
        points += 2.0 if names.before.search(window) else 1.0 if names.near.search(window) else 0.0
    points += 1.0 if names.after.match(text, end) else 0.0
    return points - (1.0 if len(words) == 1 else 0.0)
