"""Patterns of level 1 and of the user names of level 2: numbers with checksums, handles behind cues."""

from moo.masking.recognisers.handle_patterns import HANDLES, USER_NAMES
from moo.masking.recognisers.number_patterns import CARDS, DOCUMENTS, LONG_NUMBERS, PHONES
from moo.masking.recognisers.pattern import Pattern
from moo.masking.recognisers.web_patterns import WEB

# In order of trust: the earlier wins where two overlap.
PATTERNS: tuple[Pattern, ...] = (*WEB, *DOCUMENTS, *PHONES, *CARDS, *HANDLES, *LONG_NUMBERS, *USER_NAMES)
