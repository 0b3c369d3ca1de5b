"""What a released model carries so that texts are masked at inference as they were in training: `preprocessing.json` and a script.

The file names the level, the operators and a digest of all recognisers and lexicons. Other recognisers mask otherwise, and a model sees
tokens where it learned words: loading refuses them.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib import metadata, resources
from pathlib import Path
from typing import Any

from moo.core.atomic_files import write_whole
from moo.core.errors import InputError
from moo.masking.ladder import mask
from moo.masking.recognisers import names_ner as optional
from moo.masking.replacements import Operators

FILE = "preprocessing.json"
SCRIPT = "mask_texts.py"
# modules that decide, as paths under the masking room
_DECIDE = (
    "ladder",
    "normalisation",
    "prefilter",
    "recognisers/addresses",
    "recognisers/checksums",
    "recognisers/hits",
    "recognisers/names_en",
    "recognisers/names_ner",
    "recognisers/names_zh",
    "recognisers/quasi_identifiers",
    "recognisers/structured",
    "recognisers/vocabulary",
    "replacements",
    "tables/numbers",
    "tokens",
)
_LEXICONS = ("names_zh", "names_en", "places_zh", "streets_en", "sensitive_zh", "sensitive_en")


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """How texts were prepared before the model saw them.

    Attributes:
        masking_level: 0..5.
        max_length: Tokens kept of a text, by the base model's tokenizer.
        own_fields: Types of the record's own values that were searched for in its text; give them at inference too.
        operators: Type -> operator where it is not the usual one; never a key.
        ner: Name and version of the optional recogniser of names, where it was asked.
        recognisers: Digest of all that decides what is masked.
        version: Of moo.
    """

    masking_level: int
    max_length: int
    own_fields: tuple[str, ...] = ()
    operators: Mapping[str, str] = field(default_factory=dict)
    ner: str = ""
    recognisers: str = ""
    version: str = field(default_factory=lambda: metadata.version("moo-privacy"))

    def mask(self, text: str, fields: Mapping[str, str] | None = None) -> str:
        """The text as the model would have been shown it.

        Args:
            text: One record's.
            fields: Its own values by type; those of types that training did not search for are left out.
        """
        own = {k: v for k, v in (fields or {}).items() if k in self.own_fields}
        return mask(
            text,
            self.masking_level,
            fields=own,
            operators=Operators.from_environment(self.operators),
            ner=bool(self.ner),
        )


def fingerprint() -> str:
    """SHA-256 over the modules and lexicons that decide what is masked and by what it is replaced."""
    digest = hashlib.sha256()
    root = resources.files("moo.masking")
    for part in (
        *(root / f"{m}.py" for m in _DECIDE),
        *(root / "recognisers" / "lexicon" / f"{name}.toml" for name in _LEXICONS),
    ):
        content = part.read_bytes().replace(b"\r\n", b"\n")
        digest.update(f"{part.name}\x00{len(content)}\x00".encode() + content)
    return digest.hexdigest()


def save_preprocessing(
    folder: Path, *, masking_level: int, max_length: int, own_fields: tuple[str, ...] = (), ner: bool = False
) -> Path:
    """Write the file, and beside it the script that masks lines with it."""
    made = Preprocessing(
        masking_level=masking_level,
        max_length=max_length,
        own_fields=own_fields,
        recognisers=fingerprint(),
        ner=optional.version() if ner else "",
    )
    write_whole(folder / SCRIPT, (resources.files("moo.masking") / "example.py").read_text(encoding="utf-8"))
    return write_whole(folder / FILE, json.dumps(asdict(made), indent=1) + "\n")


def load_preprocessing(folder: Path) -> Preprocessing:
    """Read the file.

    Raises:
        InputError: If there is none, or this installation would mask otherwise.
    """
    path = folder / FILE
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        read = Preprocessing(**{**values, "own_fields": tuple(values["own_fields"])})
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError("{path} must say how texts were prepared, but: {error}.", path=path, error=error) from error
    if read.recognisers != fingerprint():
        raise InputError(
            "texts must be masked by the recognisers that the model was trained behind "
            "({recognisers}), but this moo {version} has others ({fingerprint}); install "
            "moo-privacy=={version2}.",
            recognisers=read.recognisers[:12],
            version=metadata.version("moo-privacy"),
            fingerprint=fingerprint()[:12],
            version2=read.version,
        )
    if read.ner and read.ner != optional.version():
        raise InputError(
            "texts must be masked by the recogniser of names that the model was trained behind "
            "({ner}), but {version} is installed; install {replace}.",
            ner=read.ner,
            version=optional.version(),
            replace=read.ner.replace(" ", "=="),
        )
    return read
