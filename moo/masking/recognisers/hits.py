"""What a recogniser gives."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import wraps

Hit = tuple[int, int, str, str]  # start, end, entity type, why

_LOOKED_FOR = 32  # mentions of one record that are looked for again: a bound on the work


def listed(find: Callable[[str], Iterable[Hit]]) -> Callable[[str], list[Hit]]:
    """A recogniser that yields, as one that returns a list."""

    @wraps(find)
    def whole(text: str) -> list[Hit]:
        return list(find(text))

    return whole


def again(text: str, found: Sequence[Hit]) -> Iterator[Hit]:
    """Every other place where the string of a mention stands."""
    strings = {text[start:end]: kind for start, end, kind, _ in found if end - start > 1}
    for string, kind in list(strings.items())[:_LOOKED_FOR]:
        if text.count(string) > 1:
            for match in re.finditer(re.escape(string), text):
                yield *match.span(), kind, f"the same {kind} stands elsewhere"
