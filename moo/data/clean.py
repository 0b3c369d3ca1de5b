"""What is done to a text before anything else, each by itself: control characters out, one form of every character."""

import re
import unicodedata

# C0 and C1 controls, zero-width marks, the byte-order mark and direction marks: nobody sees them, and a pattern trips over them
_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2060\ufeff]")
_SPACES = re.compile(r"\s+")


def clean(text: str) -> str:
    """Without unseen characters, runs of white space as one space.

    Line breaks and tabs count as white space.
    """
    return _SPACES.sub(" ", _UNSEEN.sub("", text)).strip()


def normalise(text: str) -> str:
    """In Unicode's composed form (NFC): what looks the same is the same. Full-width forms stay: they may be meant."""
    return unicodedata.normalize("NFC", text)
