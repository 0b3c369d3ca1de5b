"""Messages for people: a template and its values, so that any language can be rendered from them.

A `Message` is a string: the English text. It remembers the template and the values that formed it. The template is the
message's id: `render` looks it up in the catalogue of a language and fills that language's template with the
same values.
A text that no catalogue knows stays English.

    >>> text = Message("{n:,} of {total:,} records", n=3, total=1200)
    >>> text
    '3 of 1,200 records'
    >>> render(text, "zh")
    '1,200 条记录中的 3 条'
"""

import math
import numbers
import os
import string
import tomllib
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import resources
from typing import Any

LANGUAGES = ("en", "zh")
_PACKED = {"text", "template", "values"}


class Message(str):
    """English text, with the template and the values that formed it.

    Attributes:
        template: English template in the syntax of `str.format`, values by name; it is the id of the message.
        values: Values of the template; a value may be a message itself.
    """

    __slots__ = ("template", "values")
    template: str
    values: dict[str, Any]

    def __new__(cls, template: str, /, **values: Any) -> "Message":
        message = super().__new__(cls, template.format(**values))
        message.template, message.values = template, values
        return message

    def __getnewargs_ex__(self) -> tuple[tuple[str], dict[str, Any]]:
        return (self.template,), self.values

    def __deepcopy__(self, memo: object) -> "Message":
        return self


class Verbatim(str):
    """Text that is the same in every language, such as the name of an argument."""

    __slots__ = ()


def joined(separator: str, texts: Iterable[str]) -> Message:
    """Return one message made of several; parts and separator are rendered one by one."""
    parts = list(texts)
    fields = (f"{{part{i}}}" for i in range(len(parts)))
    values = {f"part{i}": part for i, part in enumerate(parts)} | {"separator": Message(escaped(separator))}
    return Message("{separator}".join(fields), **values)


def escaped(text: str) -> str:
    """Return a text as a template that formats to the text itself."""
    return text.replace("{", "{{").replace("}", "}}")


def render(text: str, language: str) -> str:
    """Return a message in a language.

    A plain text is looked up as a template without values, a name without its underscores. Values shown by their
    `repr` ("got {value!r}") are what a user wrote, so they stay as they are.

    Args:
        text: A `Message`, or a plain English text.
        language: One of `LANGUAGES`.
    """
    if language == "en" or isinstance(text, Verbatim):
        return str(text)
    known = catalogue(language)
    if not isinstance(text, Message):
        return known.get(text) or known.get(text.replace("_", " "), text)
    quoted = {name for _, name, _, conversion in string.Formatter().parse(text.template) if conversion == "r"}
    values = {
        name: render(value, language) if isinstance(value, str) and name not in quoted else value
        for name, value in text.values.items()
    }
    return known.get(text.template, text.template).format(**values)


@cache
def catalogue(language: str) -> Mapping[str, str]:
    """Return English template -> template of the language, from every file of its folder.

    Raises:
        ValueError: If two files translate one template differently.
    """
    known: dict[str, str] = {}
    for file in sorted((resources.files("moo.core") / "languages" / language).iterdir(), key=lambda f: f.name):
        if file.name.endswith(".toml"):
            for english, other in entries(file.read_text(encoding="utf-8")).items():
                if known.setdefault(english, other) != other:
                    raise ValueError(f"{file.name} translates {english!r} otherwise than an earlier file.")
    return known


def entries(text: str) -> dict[str, str]:
    """Return English template -> template of the language, from the text of a catalogue's file.

    A line holds `"English" = "other"`; templates too long for a line are tables `[[long]]` at the end of the file.

    Raises:
        ValueError: If a table `[[long]]` holds anything but an English and a Chinese template, or repeats one.
    """
    lines: dict[str, Any] = tomllib.loads(text)
    for pair in lines.pop("long", []):
        if set(pair) != {"english", "chinese"} or pair["english"] in lines:
            raise ValueError(f"a table [[long]] must hold one new pair of english and chinese, got {pair!r}.")
        lines[pair["english"]] = pair["chinese"]
    return lines


def fields(template: str) -> set[str]:
    """Return the names of the values that a template asks for."""
    return {name.partition(".")[0].partition("[")[0] for _, name, _, _ in string.Formatter().parse(template) if name}


def language_of(option: str = "") -> str:
    """Return the language of an option, else of MOO_LANG, else of the locale, else English."""
    chosen = option or os.environ.get("MOO_LANG", "")
    for name in [chosen] if chosen else [os.environ.get(key, "") for key in ("LC_ALL", "LC_MESSAGES", "LANG")]:
        if name:
            return "zh" if name.lower().startswith("zh") else "en"
    return "en"


def to_json(text: str) -> str | dict[str, Any]:
    """Return a text as JSON: a plain text as it is, a message with its template and values."""
    if not isinstance(text, Message) or not text.values:
        return str(text)
    return {"text": str(text), "template": text.template, "values": {k: _value_out(v) for k, v in text.values.items()}}


def from_json(data: str | Mapping[str, Any]) -> str:
    """Return the text that `to_json` wrote."""
    if isinstance(data, str):
        return data
    return Message(data["template"], **{k: _value_in(v) for k, v in data["values"].items()})


def pack(content: Any) -> Any:
    """Return JSON content with each message in it as `to_json` writes it; tuples become lists."""
    if isinstance(content, str):
        return to_json(content)
    if isinstance(content, Mapping):
        return {key: pack(value) for key, value in content.items()}
    return [pack(value) for value in content] if isinstance(content, list | tuple) else content


def unpack(content: Any) -> Any:
    """Return the content that `pack` wrote; content without messages stays as it is."""
    if isinstance(content, Mapping):
        if content.keys() == _PACKED:
            return from_json(content)
        return {key: unpack(value) for key, value in content.items()}
    return [unpack(value) for value in content] if isinstance(content, list | tuple) else content


def messages_in(content: Any) -> dict[str, Message]:
    """Return English text -> message, of each message with values in JSON content."""
    if isinstance(content, Message):
        return {str(content): content} if content.values else {}
    parts = content.values() if isinstance(content, Mapping) else content if isinstance(content, list | tuple) else ()
    return {text: message for part in parts for text, message in messages_in(part).items()}


def restore(content: Any, known: Mapping[str, str]) -> Any:
    """Return JSON content in which each text that a message has formed is that message again.

    Args:
        content: JSON content with plain texts, as people read it.
        known: English text -> message, as `messages_in` lists them.
    """
    if isinstance(content, str):
        return known.get(content, content)
    if isinstance(content, Mapping):
        return {key: restore(value, known) for key, value in content.items()}
    return [restore(value, known) for value in content] if isinstance(content, list | tuple) else content


def _value_out(value: Any) -> Any:
    if isinstance(value, str):
        return to_json(value)
    if isinstance(value, bool):
        return value
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)}
    return value if isinstance(value, float) or value is None else str(value)


def _value_in(value: Any) -> Any:
    if isinstance(value, Mapping):
        return float(value["float"]) if "float" in value else from_json(value)
    return value
