"""Hits of recognisers, and a second look for the strings that they hold."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import wraps

from moo.core.messages import Message

# start, end, entity type, reason in words
Hit = tuple[int, int, str, str]

# mentions of one record that are looked for elsewhere in it: a bound on the work
_MOST_REPEATED = 32


def listed(find: Callable[[str], Iterable[Hit]]) -> Callable[[str], list[Hit]]:
    """Return a recogniser that yields hits as one that returns a list of them."""

    @wraps(find)
    def whole(text: str) -> list[Hit]:
        return list(find(text))

    return whole


def repeated(text: str, hits: Sequence[Hit]) -> Iterator[Hit]:
    """Yield every place of the text with the string of a hit of two characters or more."""
    strings = {text[start:end]: kind for start, end, kind, _ in hits if end - start > 1}
    for string, kind in list(strings.items())[:_MOST_REPEATED]:
        if text.count(string) > 1:
            why = Message("the same {kind} elsewhere in the text", kind=kind)
            for match in re.finditer(re.escape(string), text):
                yield *match.span(), kind, why
