"""Checks of a match: a number that only looks like an identifier fails them. The arithmetic is python-stdnum's."""

import re

import phonenumbers
from stdnum import imei, isbn, luhn
from stdnum.exceptions import ValidationError
from stdnum.iso7064 import mod_11_2

_NOT_DIGITS = re.compile(r"[^0-9A-Za-z]")


def bare(text: str) -> str:
    """Return the letters and digits alone, in capitals."""
    return _NOT_DIGITS.sub("", text).upper()


def resident_id(text: str) -> bool:
    """Return True for a resident identity number (GB 11643): ISO 7064 MOD 11-2, and a month and day.

    The region is not looked up, since its table changes.
    """
    number = bare(text)
    return 1 <= int(number[10:12]) <= 12 and 1 <= int(number[12:14]) <= 31 and bool(mod_11_2.is_valid(number))


def card(text: str) -> bool:
    """Return True for a card number (ISO/IEC 7812-1): 16 to 19 digits that pass Luhn."""
    digits = bare(text)
    return 16 <= len(digits) <= 19 and bool(luhn.is_valid(digits))


def device(text: str) -> bool:
    """Return True for an IMEI of 15 digits."""
    try:
        return len(bare(text)) == 15 and bool(imei.validate(bare(text)))
    except ValidationError:
        return False


def phone(region: str, text: str) -> bool:
    """Return True if libphonenumber knows a number of this form in the region."""
    try:
        return bool(phonenumbers.is_valid_number(phonenumbers.parse(text, region)))
    except phonenumbers.NumberParseException:
        return False


def chinese_phone(text: str) -> bool:
    """Return True for a Chinese telephone number."""
    return phone("CN", text)


def landline(text: str) -> bool:
    """Return True for a Chinese landline, with or without an extension."""
    digits = bare(text.replace("转", " "))
    return any(chinese_phone(digits[:n]) for n in (12, 11, 10) if n <= len(digits))


def local_phone(text: str) -> bool:
    """Return True for eight digits that are no date and not one digit over and over."""
    date = text[:2] == "20" and 1 <= int(text[4:6]) <= 12 and 1 <= int(text[6:]) <= 31
    return len(set(text)) > 1 and not date


def american_phone(text: str) -> bool:
    """Return True for ten digits as NANP writes them: a possible number, since whole area codes come and go."""
    digits = bare(text)
    digits = digits[1:] if len(digits) == 11 and digits[0] == "1" else digits
    return len(digits) == 10 and digits[0] in "23456789" and digits[3] in "23456789"


def number(text: str) -> bool:
    """Return True for a long number that is no ISBN, and not one digit over and over as in laughter (666666)."""
    digits = bare(text)
    return len(set(digits)) > 1 and not (len(digits) in (10, 13) and isbn.is_valid(digits))


def has_digit(text: str) -> bool:
    """Return True if the text holds an ASCII digit."""
    return any("0" <= c <= "9" for c in text)
