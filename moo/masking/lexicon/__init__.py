"""Word lists, versioned, and how they are read."""

import re
import tomllib
from collections.abc import Iterable
from functools import lru_cache
from importlib import resources
from typing import Any


@lru_cache(maxsize=16)
def load(name: str) -> dict[str, Any]:
    """One of the lexicons."""
    return tomllib.loads((resources.files("moo.masking.lexicon") / f"{name}.toml").read_text(encoding="utf-8"))


def longest_first(words: Iterable[str]) -> str:
    """A regular expression's alternatives, where one may begin another."""
    return "|".join(map(re.escape, sorted(words, key=len, reverse=True)))
