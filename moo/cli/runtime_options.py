"""Options of `moo run` that say how a study runs on this machine; each overrides the study's `[machine]` table."""

import argparse
import dataclasses
import tomllib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from moo.cli.arguments import Parser, fit, number, whole
from moo.core.errors import InputError

if TYPE_CHECKING:
    from moo.studies.spec.runtime import Machine

_OPTIONS = ("accelerator", "precision", "logger", "checkpoint_steps", "cache_gib")


def add_machine(run: Parser) -> None:
    """Add the options to a command."""
    run.option(
        "--workers", whole(1, 4096), default=1, metavar="N", help="trials at a time, each in a process (default 1)"
    )
    run.option("--accelerator", fit(_machine("accelerator")), metavar="A", help="auto, cpu or gpu")
    run.option(
        "--precision", fit(_machine("precision")), metavar="P", help="of what is frozen: auto, 32-true or bf16-mixed"
    )
    run.option(
        "--logger", fit(_machine("logger")), metavar="L", help="of every trial's steps: none, auto, csv or tensorboard"
    )
    run.option(
        "--checkpoint-steps",
        whole(0, 1_000_000),
        metavar="N",
        help="steps between checkpoints of a training (default 0: none)",
    )
    run.option("--cache-gib", number(0, 1_000_000), metavar="G", help="size of the trunk's cache (default 20)")
    run.add_argument(
        "--trainer",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="argument of lightning.Trainer, the value in TOML",
    )


def _machine(name: str) -> Callable[[str], "Machine"]:
    def made(text: str) -> "Machine":
        from moo.studies.spec.runtime import Machine

        return dataclasses.replace(Machine(), **{name: text})  # type: ignore[arg-type]

    return made


def machine_of(options: argparse.Namespace, machine: "Machine") -> "Machine":
    """The study's machine with what the command line says otherwise.

    Raises:
        InputError: If a value does not fit, or a Trainer argument would break the DP accounting.
    """
    given = {name: getattr(options, name) for name in _OPTIONS if getattr(options, name) is not None}
    return dataclasses.replace(machine, **given, trainer={**machine.trainer, **_parsed(options.trainer)})


def _parsed(pairs: Sequence[str]) -> dict[str, Any]:
    """KEY=VALUE by the rules of TOML; a bare word is text."""
    out: dict[str, Any] = {}
    for pair in pairs:
        name, mark, value = pair.partition("=")
        if not mark or not name.strip():
            raise InputError("--trainer must be KEY=VALUE, but got {pair!r}.", pair=pair)
        try:
            out[name.strip()] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            out[name.strip()] = value
    return out
