"""Language of the command line: chosen once a command, used by every line that it prints."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from moo.core.messages import Message, catalogue, render

_LANGUAGE: ContextVar[str] = ContextVar("language", default="en")


@contextmanager
def speaking(language: str) -> Iterator[None]:
    """Print in a language, "en" or "zh", until the block ends."""
    token = _LANGUAGE.set(language)
    try:
        yield
    finally:
        _LANGUAGE.reset(token)


def language() -> str:
    """Return the language that the command prints: "en" or "zh"."""
    return _LANGUAGE.get()


def words(template: str, /, **values: object) -> str:
    """Return a template filled with values, in the language of the command.

    Args:
        template: English template; its Chinese is in the catalogue.
        values: Values by name. Messages are rendered too; a plain text, such as a path, stays as it is.
    """
    spoken_template = template if language() == "en" else catalogue(language()).get(template, template)
    return spoken_template.format(**{k: spoken(v) if isinstance(v, Message) else v for k, v in values.items()})


def spoken(text: str) -> str:
    """Return a message, or a text that the catalogue knows, in the language of the command."""
    return render(text, language())


def sentence(text: str) -> str:
    """Return a text with a capital and a full stop, in the language of the command."""
    return f"{text[:1].upper()}{text[1:]}{'.' if language() == 'en' else '。'}"


def listed(texts: list[str]) -> str:
    """Return texts as a list within a sentence."""
    return (", " if language() == "en" else "、").join(texts)
