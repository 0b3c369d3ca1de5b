"""Preprocessing card of a released model: `preprocessing.json` and a script, to mask at inference as in training.

The card names the level, the operators, the version of the recognisers and a digest of their word lists. Another
version masks otherwise, and the model would see tokens where it learned words: loading refuses it.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib import metadata, resources
from pathlib import Path

from moo.core.atomic_files import write_whole
from moo.core.errors import InputError
from moo.masking.ladder import mask
from moo.masking.recognisers import names_ner as optional
from moo.masking.recognisers.lexicon import load
from moo.masking.replacements import Operators

FILE = "preprocessing.json"
SCRIPT = "mask_texts.py"
# Raise by one with every change of what is masked or written in its place; a test holds the two together.
RECOGNISERS_VERSION = 1
LEXICONS = ("names_zh", "names_en", "places_zh", "streets_en", "sensitive_zh", "sensitive_en")


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """Preparation of the texts before the model saw them.

    Attributes:
        masking_level: Level of the ladder, 0 to 5.
        max_length: Tokens kept of a text, by the base model's tokenizer.
        own_fields: Types of the record's own values that were searched for in its text; give them at inference too.
        operators: Type -> operator where it is not the usual one; never a key.
        ner: Name and version of the optional recogniser of names; empty without it.
        recognisers: `fingerprint` of the recognisers that masked the training texts.
        version: Version of moo.
    """

    masking_level: int
    max_length: int
    own_fields: tuple[str, ...] = ()
    operators: Mapping[str, str] = field(default_factory=dict)
    ner: str = ""
    recognisers: str = ""
    version: str = field(default_factory=lambda: metadata.version("moo-privacy"))

    def mask(self, text: str, fields: Mapping[str, str] | None = None) -> str:
        """Return the text as the model would have seen it in training.

        Args:
            text: Text of one record.
            fields: The record's own values by type; types that training did not search for are left out.

        Returns:
            The masked text, not yet cut to `max_length`.
        """
        searched = {k: v for k, v in (fields or {}).items() if k in self.own_fields}
        return mask(
            text,
            self.masking_level,
            fields=searched,
            operators=Operators.from_environment(self.operators),
            ner=bool(self.ner),
        )


def fingerprint() -> str:
    """Return the identity of the recognisers: their version, and the SHA-256 of the word lists they read.

    Docstrings, comments, names and the layout of the lists do not count.
    """
    lists = {name: load(name) for name in LEXICONS}
    content = json.dumps(_squeezed(lists), sort_keys=True, ensure_ascii=False)
    return f"{RECOGNISERS_VERSION}-{hashlib.sha256(content.encode()).hexdigest()}"


def _squeezed(value: object) -> object:
    """Return a parsed lexicon with one blank for each run of blanks and line ends."""
    if isinstance(value, dict):
        return {key: _squeezed(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_squeezed(item) for item in value]
    return " ".join(value.split()) if isinstance(value, str) else value


def save_preprocessing(
    folder: Path, *, masking_level: int, max_length: int, own_fields: tuple[str, ...] = (), ner: bool = False
) -> Path:
    """Write the card, and the script that masks lines by it.

    Args:
        folder: Folder of the released model.
        masking_level: Level of the ladder, 0 to 5.
        max_length: Tokens kept of a text.
        own_fields: Types of the record's own values that were searched for in its text.
        ner: True if the optional recogniser of names masked too.

    Returns:
        Path of the card.
    """
    card = Preprocessing(
        masking_level=masking_level,
        max_length=max_length,
        own_fields=own_fields,
        recognisers=fingerprint(),
        ner=optional.version() if ner else "",
    )
    write_whole(folder / SCRIPT, (resources.files("moo.masking") / "example.py").read_text(encoding="utf-8"))
    return write_whole(folder / FILE, json.dumps(asdict(card), indent=1) + "\n")


def load_preprocessing(folder: Path) -> Preprocessing:
    """Return the card of a released model.

    Args:
        folder: Folder of the released model.

    Raises:
        InputError: If the folder has no card, or this installation would mask otherwise.
    """
    path = folder / FILE
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        card = Preprocessing(**{**values, "own_fields": tuple(values["own_fields"])})
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(
            "{path} must be the card that moo released with the model, but it cannot be read: {error}; copy the "
            "whole folder of the release.",
            path=path,
            error=error,
        ) from error
    _check_recognisers(card, path)
    if card.ner and card.ner != optional.version():
        raise InputError(
            "The optional recogniser of names must be the one of the model's training, {trained}, got {installed}; "
            "install {package}.",
            trained=card.ner,
            installed=optional.version(),
            package=card.ner.replace(" ", "=="),
        )
    return card


def _check_recognisers(card: Preprocessing, path: Path) -> None:
    """Raise if the recognisers of the card are not those of this installation."""
    installed = fingerprint()
    if card.recognisers == installed:
        return
    if "-" not in card.recognisers:
        raise InputError(
            "{path} must name the version of its recognisers, got {trained}, a digest of their source text by an "
            "earlier moo; install moo-privacy=={release} of that time, or retrain the model.",
            path=path,
            trained=_short(card.recognisers),
            release=card.version,
        )
    raise InputError(
        "The recognisers must be those of the model's training, {trained}, got {installed} of moo {version}; install "
        "moo-privacy=={release}, or retrain the model.",
        trained=_short(card.recognisers),
        installed=_short(installed),
        version=metadata.version("moo-privacy"),
        release=card.version,
    )


def _short(recognisers: str) -> str:
    version, _, digest = recognisers.rpartition("-")
    return f"version {version} ({digest[:12]})" if version else digest[:12]
