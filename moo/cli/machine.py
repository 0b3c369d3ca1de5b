"""Options of `moo run` that say how a study runs on this machine; each overrides the study's `[machine]` table."""

import argparse
import dataclasses
import tomllib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from moo.errors import InputError

if TYPE_CHECKING:
    from moo.studies.machine import Machine

_OPTIONS = ("accelerator", "precision", "logger", "checkpoint_steps", "cache_gib")


def add_machine(run: argparse.ArgumentParser) -> None:
    """Add the options to a command."""
    group = run.add_argument_group("machine", "how the study runs here; no part of what it is")
    group.add_argument(
        "--workers", type=int, default=1, metavar="N", help="trials at a time, each in a process (default 1)"
    )
    group.add_argument("--accelerator", metavar="A", help="auto, cpu or gpu")
    group.add_argument("--precision", metavar="P", help="of what is frozen: auto, 32-true or bf16-mixed")
    group.add_argument("--logger", metavar="L", help="of every trial's steps: none, auto, csv or tensorboard")
    group.add_argument(
        "--checkpoint-steps", type=int, metavar="N", help="steps between checkpoints of a training (default 0: none)"
    )
    group.add_argument("--cache-gib", type=float, metavar="G", help="size of the trunk's cache (default 20)")
    group.add_argument(
        "--trainer",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="argument of lightning.Trainer, the value in TOML",
    )


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
            raise InputError(f"--trainer must be KEY=VALUE, but got {pair!r}.")
        try:
            out[name.strip()] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            out[name.strip()] = value
    return out
