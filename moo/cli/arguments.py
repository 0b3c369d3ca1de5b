"""Command-line options that check their own values: a bad one is refused by its name before a command begins."""

import argparse
import math
from collections.abc import Callable, Iterable
from datetime import date
from typing import Any

from moo.core import validate
from moo.core.errors import MooError

Check = Callable[[str, str], Any]  # option's name, text -> value
SEEDS = 2**63 - 1


class OptionError(MooError):
    """An option's value is unfit. No ValueError, which argparse would reword."""

    exit_status = 2


class Parser(argparse.ArgumentParser):
    """Gives bad input one line, as every other part of moo does."""

    def option(self, name: str, check: Check, **more: Any) -> None:
        """Add an option whose values, each of them where there are several, pass a check."""
        self.add_argument(name, type=lambda text: check(name, text), **more)

    def error(self, message: str) -> "None":  # type: ignore[override]
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help.\n")

    def refuse_unknown(self, words: Iterable[str]) -> None:
        """Exit with status 2 at the first word that no option or argument takes."""
        for word in words:
            known = [name for name in self._option_string_actions if name.startswith("--")]
            near = validate.nearest(word.partition("=")[0], known) if word.startswith("-") else ""
            self.error(f"unknown {'option' if word.startswith('-') else 'argument'} {word!r}.{near}")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is None or value in action.choices:
            return
        near = validate.nearest(value, map(str, action.choices))
        known = ", ".join(map(str, action.choices))
        if not action.option_strings:
            self.error(f"{(action.metavar or action.dest)} must be one of {known}, got {value!r}.{near}")
        raise OptionError(
            "{option_strings} must be one of {known}, got {value!r}.{near}",
            option_strings=action.option_strings[-1],
            known=known,
            value=value,
            near=near,
        )


def whole(low: int, high: int) -> Check:
    """A whole number from low to high."""

    def check(name: str, text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = low - 1
        if not low <= value <= high:
            raise OptionError(
                "{name} must be a whole number from {low:,} to {high:,}, got {text!r}.",
                name=name,
                low=low,
                high=high,
                text=text,
            )
        return value

    return check


def even(low: int, high: int) -> Check:
    """An even number from low to high."""

    def check(name: str, text: str) -> int:
        value: int = whole(low, high)(name, text)
        if value % 2:
            raise OptionError("{name} must be even, since shadows come in pairs, got {text!r}.", name=name, text=text)
        return value

    return check


def number(low: float, high: float, *, above: bool = False) -> Check:
    """A number from low to high; `above` leaves low itself out. Infinity is taken where high is."""
    span = f"{'above' if above else 'from'} {low:g} to {high:g}" if math.isfinite(high) else ""
    said = span or f"{'above' if above else 'of at least'} {low:g} (inf for none)"

    def check(name: str, text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high or (above and value == low):
            raise OptionError("{name} must be a number {said}, got {text!r}.", name=name, said=said, text=text)
        return value

    return check


def day(name: str, text: str) -> date:
    """A date as 2026-11-01."""
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise OptionError("{name} must be a date as 2026-11-01, got {text!r}.", name=name, text=text) from None


def filled(name: str, text: str) -> str:
    """A text that is not empty."""
    if not text.strip() or "\0" in text:
        raise OptionError("{name} must not be empty, got {text!r}.", name=name, text=text)
    return text


def fit(read: Callable[[str], object]) -> Check:
    """A text that a function of the library takes; its error is given the option's name."""

    def check(name: str, text: str) -> str:
        try:
            read(text)
        except MooError as error:
            unfit = OptionError("{name}: {error}", name=name, error=error)
            unfit.exit_status = error.exit_status
            raise unfit from error
        return text

    return check


def add_reading(parser: Parser, what: str) -> None:
    """Add the options that say how a table's file is read."""
    parser.option(
        "--encoding",
        fit(lambda text: _read(encoding=text)),
        default="",
        metavar="NAME",
        help=f"of {what}, e.g. gb18030 (default utf-8)",
    )
    parser.option(
        "--separator",
        fit(lambda text: _read(separator=text)),
        default="",
        metavar="S",
        help=f'of {what}: ",", ";" or tab (default: the one in its header)',
    )


def _read(**asked: str) -> object:
    from moo.tables import Reading

    return Reading(**asked) if any(asked.values()) else None  # type: ignore[arg-type]
