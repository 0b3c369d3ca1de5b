"""Synthetic identifiers with valid checksums, drawn at random; none is a real person's on purpose."""

import numpy as np

_ID_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
_ID_CHECK = "10X98765432"
_REGIONS = ("110105", "310104", "440106", "330106", "510107", "420111", "320104", "610113", "350203", "210202")
_MOBILE = "130 131 135 136 137 138 139 150 151 158 159 176 180 186 188 189"
_PLATE = "京沪粤浙川鄂苏陕闽辽"


def digits(rng: np.random.Generator, n: int) -> str:
    """Return n random digits."""
    return "".join(map(str, rng.integers(0, 10, n)))


def resident_id(rng: np.random.Generator, birth_year: int) -> str:
    """Return 18 characters with the checksum of GB 11643 (ISO 7064 MOD 11-2)."""
    body = f"{rng.choice(_REGIONS)}{birth_year}{rng.integers(1, 13):02d}{rng.integers(1, 29):02d}{digits(rng, 3)}"
    return body + _ID_CHECK[sum(int(d) * w for d, w in zip(body, _ID_WEIGHTS, strict=True)) % 11]


def luhn_check(body: str) -> str:
    """Return the digit that makes body + digit pass Luhn (ISO/IEC 7812-1)."""
    total = 0
    for i, d in enumerate(reversed(body)):
        doubled = int(d) * (2 - i % 2)
        total += doubled - 9 if doubled > 9 else doubled
    return str(-total % 10)


def bank_card(rng: np.random.Generator) -> str:
    """Return a card number of 16 or 19 digits that passes Luhn."""
    body = "62" + digits(rng, int(rng.choice([13, 16])))
    return body + luhn_check(body)


def mobile(rng: np.random.Generator) -> str:
    """Return a Chinese mobile number."""
    return str(rng.choice(_MOBILE.split())) + digits(rng, 8)


def landline(rng: np.random.Generator) -> str:
    """Return a Chinese landline number, area code and number with a dash."""
    area, n = [("010", 8), ("021", 8), ("020", 8), ("0571", 8), ("028", 8), ("0592", 7)][rng.integers(6)]
    return f"{area}-{rng.integers(2, 9)}{digits(rng, n - 1)}"


def plate(rng: np.random.Generator) -> str:
    """Return a Chinese number plate."""
    tail = "".join(rng.choice(list("ABCDEFGHJKLMNPQRSTUVWXYZ0123456789"), 4)) + str(rng.integers(10))
    return f"{_PLATE[rng.integers(len(_PLATE))]}{'ABCDEF'[rng.integers(6)]}{tail}"


def imei(rng: np.random.Generator) -> str:
    """Return an IMEI of 15 digits with its check digit."""
    body = "86" + digits(rng, 12)
    return body + luhn_check(body)


def handle(rng: np.random.Generator) -> str:
    """Return a handle: letters, perhaps an underscore, digits."""
    letters = "".join(rng.choice(list("abcdefghijklmnopqrstuvwxyz"), int(rng.integers(4, 8))))
    return letters + ("_" if rng.random() < 0.4 else "") + digits(rng, int(rng.integers(2, 5)))


def spaced(number: str, rng: np.random.Generator, groups: tuple[int, ...]) -> str:
    """Return the number as people write it: plain, spaced, dashed, or in full-width digits."""
    style = rng.integers(8)
    if style < 5:
        return number
    if style == 5:
        return number.translate({ord(str(d)): chr(0xFF10 + d) for d in range(10)})
    parts, at = [], 0
    for size in groups:
        parts.append(number[at : at + size])
        at += size
    parts.append(number[at:])
    return (" " if style == 6 else "-").join(p for p in parts if p)
