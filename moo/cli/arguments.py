"""Command-line options with checks: a bad value is refused before the command begins."""

import argparse
import math
from collections.abc import Callable, Iterable
from datetime import date
from typing import Any, NoReturn

from moo.cli.help_format import HelpFormatter
from moo.cli.language import sentence, spoken, words
from moo.core import validate
from moo.core.errors import MooError
from moo.core.messages import LANGUAGES, Message

# Option's name, text -> value
Check = Callable[[str, str], Any]
SEEDS = 2**63 - 1
# Most trials, canaries and the like
MANY = 1_000_000
SPEAK = "language of the terminal: en or zh (default: MOO_LANG, else the locale)"


class OptionError(MooError):
    """An option's value is unfit. No ValueError, which argparse would reword."""

    exit_status = 2


class Parser(argparse.ArgumentParser):
    """Parser of one command, which gives bad input one line, as every other part of moo does.

    Attributes:
        summary: Line of the command in its group's help, without a full stop.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(formatter_class=HelpFormatter, **options)
        self.summary = ""

    def option(self, name: str, check: Check, **more: Any) -> None:
        """Add an option; each of its values must pass a check."""
        self.add_argument(name, type=lambda text: check(name, text), **more)

    def commands(self, dest: str, metavar: str) -> "Commands":
        """Return the commands of this one, to be added to."""
        return Commands(self.add_subparsers(dest=dest, metavar=metavar, required=True))

    def format_help(self) -> str:
        self.description = sentence(spoken(self.summary))
        return super().format_help()

    def error(self, message: str) -> "None":  # type: ignore[override]
        self.exit(2, words("{program}: {problem}; see {program} --help.", program=self.prog, problem=message) + "\n")

    def refuse_unknown(self, unknown: Iterable[str]) -> None:
        """Exit with status 2 at the first word that no option or argument takes."""
        for word in unknown:
            if word.startswith("-"):
                known = [name for name in self._option_string_actions if name.startswith("--")]
                near = validate.nearest(word.partition("=")[0], known)
                self.error(words("unknown option {word!r}.{near}", word=word, near=spoken(near)))
            self.error(words("unknown argument {word!r}.", word=word))

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is None or value in action.choices:
            return
        near = validate.nearest(value, map(str, action.choices))
        known = ", ".join(map(str, action.choices))
        name = action.option_strings[-1] if action.option_strings else str(action.metavar or action.dest)
        problem = OptionError(
            "{name} must be one of {known}, got {value!r}.{near}", name=name, known=known, value=value, near=near
        )
        if not action.option_strings:
            self.error(spoken(problem.message))
        raise problem


class Commands:
    """Commands of a group, each with a parser and the function that it calls."""

    def __init__(self, group: "argparse._SubParsersAction[Any]") -> None:
        self._group = group

    def command(self, name: str, call: Callable[..., int], summary: str) -> Parser:
        """Add a command and return its parser."""
        parser = self._parser(name, summary)
        parser.set_defaults(action=call, parser=parser)
        return parser

    def group(self, name: str, summary: str) -> "Commands":
        """Add a group of commands."""
        return self._parser(name, summary).commands("what", "WHAT")

    def _parser(self, name: str, summary: str) -> Parser:
        parser: Parser = self._group.add_parser(name, help=summary)
        parser.summary = summary
        return parser


def speak_option(parser: Parser) -> None:
    """Add --lang to a command and to those below it, unless it has a --lang already."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for child in action.choices.values():
                speak_option(child)
    if "--lang" not in parser._option_string_actions:
        parser.add_argument("--lang", dest="speak", choices=LANGUAGES, default=argparse.SUPPRESS, help=SPEAK)


def whole(low: int, high: int) -> Check:
    """Return the check of a whole number from low to high."""
    wanted = Message("a whole number from {low:,} to {high:,}", low=low, high=high)

    def check(name: str, text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            _refuse(name, wanted, text)
        return value if low <= value <= high else _refuse(name, wanted, text)

    return check


def even(low: int, high: int) -> Check:
    """Return the check of an even number from low to high."""

    def check(name: str, text: str) -> int:
        value: int = whole(low, high)(name, text)
        return _refuse(name, Message("even, since shadows come in pairs"), text) if value % 2 else value

    return check


def number(low: float, high: float, *, above: bool = False) -> Check:
    """Return the check of a number from low to high, which may be infinite.

    Args:
        low: Least value.
        high: Largest value.
        above: True if low itself is not allowed.
    """
    if math.isfinite(high):
        template = "a number above {low:g}, at most {high:g}" if above else "a number from {low:g} to {high:g}"
    else:
        template = "a number above {low:g} (inf for none)" if above else "a number of at least {low:g} (inf for none)"
    wanted = Message(template, low=low, high=high)

    def check(name: str, text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            _refuse(name, wanted, text)
        fits = low <= value <= high and not (above and value == low)
        return value if fits else _refuse(name, wanted, text)

    return check


def day(name: str, text: str) -> date:
    """Return a date that is written as 2026-11-01."""
    try:
        return date.fromisoformat(text)
    except ValueError:
        _refuse(name, Message("a date as 2026-11-01"), text)


def filled(name: str, text: str) -> str:
    """Return a text that is not empty."""
    return text if text.strip() and "\0" not in text else _refuse(name, Message("a text that is not empty"), text)


def fit(read: Callable[[str], object]) -> Check:
    """Return the check by a function of the library; its error is given the option's name."""

    def check(name: str, text: str) -> str:
        try:
            read(text)
        except MooError as error:
            unfit = OptionError("{name}: {error}", name=name, error=error.message)
            unfit.exit_status = error.exit_status
            raise unfit from error
        return text

    return check


def add_reading(parser: Parser) -> None:
    """Add the options that say how a table's file is read."""
    parser.option(
        "--encoding",
        fit(lambda text: _reading(encoding=text)),
        default="",
        metavar="NAME",
        help="encoding of the table, e.g. gb18030 (default utf-8)",
    )
    parser.option(
        "--separator",
        fit(lambda text: _reading(separator=text)),
        default="",
        metavar="S",
        help='separator of the table: ",", ";" or tab (default: the one in its header)',
    )


def add_unmatched(parser: Parser) -> None:
    """Add the option that accepts withdrawn users without a row."""
    parser.add_argument(
        "--allow-unmatched",
        action="store_true",
        help="accept users who have withdrawn and have no row, e.g. because it is deleted",
    )


def add_weights(parser: Parser) -> None:
    """Add the option that weighs the objectives."""
    from moo.studies.results.weights import weights_of

    parser.option(
        "--weights",
        fit(weights_of),
        metavar="W",
        help="recommend the knee by these weights, e.g. accuracy=2,risk=1,penalty=1 (default: the most accurate point "
        "that holds its limits)",
    )


def add_storage(parser: Parser, text: str) -> None:
    """Add the option that names an Optuna storage."""
    parser.option("--storage", fit(_check_storage), metavar="URL", help=text)


def add_folder(parser: Parser) -> None:
    """Add the option that names the folder of a study that ran."""
    parser.option("--out", filled, metavar="DIR", required=True, help="folder of the study")


def _check_storage(text: str) -> None:
    from moo.search.storage import check_storage

    check_storage(text)


def _reading(**options: Any) -> object:
    from moo.tables import Reading

    return Reading(**options) if any(options.values()) else None


def _refuse(name: str, wanted: Message, text: str) -> NoReturn:
    raise OptionError("{name} must be {wanted}, got {text!r}.", name=name, wanted=wanted, text=text)
