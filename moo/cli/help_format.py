"""Help of a command in the language of the terminal, wrapped by columns."""

import argparse

from moo.cli.console import wrap
from moo.cli.language import language, spoken
from moo.core.messages import catalogue


def _translated(text: str) -> str:
    return text if language() == "en" else catalogue(language()).get(text, text)


def _translated_plural(one: str, many: str, n: int) -> str:
    return _translated(one if n == 1 else many)


# argparse looks up its words by these two names of its module
argparse._ = _translated  # type: ignore[attr-defined]
argparse.ngettext = _translated_plural  # type: ignore[attr-defined]


class HelpFormatter(argparse.HelpFormatter):
    """Formatter whose texts are English templates until they are printed."""

    def add_text(self, text: str | None) -> None:
        super().add_text(text if text is None or text is argparse.SUPPRESS else spoken(text))

    def start_section(self, heading: str | None) -> None:
        super().start_section(None if heading is None else _translated(heading))

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return None if action.help is None else spoken(action.help)

    def _split_lines(self, text: str, width: int) -> list[str]:
        return wrap(" ".join(text.split()), width)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n".join(indent + line for line in wrap(" ".join(text.split()), width - len(indent)))
