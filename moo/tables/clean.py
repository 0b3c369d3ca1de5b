"""First cleaning of a text: control characters removed, one form of every character."""

import re
import unicodedata

import pyarrow as pa
import pyarrow.compute as pc

# C0 and C1 controls, zero-width marks, the byte-order mark and direction marks: invisible, and they break patterns
_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2060\ufeff]")
_SPACES = re.compile(r"\s+")
_BLANK = "".join(f"\\x{{{ord(c):x}}}" for c in map(chr, range(0x3001)) if _UNSEEN.match(c) or c.isspace())
# RE2: a character that `clean` leaves in a text
_SEEN = rf"[^{_BLANK}\x{{feff}}]"


def clean(text: str) -> str:
    """Return the text without invisible characters, and with one space for each run of white space.

    Line breaks and tabs count as white space.
    """
    return _SPACES.sub(" ", _UNSEEN.sub("", text)).strip()


def normalise(text: str) -> str:
    """Return the text in Unicode's composed form (NFC). Full-width forms stay: they may be meant."""
    return unicodedata.normalize("NFC", text)


def is_seen(texts: pa.Array) -> pa.Array:
    """Return True for each text of which `clean` leaves something, False for an empty cell."""
    seen = pc.call_function("match_substring_regex", [texts], pc.MatchSubstringOptions(_SEEN))
    return seen.fill_null(False)
