"""Versioned word lists and their reader."""

import re
import tomllib
from collections.abc import Iterable
from functools import lru_cache
from importlib import resources
from typing import Any


@lru_cache(maxsize=16)
def load(name: str) -> dict[str, Any]:
    """Return the lexicon of a name, as parsed from its TOML file."""
    file = resources.files("moo.masking.recognisers.lexicon") / f"{name}.toml"
    return tomllib.loads(file.read_text(encoding="utf-8"))


def longest_first(words: Iterable[str]) -> str:
    """Return the words as alternatives of a regular expression, longest first since one may begin another."""
    return "|".join(map(re.escape, sorted(words, key=len, reverse=True)))


@lru_cache(maxsize=1)
def common_characters() -> frozenset[str]:
    """Return the 3,755 characters of GB 2312 level 1."""
    rows = ((row, cell) for row in range(0xB0, 0xD8) for cell in range(0xA1, 0xFF) if (row, cell) < (0xD7, 0xFA))
    return frozenset(bytes(b for pair in rows for b in pair).decode("gb2312"))
