"""moo report: write the report of a study that ran."""

import argparse

from moo.cli.arguments import Commands, add_folder
from moo.cli.console import out, say
from moo.core.messages import LANGUAGES


def add(commands: Commands) -> None:
    """Add the command."""
    parser = commands.command("report", report, "write the report of a study that ran")
    add_folder(parser)
    parser.add_argument("--lang", choices=LANGUAGES, default="en", help="language of report and terminal (default en)")


def report(options: argparse.Namespace) -> int:
    """Write the report."""
    from moo.report import save_report
    from moo.studies.results.result import load_result

    written = save_report(load_result(options.out), options.out, lang=options.lang)
    say(out, "Written: {files}", files=str(written))
    return 0
