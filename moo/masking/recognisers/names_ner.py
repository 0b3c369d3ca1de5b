"""Optional recogniser of Chinese names with trained weights: jieba's part-of-speech tagger (MIT).

Its dictionary and its hidden Markov model come inside the package, so it fetches nothing when it runs. It reads a few
hundred to two thousand texts a second, and finds names without a cue; it is asked after all others.
"""

import logging
import warnings
from collections.abc import Iterator
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

import platformdirs

from moo.core.errors import InputError
from moo.masking.recognisers.hits import Hit, listed
from moo.masking.recognisers.lexicon import load
from moo.masking.recognisers.names_zh_lexicon import families

PACKAGE = "jieba"
# prefix of the tagger's marks for names of persons: nr, nrt, nrfg
_PERSON = "nr"


def version() -> str:
    """Return name and version of the recogniser.

    Raises:
        InputError: If it is not installed.
    """
    try:
        return f"{PACKAGE} {metadata.version(PACKAGE)}"
    except metadata.PackageNotFoundError as error:
        raise InputError(
            "The optional recogniser of names needs the package {package}, but it is not installed; run "
            "pip install 'moo-privacy[ner]'.",
            package=PACKAGE,
        ) from error


@lru_cache(maxsize=1)
def _tagger() -> Any:
    version()
    # its sources predate raw strings
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import jieba
        import jieba.posseg
    jieba.setLogLevel(logging.ERROR)
    tokenizer: Any = jieba.Tokenizer()
    folder = Path(platformdirs.user_cache_dir("moo", appauthor=False)) / PACKAGE
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    # not the shared folder, where anybody could have put a file that it loads
    tokenizer.tmp_dir = str(folder)
    return jieba.posseg.POSTokenizer(tokenizer)


@lru_cache(maxsize=1)
def _not_names() -> frozenset[str]:
    words = load("names_zh")
    return frozenset(word for key in ("roles", "relations", "not_names") for word in words[key].split())


@listed
def chinese_names(text: str) -> Iterator[Hit]:
    """Yield words of 2 characters or more, tagged as persons, that begin with a family name and are no other word."""
    at = 0
    for word in _tagger().cut(text):
        end = at + len(word.word)
        if word.flag.startswith(_PERSON) and end - at > 1 and _is_name(word.word):
            yield at, end, "name", "the optional recogniser"
        at = end


def _is_name(word: str) -> bool:
    """Return True for a word that begins with a family name; most other "persons" are dolls, chocolate, customers."""
    family = families()
    return (
        word not in _not_names()
        and word[:2] not in _not_names()
        and max(family.get(word[0], -1.0), family.get(word[:2], -1.0)) > 0
    )
