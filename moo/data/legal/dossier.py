"""Declarations of a company about its data: one TOML file, read by the gates that no training can change.

    [[collection]]                    the collection plan: one table an item
    what = "order note"               how_often = "with each order"      why = "model_training"
    retention_days = 730

    [source]      sheet = "datasheet.md"     snapshot = "<SHA-256 of the data>"
    [[notice]]    version = "3"   file = "notice-3.md"   in_force = 2025-06-01   purposes = ["model_training"]
    [transfer]    data = "CN"   compute = "CN"   trackers = "CN"   mechanism = ""
    [[processor]] name = "..."  contract = "..."            (or, before all tables: processors = "none")
    [assessment]  file = "pia.pdf"   dated = 2026-09-01   kept_until = 2029-09-01
                  covers = { target_epsilon = [0.5, 32.0], masking_level = [0, 5] }
    [encryption]  attested_by = "..."   dated = 2026-08-01
    [[role]]      name = "..."   may = ["read reports"]   people = 2
    [access]      log = "access.log"
    [audit]       by = "..."   dated = 2026-03-01
    [options]     non_personal = true
    [profile]     legal_tags = ["frequent_buyer"]

A missing section is unknown, never met. Files are in the folder of the dossier; their SHA-256 is computed here.
"""

import hashlib
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, NoReturn

from moo.core import validate
from moo.core.errors import InputError
from moo.core.messages import Message

_DOCUMENT = {"file": str, "digest": str}
_SHAPES: dict[str, dict[str, Any]] = {
    "collection": {"what": str, "how_often": str, "why": str, "source": str, "retention_days": int},
    "source": {"sheet": str, "snapshot": str},
    "notice": {"version": str, "in_force": date, "purposes": list, **_DOCUMENT},
    "transfer": {"data": str, "compute": str, "trackers": str, "mechanism": str},
    "processor": {"name": str, "contract": str},
    "assessment": {"dated": date, "kept_until": date, "covers": dict, **_DOCUMENT},
    "encryption": {"attested_by": str, "dated": date},
    "role": {"name": str, "may": list, "people": int},
    "access": {"log": str},
    "audit": {"by": str, "dated": date},
    "options": {"non_personal": bool},
    "profile": {"legal_tags": list},
}
_MANY = ("collection", "notice", "processor", "role")
_NEEDED = {"collection": ("what", "how_often", "why"), "role": ("name", "may"), "notice": ("version", "in_force")}


@dataclass(frozen=True, kw_only=True)
class Dossier:
    """Checked dossier.

    Attributes:
        path: Path of the file.
        text: Text of the file, for the lines of errors.
        tables: Sections, as parsed from TOML.
    """

    path: Path
    text: str
    tables: Mapping[str, Any]

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def collection(self) -> tuple[Mapping[str, Any], ...]:
        return tuple(self.tables.get("collection", ()))

    @property
    def roles(self) -> tuple[Mapping[str, Any], ...]:
        return tuple(self.tables.get("role", ()))

    @property
    def legal_tags(self) -> frozenset[str] | None:
        """Legal set of profile tags; None if none is declared."""
        found = self.tables.get("profile", {}).get("legal_tags")
        return None if found is None else frozenset(map(str, found))

    @property
    def purposes_by_notice(self) -> Mapping[str, frozenset[str]]:
        """Version of the notice -> purposes that it names."""
        return {n["version"]: frozenset(n.get("purposes", ())) for n in self.tables.get("notice", ())}

    def refuse(self, message: str, section: str = "", index: int = 0, key: str = "") -> NoReturn:
        """Raise the message with file and line of a key, or of a section."""
        raise InputError(
            "{path}:{line}: {problem}", path=self.path, line=_line(self.text, section, index, key), problem=message
        )

    def documented(self, section: str, index: int = 0) -> bool:
        """Return True if the section names a document, by an existing file or by a digest."""
        found = self.tables[section][index] if section in _MANY else self.tables[section]
        if "file" not in found:
            return bool(found.get("digest"))
        path = self.path.parent / found["file"]
        if not path.is_file():
            missing = Message("file must be in the folder of the dossier, but {file} is not; copy it there.", file=path)
            self.refuse(missing, section, index, "file")
        actual = hashlib.sha256(path.read_bytes()).hexdigest()
        if found.get("digest", actual) != actual:
            other = Message(
                "digest of {file} must be {digest}..., the SHA-256 of the file; correct it.",
                file=found["file"],
                digest=actual[:16],
            )
            self.refuse(other, section, index, "digest")
        return True


