"""The command `moo`.

Exit statuses: 0 done, 2 bad input, 3 environment, 4 findings for a person, 130 interrupted.
"""

import os
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape

from moo import __version__
from moo.cli.arguments import Parser, speak_option
from moo.cli.commands import confirm, dashboard, data, front, ledger, mask, models, report, retrain, run
from moo.cli.commands.compliance import rules
from moo.cli.commands.risk import attacks, attributes, audit, memorise
from moo.cli.exit_status import INTERRUPTED
from moo.cli.language import speaking, spoken, words
from moo.core.errors import MooError
from moo.core.messages import LANGUAGES, language_of

COMMANDS = (
    run,
    front,
    confirm,
    attacks,
    attributes,
    retrain,
    audit,
    memorise,
    report,
    data,
    models,
    mask,
    rules,
    ledger,
    dashboard,
)


def parser() -> Parser:
    """Return the parser of all commands and options."""
    top = Parser(prog="moo")
    top.summary = "choose the privacy of a language model fine-tuned on customers' data"
    top.add_argument("--version", action="version", version=f"moo {__version__}")
    commands = top.commands("command", "COMMAND")
    for module in COMMANDS:
        module.add(commands)
    speak_option(top)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    with speaking(language_of(_language_option(given))):
        return _main(given)


def _main(arguments: Sequence[str]) -> int:
    errors = Console(stderr=True)
    try:
        options, unknown = parser().parse_known_args(arguments)
        options.parser.refuse_unknown(unknown)
        status: int = options.action(options)
    except MooError as error:
        # An error of one line, also where a terminal is narrow
        text = f"[bold red]moo:[/] {escape(spoken(error.message))}"
        errors.print(text, highlight=False, soft_wrap=True)
        return error.exit_status
    except KeyboardInterrupt:
        text = words("interrupted; every finished trial is kept, and the same command goes on.")
        errors.print(f"[yellow]moo:[/] {text}", soft_wrap=True)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output has gone, as with `moo front | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return status


def _language_option(arguments: Sequence[str]) -> str:
    """Return the language that --lang names, wherever it is given; empty without one.

    It is read before the parser, since errors and help of the parser speak it. Several values, as of `moo
    compliance annex`, are
    those of a document.
    """
    for i, word in enumerate(arguments):
        name, mark, value = word.partition("=")
        if name != "--lang":
            continue
        values = [value] if mark else list(arguments[i + 1 : i + 3])
        if values and values[0] in LANGUAGES and not any(v in LANGUAGES for v in values[1:]):
            return values[0]
    return ""


if __name__ == "__main__":
    sys.exit(main())
