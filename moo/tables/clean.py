"""What is done to a text before anything else, each by itself: control characters out, one form of every character."""

import re
import unicodedata

import pyarrow as pa
import pyarrow.compute as pc

# C0 and C1 controls, zero-width marks, the byte-order mark and direction marks: nobody sees them, and a pattern trips over them
_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2060\ufeff]")
_SPACES = re.compile(r"\s+")
_BLANK = "".join(f"\\x{{{ord(c):x}}}" for c in map(chr, range(0x3001)) if _UNSEEN.match(c) or c.isspace())
_SEEN = rf"[^{_BLANK}\x{{feff}}]"  # RE2: what `clean` leaves of a text begins with such a character


def clean(text: str) -> str:
    """Without unseen characters, runs of white space as one space.

    Line breaks and tabs count as white space.
    """
    return _SPACES.sub(" ", _UNSEEN.sub("", text)).strip()


def normalise(text: str) -> str:
    """In Unicode's composed form (NFC): what looks the same is the same. Full-width forms stay: they may be meant."""
    return unicodedata.normalize("NFC", text)


def is_seen(texts: pa.Array) -> pa.Array:
    """Return True for each text of which `clean` leaves something, False where a cell is empty."""
    found = pc.call_function("match_substring_regex", [texts], pc.MatchSubstringOptions(_SEEN))
    return found.fill_null(False)
