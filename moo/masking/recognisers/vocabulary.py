"""Recognisers by vocabulary: sensitive terms at level 4; words outside a public vocabulary, and digits, at level 5."""

import re
from collections import defaultdict
from collections.abc import Iterator
from functools import lru_cache

from moo.core.personal_data_types import SENSITIVE
from moo.masking.recognisers.hits import Hit, listed
from moo.masking.recognisers.lexicon import common_characters, load

# words before an illness that belong to its mention
_DEGREES = frozenset(("慢性", "急性", "早期", "晚期", "轻度", "中度", "重度", "二型", "妊娠", "原发"))


@lru_cache(maxsize=1)
def _chinese() -> dict[str, list[tuple[str, str]]]:
    """Return first two characters -> the terms that begin so with their category, longest first."""
    words = load("sensitive_zh")
    out: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for kind in sorted(SENSITIVE):
        for term in words.get(kind, ()):
            out[term[:2]].append((term, kind))
    return {start: sorted(terms, key=lambda t: -len(t[0])) for start, terms in out.items()}


@lru_cache(maxsize=1)
def sensitive_keys() -> frozenset[str]:
    """Return the first two characters of the Chinese terms; a text with a term holds one of these pairs."""
    return frozenset(_chinese())


@listed
def sensitive(text: str) -> Iterator[Hit]:
    """Yield Chinese terms of the versioned list; adjacent terms of one category (高血压, 患者) are one mention.

    A set of the text's pairs of characters finds them in one pass, however many there are.
    """
    start, end, kind = 0, 0, ""
    for low, high, category in sorted(_terms(text)):
        if category == kind and low <= end:
            end = max(end, high)
            continue
        if kind:
            yield start, end, kind, "listed term"
        start, end, kind = low, high, category
    if kind:
        yield start, end, kind, "listed term"


def _terms(text: str) -> Iterator[tuple[int, int, str]]:
    """Yield start, end and category of each Chinese term, with a word of degree before it."""
    terms = _chinese()
    for start in sensitive_keys().intersection(map(str.__add__, text, text[1:])):
        at = text.find(start)
        while at >= 0:
            for term, kind in terms[start]:
                if text.startswith(term, at):
                    yield at - 2 * (text[max(0, at - 2) : at] in _DEGREES), at + len(term), kind
                    break
            at = text.find(start, at + 1)


@lru_cache(maxsize=1)
def _english() -> dict[str, list[tuple[str, str]]]:
    """Return first word -> the terms that begin with it and their category, in small letters, longest first."""
    words = load("sensitive_en")
    out: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for kind in sorted(SENSITIVE):
        for term in words.get(kind, ()):
            out[re.split(r"[ '\-]", term)[0].lower()].append((term.lower(), kind))
    return {start: sorted(terms, key=lambda t: -len(t[0])) for start, terms in out.items()}


@lru_cache(maxsize=1)
def english_keys() -> frozenset[str]:
    """Return the first two letters of the English terms."""
    return frozenset(start[:2] for start in _english())


_LATIN = re.compile("[A-Za-z0-9]+")


@listed
def english_sensitive(text: str) -> Iterator[Hit]:
    """Yield English terms of the versioned list, whole words only."""
    terms = _english()
    for word in _LATIN.finditer(text):
        for term, kind in terms.get(word.group().lower(), ()):
            end = word.start() + len(term)
            if text[word.start() : end].lower() == term and not text[end : end + 1].isalnum():
                yield word.start(), end, kind, "listed term"
                break


@lru_cache(maxsize=1)
def _rare() -> "re.Pattern[str]":
    """Return the pattern of characters outside the 3,755 of GB 2312 level 1, and of Latin words of 3+ letters."""
    listed = "".join(sorted(common_characters()))
    return re.compile(rf"[^\W\d_{listed}a-zA-Z]+|[A-Za-z]{{3,}}")


@listed
def rare(text: str) -> Iterator[Hit]:
    """Yield text outside the public vocabulary: characters of the national standard, Latin words of 1 or 2 letters."""
    for match in _rare().finditer(text):
        yield match.start(), match.end(), "rare", "outside the public vocabulary"


_DIGITS = re.compile(r"\d+(?:[.,]\d+)*")


@listed
def digits(text: str) -> Iterator[Hit]:
    """Yield every number."""
    for match in _DIGITS.finditer(text):
        yield match.start(), match.end(), "digits", "digits"
