"""Normalisation of a text to one of the same length, so that offsets stay: one character for each of the text's own.

It folds full-width forms, digits of every script and circled ones, Chinese numerals and look-alike letters inside a
number, Cyrillic and Greek letters that look Latin, and the invisible characters that are put between digits.
"""

import re
import unicodedata

from moo.masking.tokens import BLANK, token_pattern

# end of the digits of the last script
_LAST = 0x1FC00


def _digit(code: int) -> str | None:
    """Return the ASCII digit of a decimal digit of any script, or of a circled, parenthesised or superscript one."""
    value = unicodedata.digit(chr(code), None)
    return None if value is None or code < 128 else str(value)


def _folded(code: int) -> str | None:
    """Return the one-character NFKC form of full-width, mathematical and circled letters; else None."""
    folded = unicodedata.normalize("NFKC", chr(code))
    return folded if len(folded) == 1 and folded.isascii() and folded.isprintable() else None


_TABLE: dict[int, str] = {code: out for code in range(128, _LAST) if (out := _digit(code) or _folded(code)) is not None}
# Chinese punctuation ends a word, an address, a name: it stays what it is
_TABLE |= {ord(c): c for c in "，：；！？（）"}
_TABLE |= {0x2014: "-", 0x2013: "-", 0x2010: "-", 0x2011: "-", 0x2012: "-", 0x2212: "-", 0xFF0D: "-", 0x30FC: "-"}
_TABLE |= dict.fromkeys([*range(0x2000, 0x2010), 0x2060, 0xFEFF, 0xFE0F, 0x20E3, 0xAD, 0x3000, 0xA0], " ")
_TABLE |= dict(
    zip(
        map(ord, "АВЕКМНОРСТУХаеорсухіѕјѵΑΒΕΖΗΙΚΜΝΟΡΤΥΧο"),
        "ABEKMHOPCTYXaeopcyxisjvABEZHIKMNOPTYXo",
        strict=True,
    )
)
_NUMERALS = str.maketrans("零〇○Ｏ一二三四五六七八九幺壹贰叁肆伍陆柒捌玖两", "000012345678911234567892")
_ZH_RUN = re.compile(
    "[零〇○一二三四五六七八九幺壹贰叁肆伍陆柒捌玖0-9](?:[ \\-.]?[零〇○一二三四五六七八九幺壹贰叁肆伍陆柒捌玖0-9]){6,}"
)
_LIKE = str.maketrans("OolI|", "00111")
_LIKE_RUN = re.compile(r"[0-9OolI|](?<![0-9A-Za-z|].)(?:[ \-]?[0-9OolI|]){8,24}(?![0-9A-Za-z|])")
# digits among nine characters or more that look like digits, at least
_LIKE_DIGITS = 4
_CHINESE = re.compile("[零〇○一二三四五六七八九幺壹贰叁肆伍陆柒捌玖]")


def normalise(text: str) -> str:
    """Return the normalised text, of the same length: tokens blanked, digits in ASCII where they form a number."""
    out = text if text.isascii() else text.translate(_TABLE)
    if "]" in text or ">" in text:
        out = _without_tokens(text, out)
    if not out.isascii() and _CHINESE.search(out):
        out = _ZH_RUN.sub(lambda m: m.group().translate(_NUMERALS), out)
    return _LIKE_RUN.sub(_look_alikes, out)


def _without_tokens(text: str, folded: str) -> str:
    """Return the folded text with the tokens of the original blanked: brackets of other forms make no token."""
    parts, at = [], 0
    for token in token_pattern().finditer(text):
        parts += [folded[at : token.start()], BLANK * len(token.group())]
        at = token.end()
    return "".join([*parts, folded[at:]])


def _look_alikes(match: "re.Match[str]") -> str:
    run = match.group()
    return run.translate(_LIKE) if sum(map(str.isdigit, run)) >= _LIKE_DIGITS else run
