"""Pattern of a type of personal information, and the pieces that patterns share.

Every pattern runs on normalised text (`moo.masking.normalisation`), has bounded repeats and an explicit boundary on
both sides, so its work is linear in the text. `\\b` is not used: Unicode has no word boundary between a Chinese
character and a digit. A pattern that can begin with a class of characters does, and looks back over it: the engine
then skips to the first of them. Patterns are verbose regular expressions: a blank is `[ ]`, a number sign `\\#`.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

# right boundary of a number or a handle
END = r"(?![0-9A-Za-z])"
# characters between a cue word and its value
GAP = r"[ \t：:=是为叫号码编#.,，\-（(]{0,4}"
# characters between two digits of one number
SEPARATOR = r"[ \-.·()（）]{0,2}"


@dataclass(frozen=True)
class Pattern:
    """Written form of one type of personal information.

    Attributes:
        type: Entity type.
        regex: Group 1, where there is one, is the mention; else the whole match.
        why: Reason in words, shown to the user.
        check: Test of the mention; None accepts every match.
        cues: Strings in lower case; a text without any of them is skipped. Empty for no such test.
        digits: Least length of the text's longest number, in characters; a text with shorter ones is skipped.
    """

    type: str
    regex: "re.Pattern[str]"
    why: str
    check: Callable[[str], bool] | None = None
    cues: tuple[str, ...] = ()
    digits: int = 0


def pattern(
    kind: str,
    regex: str,
    why: str,
    check: Callable[[str], bool] | None = None,
    *,
    cues: str = "",
    digits: int = 0,
    exact: bool = False,
) -> Pattern:
    """Return a pattern.

    Args:
        kind: Entity type.
        regex: Verbose regular expression.
        why: Reason in words.
        check: Test of the mention; None accepts every match.
        cues: Cues, separated by blanks. With cues the pattern ignores case, unless `exact`.
        digits: Least length of the text's longest number, in characters.
        exact: True if capitals and small letters differ.
    """
    flags = re.IGNORECASE if cues and not exact else re.NOFLAG
    return Pattern(kind, re.compile(regex, flags | re.VERBOSE), why, check, tuple(cues.split()), digits)


def at_least(digits: int) -> Callable[[str], bool]:
    """Return a check that a mention holds at least so many ASCII digits."""

    def check(text: str) -> bool:
        return sum("0" <= c <= "9" for c in text) >= digits

    return check


def like_a_handle(text: str) -> bool:
    """Return True for a digit, an underscore, a dot or an inner capital: no word of the language has one."""
    return any(c in "0123456789_." for c in text) or text[1:] != text[1:].lower()
