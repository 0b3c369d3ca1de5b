"""Recognisers by vocabulary: sensitive terms of level 4; at level 5 what is outside a public vocabulary, and digits."""

import re
from collections import defaultdict
from collections.abc import Iterator
from functools import lru_cache

from moo.core.personal_data_types import SENSITIVE
from moo.masking.recognisers.hits import Hit, listed
from moo.masking.recognisers.lexicon import common_characters, load

_DEGREES = frozenset(
    ("慢性", "急性", "早期", "晚期", "轻度", "中度", "重度", "二型", "妊娠", "原发")
)  # stand before an illness


@lru_cache(maxsize=1)
def _chinese() -> dict[str, list[tuple[str, str]]]:
    """First two characters -> the terms that begin so, longest first, with their category."""
    listed = load("sensitive_zh")
    out: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for kind in sorted(SENSITIVE):
        for term in listed.get(kind, ()):
            out[term[:2]].append((term, kind))
    return {start: sorted(terms, key=lambda t: -len(t[0])) for start, terms in out.items()}


@lru_cache(maxsize=1)
def sensitive_keys() -> frozenset[str]:
    """Pairs of characters of which one must stand in a text that holds a Chinese term."""
    return frozenset(_chinese())


@listed
def sensitive(text: str) -> Iterator[Hit]:
    """Chinese terms of the versioned list; what stands side by side in one category (高血压, 患者) is one mention.

    A set of the text's pairs of characters finds them in one pass, however many there are.
    """
    start, end, kind = 0, 0, ""
    for low, high, own in sorted(_terms(text)):
        if own == kind and low <= end:
            end = max(end, high)
            continue
        if kind:
            yield start, end, kind, "listed term"
        start, end, kind = low, high, own
    if kind:
        yield start, end, kind, "listed term"


def _terms(text: str) -> Iterator[tuple[int, int, str]]:
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
    """First word -> the terms that begin with it, in small letters, longest first, with their category."""
    listed = load("sensitive_en")
    out: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for kind in sorted(SENSITIVE):
        for term in listed.get(kind, ()):
            out[re.split(r"[ '\-]", term)[0].lower()].append((term.lower(), kind))
    return {start: sorted(terms, key=lambda t: -len(t[0])) for start, terms in out.items()}


@lru_cache(maxsize=1)
def english_keys() -> frozenset[str]:
    """First two letters of the English terms."""
    return frozenset(start[:2] for start in _english())


_LATIN = re.compile("[A-Za-z0-9]+")


@listed
def english_sensitive(text: str) -> Iterator[Hit]:
    """English terms of the versioned list, whole words."""
    terms = _english()
    for word in _LATIN.finditer(text):
        for term, kind in terms.get(word.group().lower(), ()):
            end = word.start() + len(term)
            if text[word.start() : end].lower() == term and not text[end : end + 1].isalnum():
                yield word.start(), end, kind, "listed term"
                break


@lru_cache(maxsize=1)
def _rare() -> "re.Pattern[str]":
    """Chinese characters outside the 3,755 of GB 2312 level 1, and Latin words of three letters or more."""
    listed = "".join(sorted(common_characters()))
    return re.compile(rf"[^\W\d_{listed}a-zA-Z]+|[A-Za-z]{{3,}}")


@listed
def rare(text: str) -> Iterator[Hit]:
    """What is outside the public vocabulary: national standard characters, and no Latin words but those of one or two letters."""
    for match in _rare().finditer(text):
        yield match.start(), match.end(), "rare", "outside the public vocabulary"


_DIGITS = re.compile(r"\d+(?:[.,]\d+)*")


@listed
def digits(text: str) -> Iterator[Hit]:
    for match in _DIGITS.finditer(text):
        yield match.start(), match.end(), "digits", "digits"
