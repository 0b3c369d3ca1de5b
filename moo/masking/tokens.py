"""Tokens that masking skips: those of its operators, and a type's name with a counter. No identifier fits into one.

Brackets alone protect nothing: `[TEL:13812345678]` is text. Behind the colon a token has a value of a closed list
(tens of years, quarters, powers of ten, provinces and cities), or a keyed hash in letters that spell neither a number
nor a word.
"""

import re
from collections.abc import Iterator
from functools import lru_cache

from moo.core.personal_data_types import ENTITY_LEVELS
from moo.masking.recognisers.addresses import provinces, region_pattern
from moo.masking.recognisers.hits import Hit, listed

# character for every character of a token in the text that recognisers read
BLANK = "\x00"
REDACTED = "[REDACTED]"
# four bits each
HASH_LETTERS = "bcdfghjklmnpqrst"
# 64 bits: two values of a billion meet with a chance of 3 in 100
HASH_CHARACTERS = 16
# an "age" above it is another number, and its tens would give most of its digits away
MOST_YEARS = 129
# names of types in other maskers
_OTHERS = (
    "ACCOUNT BANK CARD CARD_NUMBER CREDIT_CARD CUSTOMER DATE_TIME DEVICE EMAIL_ADDRESS FIRST_NAME GPE IBAN IBAN_CODE "
    "ID ID_CARD ID_NUMBER IP_ADDRESS LAST_NAME LOC LOCATION MASK MASKED MONEY NRP NUM NUMBER ORDER ORG ORGANIZATION "
    "PER PERSON PHONE PHONE_NUMBER PII SSN STREET TEL TIME USER USERNAME US_SSN ZIP"
)


@lru_cache(maxsize=1)
def token_pattern() -> "re.Pattern[str]":
    """Return the pattern of the tokens of a masked text."""
    types = [t.upper() for t in ENTITY_LEVELS]
    names = "|".join(sorted({*types, *_OTHERS.split(), "REDACTED"}, key=len, reverse=True))
    details = (
        r"AGE:(?:0-9|(?P<tens>[1-9]|1[0-2])0-(?P=tens)9)",
        r"DATE:(?:(?:19|20)[0-9]{2}(?:Q[1-4])?|Q[1-4])",
        r"AMOUNT:(?:0|10\^-?[0-9]{1,2})",
        f"CITY:(?:{'|'.join(sorted(set(provinces().values())))})",
        f"ADDRESS:{region_pattern()}",
        f"(?:{'|'.join(types)}):[{HASH_LETTERS}]{{{HASH_CHARACTERS}}}",
    )
    # [PERSON_2] keeps persons apart
    counter = "(?:_?[0-9]{1,3})?"
    return re.compile(rf"\[(?:(?:{names}){counter}|{'|'.join(details)})\]|<(?:{names}){counter}>")


_PARTED = re.compile(rf"(?<![0-9])[0-9]++(?:{BLANK}++[0-9]++)++")
_RUN = re.compile("[0-9]+")
# digits from which a number may belong to a person
_FEWEST = 7


@listed
def parted_numbers(text: str) -> Iterator[Hit]:
    """Yield the digits of one number that tokens were put between: 138[NAME]1234[NAME]5678."""
    for number in _PARTED.finditer(text) if BLANK in text else ():
        runs = list(_RUN.finditer(text, *number.span()))
        if sum(len(run.group()) for run in runs) >= _FEWEST:
            yield from ((run.start(), run.end(), "order_number", "a number parted by tokens") for run in runs)