def load_dossier(path: str | Path, *, today: date | None = None) -> Dossier:
    """Return the checked dossier of a file.

    Args:
        path: Path of the file.
        today: Last day allowed for a date, but for the end of a retention; by default the calendar's.

    Raises:
        InputError: With file and line: no TOML, an unknown section or key, a value of another type, a future date.
    """
    source = Path(path)
    try:
        text = source.read_text(encoding="utf-8-sig")
        tables = tomllib.loads(text)
    except OSError as error:
        raise InputError(
            "The dossier must be a readable file, got {source} ({strerror}).",
            source=source,
            strerror=error.strerror,
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(
            "{source}: the dossier must be TOML in UTF-8, but {error}; correct it.", source=source, error=error
        ) from error
    dossier = Dossier(path=source, text=text, tables=tables)
    for name, value in tables.items():
        if name == "processors":
            if value != "none":
                dossier.refuse(
                    Message('processors must be "none" or [[processor]] tables, got {value!r}.', value=value),
                    "",
                    0,
                    name,
                )
            continue
        if name not in _SHAPES:
            dossier.refuse(
                Message(
                    "unknown section {section!r}; a dossier knows {known}.{nearest}",
                    section=name,
                    known=sorted(_SHAPES),
                    nearest=validate.nearest(name, _SHAPES),
                ),
                name,
                0,
                name,
            )
        if isinstance(value, list) != (name in _MANY):
            wanted = f"[[{name}]]" if name in _MANY else f"[{name}]"
            dossier.refuse(
                Message("section {section!r} must be written {wanted}.", section=name, wanted=wanted), name, 0, name
            )
        for index, table in enumerate(value if name in _MANY else [value]):
            _check(dossier, name, index, table, today or date.today())
    return dossier


def _check(dossier: Dossier, section: str, index: int, table: Mapping[str, Any], today: date) -> None:
    shape: Mapping[str, Any] = _SHAPES[section]
    for key in _NEEDED.get(section, ()):
        if key not in table:
            dossier.refuse(Message("[{section}] misses {key!r}.", section=section, key=key), section, index)
    for key, value in table.items():
        if key not in shape:
            dossier.refuse(
                Message(
                    "unknown key {key!r}; [{section}] knows {known}.{nearest}",
                    key=key,
                    section=section,
                    known=sorted(shape),
                    nearest=validate.nearest(key, shape),
                ),
                section,
                index,
                key,
            )
        if not isinstance(value, shape[key]) or (shape[key] is int and isinstance(value, bool)):
            unfit = Message(
                "{key} must be of type {type}, got {value!r}.", key=key, type=shape[key].__name__, value=value
            )
            dossier.refuse(unfit, section, index, key)
        if key == "covers" and not all(isinstance(v, list) and len(v) == 2 for v in value.values()):
            dossier.refuse(
                Message("covers must be {{ name = [low, high] }}, got {value!r}.", value=value), section, index, key
            )
        if isinstance(value, date) and key != "kept_until" and value > today:
            late = Message(
                "{key} must not be after {today}, got {value}, which is in the future.",
                key=key,
                today=str(today),
                value=str(value),
            )
            dossier.refuse(late, section, index, key)


def _line(text: str, section: str, index: int, key: str) -> int:
    """Return the line, from 1, of a key of the index-th table of a section, or of the table itself."""
    lines = text.splitlines()
    head = re.compile(rf"\s*\[\[?\s*{re.escape(section)}\s*\]")
    heads = [i for i, line in enumerate(lines) if section and head.match(line)]
    start = heads[index] if index < len(heads) else 0
    for i in range(start, len(lines)):
        if key and re.match(rf"""\s*["']?{re.escape(key)}["']?\s*=""", lines[i]):
            return i + 1
        if i > start and section and lines[i].lstrip().startswith("["):
            break
    return start + 1
