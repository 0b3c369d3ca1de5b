"""Normalised text of the same length, so that offsets stay: full-width forms, circled and Chinese digits."""

import re
import unicodedata

_TABLE = {
    code: folded
    for block in (
        range(0xFF01, 0xFF5F),
        range(0x2460, 0x2469),
        range(0x1D7CE, 0x1D800),
        range(0x3000, 0x3001),
        range(0xA0, 0xA1),
    )
    for code in block
    if len(folded := unicodedata.normalize("NFKC", chr(code))) == 1
}
_TABLE |= {
    0xFF0C: "，",
    0xFF1A: "：",
    0xFF1B: "；",
    0xFF01: "！",
    0xFF1F: "？",
    0xFF08: "（",
    0xFF09: "）",
    0x2014: "-",
    0x2013: "-",
}
_NUMERALS = str.maketrans("零〇一二三四五六七八九幺壹贰叁肆伍陆柒捌玖两", "0012345678911234567892")
_RUN = re.compile("[零〇一二三四五六七八九幺壹贰叁肆伍陆柒捌玖0-9]{7,}")
# what masking leaves behind: a second pass must see a blank there, not letters and digits
_TOKEN = re.compile(r"\[[A-Z_]+(?::[^\[\]\n]{0,24})?\]|<NUM>|<RARE>")
BLANK = "\x00"


def normalise(text: str) -> str:
    """The text with one character for each of its own: tokens blanked, digits in ASCII where they form a number."""
    out = text.translate(_TABLE)
    out = _TOKEN.sub(lambda m: BLANK * len(m.group()), out)
    return _RUN.sub(lambda m: m.group().translate(_NUMERALS), out)
