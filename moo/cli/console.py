"""Text in a terminal: wrapped between words, or one line in a pipe.

A Chinese character takes two columns, and a line may break next to it.
"""

import re
import sys
import textwrap

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from moo.cli.language import words

# Columns below which lines and tables take their short form
NARROW = 112
# Columns from which tables also show what is nice to know
ROOMY = 140

out = Console() if sys.stdout.isatty() else Console(width=120)

# A line may break between two of these: words between blanks, and wide characters, each with its brackets and stops
_OPENING, _CLOSING = "（“‘「『《〈【", "、。」』】〉》！），．：；？”’"
_WIDE = "⺀-〿㐀-鿿＀-￯"
_WORD = re.compile(rf"\s*[{_OPENING}]*(?:[{_WIDE}]|[^\s{_WIDE}{_OPENING}{_CLOSING}]+)?[{_CLOSING}]*")


def say(console: Console, template: str, /, **values: object) -> None:
    """Print a template in the language of the command; see `show`."""
    show(console, words(template, **values))


def show(console: Console, markup: str) -> None:
    """Print a paragraph: on a terminal its words stay whole and further lines are set in by two.

    Elsewhere it is one line, for grep.
    """
    text = Text.from_markup(markup)
    if console.is_terminal:
        text = Text("\n").join(_wrapped(line, console.width) for line in text.split("\n", allow_blank=True))
    console.print(text, highlight=False, soft_wrap=True)


def heading(console: Console, template: str, /, **values: object) -> None:
    """Print a line above a table; a title in it would be squeezed into the table's width."""
    show(console, f"\n[bold]{words(template, **values)}[/]")


def headers(*names: str) -> list[str]:
    """Return the headers of a table in the language of the command."""
    return [words(name) for name in names]


def narrow(console: Console) -> bool:
    """Return True if lines and tables take their short form."""
    return console.width < NARROW


def wrap(text: str, width: int) -> list[str]:
    """Return a line of text as lines of at most `width` columns; a path is never broken.

    Args:
        text: One line, without markup.
        width: Columns of a terminal.
    """
    if cell_len(text) == len(text):
        return textwrap.wrap(text, width, replace_whitespace=False, break_long_words=False, break_on_hyphens=False)
    lines = [""]
    for word in filter(None, _WORD.findall(text)):
        if lines[-1] and cell_len(lines[-1] + word) > width:
            lines.append("")
        lines[-1] += word if lines[-1] else word.lstrip() if len(lines) > 1 else word
    return lines


def _wrapped(line: Text, width: int) -> Text:
    """Return a line of text as several."""
    starts, at = [], 0
    for piece in wrap(line.plain, width - 2):
        at = line.plain.index(piece, at)
        starts.append(at)
        at += len(piece)
    parts = line.divide(starts[1:])
    for part in parts:
        part.rstrip()
    return Text("\n  ").join(parts)
