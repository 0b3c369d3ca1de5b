"""Names of persons in Chinese. No list holds all names: their characters and their surroundings are scored together.

A candidate is a family name with one or two characters of given names. It is scored by how surely either is one, and
by the words on both sides; behind words that leave no doubt any characters are taken.
"""

from collections.abc import Iterator

from moo.masking.recognisers.hits import Hit, listed
from moo.masking.recognisers.names_zh_lexicon import RARE, ChineseNames, chinese_names

# forms of address; no given name begins with one
_FORMS = frozenset(("小姐", "先生", "女士", "太太", "老师"))
# characters read before and after a candidate, and those of the longest name
_LEFT, _RIGHT, _LONGEST = 6, 4, 4
# everything that decides on a candidate lies within so many characters
REACH = _LEFT + _LONGEST + _RIGHT
# points that make a candidate a name
ENOUGH = 3.0


@listed
def names_behind_cues(text: str) -> Iterator[Hit]:
    """Yield any characters behind words that leave no doubt of a name."""
    names = chinese_names()
    for match in names.sure_cue.finditer(text):
        end = _end_of_name(text, match.end(), names, alone=match.group().rstrip()[-1] in "：:")
        if end:
            yield match.end(), end, "name", "behind a cue word"


@listed
def names_behind_relations(text: str) -> Iterator[Hit]:
    """Yield a word alone behind a relation that something is handed to."""
    for match in chinese_names().after_relation.finditer(text):
        yield match.start(1), match.end(1), "name", "behind a relation that something is handed to"


@listed
def names_before_forms(text: str) -> Iterator[Hit]:
    """Yield the word between one for handing or looking for and a form of address."""
    for match in chinese_names().before_form.finditer(text):
        yield match.start(1), match.end(1), "name", "before a form of address"


@listed
def transliterated_names(text: str) -> Iterator[Hit]:
    """Yield Uyghur, Kazakh, Tibetan and Mongolian names as they are written in Chinese."""
    for match in chinese_names().transliterated.finditer(text):
        yield match.start(), match.end(), "name", "parts of a name"


@listed
def scored_names(text: str) -> Iterator[Hit]:
    """Yield candidates with at least `ENOUGH` points."""
    names = chinese_names()
    at = 0
    for match in names.candidate.finditer(text):
        start = match.start()
        if start < at or text[start : start + 2] in names.places or text[match.end() : match.end() + 2] in _FORMS:
            continue
        points, end = _best(text, start, match.end(), names, word=_is_word(text, start, names))
        if points >= ENOUGH:
            yield start, end, "name", "family name, given name and context"
            at = end


def _is_word(text: str, start: int, names: ChineseNames) -> bool:
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


def _end_of_name(text: str, start: int, names: ChineseNames, *, alone: bool) -> int:
    """Return the end of the name that starts here, 0 for none; `alone` takes any word on its own behind a colon."""
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


def _best(text: str, start: int, middle: int, names: ChineseNames, *, word: bool) -> tuple[float, int]:
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


def _points_before(text: str, start: int, names: ChineseNames) -> float:
    if start == 0 or not _is_han(text[start - 1]):
        return 1.0
    # a measure word, not a family name
    if text[start - 1] in "一二三四五六七八九十几两这那每整半多":
        return -2.0
    near = names.near.search(text, max(0, start - _LEFT), start)
    if near is None:
        return -0.5
    return 2.0 if near.end() - near.start() > 1 else 1.5


def _points_after(text: str, end: int, names: ChineseNames) -> float:
    if _edge(text, end):
        return 1.0
    if names.title.match(text, end):
        return 2.5
    return 1.0 if names.after.match(text, end) else -1.0
