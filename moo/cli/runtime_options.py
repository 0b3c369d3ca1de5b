"""Options of `moo run` about this machine; each overrides the study's `[machine]` table."""

import argparse
import dataclasses
import tomllib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from moo.cli.arguments import Parser, fit, number, whole
from moo.core.errors import InputError

if TYPE_CHECKING:
    from moo.studies.spec.runtime import RuntimeSettings

_OPTIONS = ("accelerator", "precision", "logger", "checkpoint_steps", "cache_gib")


def add_machine(parser: Parser) -> None:
    """Add the options to a command."""
    parser.option(
        "--workers", whole(1, 4096), default=1, metavar="N", help="trials at a time, each in a process (default 1)"
    )
    parser.option("--accelerator", fit(_machine("accelerator")), metavar="A", help="auto, cpu or gpu")
    parser.option(
        "--precision",
        fit(_machine("precision")),
        metavar="P",
        help="precision of the frozen layers: auto, 32-true or bf16-mixed",
    )
    parser.option(
        "--logger",
        fit(_machine("logger")),
        metavar="L",
        help="logger of every trial's steps: none, auto, csv or tensorboard",
    )
    parser.option(
        "--checkpoint-steps",
        whole(0, 1_000_000),
        metavar="N",
        help="steps between checkpoints of a training (default 0: none)",
    )
    parser.option("--cache-gib", number(0, 1_000_000), metavar="G", help="GiB of the trunk's cache (default 20)")
    parser.add_argument(
        "--trainer",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="argument of lightning.Trainer, the value in TOML",
    )


def _machine(name: str) -> Callable[[str], "RuntimeSettings"]:
    """Return the check of one setting."""

    def made(text: str) -> "RuntimeSettings":
        from moo.studies.spec.runtime import RuntimeSettings

        return dataclasses.replace(RuntimeSettings(), **{name: text})  # type: ignore[arg-type]

    return made


def machine_of(options: argparse.Namespace, machine: "RuntimeSettings") -> "RuntimeSettings":
    """Return the study's settings with the command line's in place of them.

    Raises:
        InputError: If a value does not fit, or a Trainer argument would break the DP accounting.
    """
    given = {name: getattr(options, name) for name in _OPTIONS if getattr(options, name) is not None}
    return dataclasses.replace(machine, **given, trainer={**machine.trainer, **_parsed(options.trainer)})


def _parsed(pairs: Sequence[str]) -> dict[str, Any]:
    """Return KEY=VALUE pairs by the rules of TOML; a bare word is text."""
    values: dict[str, Any] = {}
    for pair in pairs:
        name, mark, value = pair.partition("=")
        if not mark or not name.strip():
            raise InputError("--trainer must be KEY=VALUE, got {pair!r}.", pair=pair)
        try:
            values[name.strip()] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            values[name.strip()] = value
    return values
