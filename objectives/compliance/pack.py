"""Rule pack as a file: its TOML tables, and the line of every key for error messages."""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any, NoReturn

from moo.core import validate
from moo.core.errors import InputError
from moo.core.messages import Message, joined

BUILT_IN = ("pipl", "ecommerce", "gdpr", "generative-ai", "house")

_PACK_KEYS = {"pack", "title_zh", "title_en", "version", "weights", "rule"}


@dataclass(frozen=True, kw_only=True)
class Pack:
    """One file: its rules as written, extensions unresolved, and the weights of domains, if any."""

    name: str
    path: Path
    text: str
    tables: tuple[Mapping[str, Any], ...]
    weights: Mapping[str, float]

    @cached_property
    def _lines(self) -> list[str]:
        return self.text.splitlines()

    @cached_property
    def _heads(self) -> list[int]:
        """Lines, from 0, at which rules begin."""
        return [i for i, line in enumerate(self._lines) if re.match(r"\s*\[\[\s*rule\s*\]\]", line)]

    def line(self, index: int | None = None, key: str = "") -> int:
        """Return the 1-based line of a key.

        Key of the index-th rule, of the rule itself, or before all rules.
        """
        lines, heads = self._lines, self._heads
        start = 0 if index is None else heads[index]
        after = [h for h in heads if h > start or index is None]
        for i in range(start, after[0] if after else len(lines)):
            if key and re.match(rf"""\s*\[?["']?{re.escape(key)}["']?\s*[.=\]]""", lines[i]):
                return i + 1
        return start + 1

    def refuse(self, message: Message, index: int | None = None, key: str = "") -> NoReturn:
        """Raise an error that names the file and the line; see `line` for the arguments.

        Raises:
            InputError: Always.
        """
        raise InputError("{path}:{line}: {message}", path=self.path, line=self.line(index, key), message=message)


def read_pack(name: str | Path) -> Pack:
    """Read one pack by its name, or by the path of a TOML file.

    Raises:
        InputError: With file and line, if it is no TOML, misses `pack`, or holds unknown keys.
    """
    if name in BUILT_IN:
        path = Path(str(resources.files("moo.objectives.compliance.packs") / f"{name}.toml"))
    else:
        path = Path(name)
        if not path.is_file():
            raise InputError(
                "packs must be among {built_in}, or paths of TOML files, got {name!r}.{nearest}",
                built_in=list(BUILT_IN),
                name=str(name),
                nearest=validate.nearest(name, BUILT_IN),
            )
    try:
        text = path.read_text(encoding="utf-8-sig")
        data = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError("{path} must be TOML in UTF-8, but {error}.", path=path, error=error) from error
    tables = data.get("rule", [])
    bare = Pack(name=str(data.get("pack", "")), path=path, text=text, tables=(), weights={})
    if not isinstance(tables, list):
        bare.refuse(Message("Rules must be tables under [[rule]]."), key="rule")
    pack = replace(bare, tables=tuple(tables), weights=data.get("weights", {}))
    _check_pack(pack, data)
    return pack


def _check_pack(pack: Pack, data: Mapping[str, Any]) -> None:
    for key in data.keys() - _PACK_KEYS:
        nearest = validate.nearest(key, _PACK_KEYS)
        known = Message("Unknown key {key!r}; a pack knows {known}.", key=key, known=sorted(_PACK_KEYS))
        pack.refuse(joined("", [known, nearest]), key=key)
    if not pack.name:
        pack.refuse(Message("A pack needs its name: pack = ..."))
    for domain, weight in pack.weights.items():
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight < float("inf"):
            rule = Message("A weight must be >= 0, got {domain}={weight!r}.", domain=domain, weight=weight)
            pack.refuse(rule, key=domain)
    if pack.weights and not sum(pack.weights.values()) > 0:
        pack.refuse(Message("One weight must be above 0, got only 0."), key="weights")
