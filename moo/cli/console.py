"""How text stands in a terminal: wrapped between words there, one line where it is piped."""

import textwrap

from rich.console import Console
from rich.text import Text

NARROW = 112  # columns below which lines and tables take their short form
ROOMY = 140  # columns from which tables also show what is nice to know


def say(console: Console, markup: str) -> None:
    """A paragraph: on a terminal its words stay whole and further lines are set in by two, elsewhere it is one line for grep."""
    text = Text.from_markup(markup)
    if console.is_terminal:
        text = Text("\n").join(_wrapped(line, console.width) for line in text.split("\n", allow_blank=True))
    console.print(text, highlight=False, soft_wrap=True)


def _wrapped(line: Text, width: int) -> Text:
    """A line of text as several; a path is never broken."""
    pieces = textwrap.wrap(
        line.plain, width - 2, replace_whitespace=False, break_long_words=False, break_on_hyphens=False
    )
    starts, at = [], 0
    for piece in pieces:
        at = line.plain.index(piece, at)
        starts.append(at)
        at += len(piece)
    parts = line.divide(starts[1:])
    for part in parts:
        part.rstrip()
    return Text("\n  ").join(parts)


def heading(console: Console, text: str) -> None:
    """Above a table and not in it, where a title is squeezed into the table's width."""
    say(console, f"\n[bold]{text}[/]")


def narrow(console: Console) -> bool:
    """Whether lines and tables take their short form."""
    return console.width < NARROW
