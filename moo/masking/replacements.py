"""Replacements of mentions: a type token, a fixed public bin, a keyed hash, or a token that tells nothing.

Each is a token of `moo.masking.tokens`, which a second pass skips. None depends on another record: bins are fixed and
public, and the keyed hash is a function of the mention and a secret alone.
"""

import hashlib
import hmac
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from moo.core import validate
from moo.core.errors import InputError
from moo.core.personal_data_types import ENTITY_LEVELS, MAX_LEVEL
from moo.masking.normalisation import normalise
from moo.masking.recognisers.addresses import provinces, region
from moo.masking.tokens import HASH_CHARACTERS, HASH_LETTERS, MOST_YEARS, REDACTED

KEY_VARIABLE = "MOO_MASK_KEY"
# characters of a key, at least
MIN_KEY = 32
OPERATORS = ("token", "bin", "hmac", "redact")

_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]+)?")
_HEX = str.maketrans("0123456789abcdef", HASH_LETTERS)
_ZH = {c: i for i, c in enumerate("零一二三四五六七八九")} | {"〇": 0, "两": 2}
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")


@dataclass(frozen=True, kw_only=True)
class Operators:
    """Choice of an operator by type; another type gets a bin at levels 2 to 4 if it has one, else its token.

    Attributes:
        chosen: Type -> one of `OPERATORS`.
        key: Key of the keyed hash; never written anywhere.
    """

    chosen: Mapping[str, str] = field(default_factory=dict)
    key: bytes = field(default=b"", repr=False)

    def __post_init__(self) -> None:
        for kind, operator in self.chosen.items():
            if kind not in ENTITY_LEVELS or operator not in OPERATORS:
                raise InputError(
                    "An operator must be TYPE=OPERATOR with a type of {entity_levels} and an operator of "
                    "{operators}, got {kind}={operator}.{nearest}",
                    entity_levels=", ".join(ENTITY_LEVELS),
                    operators=", ".join(OPERATORS),
                    kind=kind,
                    operator=operator,
                    nearest=validate.nearest(kind, ENTITY_LEVELS)
                    if kind not in ENTITY_LEVELS
                    else validate.nearest(operator, OPERATORS),
                )
        if "hmac" in self.chosen.values() and not self.key:
            raise InputError(
                "{key_variable} must hold the key of the keyed hash, but it is not set; set it to {min_key} characters "
                "or more that nobody can guess, and keep it: the same key gives the same tokens.",
                key_variable=KEY_VARIABLE,
                min_key=MIN_KEY,
            )

    @classmethod
    def from_environment(cls, chosen: Mapping[str, str]) -> "Operators":
        """Return the operators, with the key of the environment where one is needed.

        Args:
            chosen: Type -> one of `OPERATORS`.

        Raises:
            InputError: If a type or operator is unknown, or a key is needed and is missing or too short.
        """
        if "hmac" not in chosen.values():
            return cls(chosen=chosen)
        key = os.environ.get(KEY_VARIABLE, "")
        if key and len(key) < MIN_KEY:
            raise InputError(
                "{key_variable} must hold {min_key} characters or more, got {n_key}; lengthen the key.",
                key_variable=KEY_VARIABLE,
                min_key=MIN_KEY,
                n_key=len(key),
            )
        return cls(chosen=chosen, key=key.encode())

    def replace(self, kind: str, mention: str, level: int) -> str:
        """Return the replacement of a mention.

        Args:
            kind: Entity type.
            mention: Normalised text of the mention.
            level: Level of the masking, 1 to 5.
        """
        operator = self.chosen.get(kind, "bin")
        if operator == "redact":
            return REDACTED
        if operator == "hmac":
            return f"[{kind.upper()}:{self._hash(kind, mention)}]"
        return replacement(kind, mention, level if operator == "bin" else MAX_LEVEL)

    def _hash(self, kind: str, mention: str) -> str:
        """Return a hash that ignores blanks, marks and capitals of the mention, and differs by type."""
        plain = "".join(c for c in normalise(mention).lower() if c.isalnum())
        digest = hmac.new(self.key, f"{kind}\x00{plain}".encode(), hashlib.sha256).hexdigest()
        return digest[:HASH_CHARACTERS].translate(_HEX)


def replacement(kind: str, mention: str, level: int) -> str:
    """Return the token for a mention.

    Ages go to ten years, dates to quarters, amounts to powers of ten, cities to provinces, addresses to their city:
    fixed public bins, so that no other person's record decides on a token.

    Args:
        kind: Entity type.
        mention: Normalised text of the mention.
        level: Level of the masking; bins are left out at level 5, those of addresses from level 3 on.
    """
    if kind == "rare":
        return "<RARE>"
    if kind == "digits":
        return "<NUM>"
    bins = {"age": _age, "date": _date, "amount": _amount, "city": _city, "address": region}
    detail = bins[kind](mention) if kind in bins and level < (3 if kind == "address" else 5) else ""
    return f"[{kind.upper()}:{detail}]" if detail else f"[{kind.upper()}]"


def _whole(text: str) -> int | None:
    """Return the first number in digits, or in Chinese numerals below 10,000; None without one."""
    match = _NUMBER.search(text)
    if match:
        return int(float(match.group()))
    total, last, seen = 0, 0, False
    for c in text:
        if c in _ZH:
            last, seen = _ZH[c], True
        elif c in "十百千":
            total, last, seen = total + (last or 1) * {"十": 10, "百": 100, "千": 1000}[c], 0, True
        elif seen:
            break
    return total + last if seen else None


def _age(mention: str) -> str:
    years = _whole(mention)
    if years is None or years > MOST_YEARS:
        return ""
    low = years // 10 * 10
    return f"{low}-{low + 9}"


def _date(mention: str) -> str:
    numbers = [int(n) for n in re.findall("[0-9]+", mention)]
    year = next((n for n in numbers if 1900 <= n <= 2099), None)
    named = next((i for i, m in enumerate(_MONTHS, 1) if m in mention.lower()), None)
    if named is None and "月" in mention:
        named = _whole(mention.partition("月")[0].rpartition("年")[2])
    others = [n for n in numbers if n != year]
    month = named or (others[0] if others else None)
    quarter = f"Q{(month - 1) // 3 + 1}" if month is not None and 1 <= month <= 12 else ""
    return f"{year or ''}{quarter}"


def _amount(mention: str) -> str:
    plain = mention.replace(",", "")
    match = _NUMBER.search(plain)
    value = float(match.group()) if match else float(_whole(plain) or 0)
    return f"10^{math.floor(math.log10(value))}" if value > 0 else "0"


def _city(mention: str) -> str:
    known = provinces()
    return next((known[mention[:n]] for n in (4, 3, 2) if mention[:n] in known), "")
