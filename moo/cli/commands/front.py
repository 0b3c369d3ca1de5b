"""moo front: show the front of a study that ran."""

import argparse
import json
import sys

from moo.cli.arguments import Commands, add_folder, add_weights
from moo.cli.console import out


def add(commands: Commands) -> None:
    """Add the command."""
    parser = commands.command("front", front, "show the front of a study that ran")
    add_folder(parser)
    add_weights(parser)
    parser.add_argument("--keep", action="store_true", help="write the choice into the study's files and reports")
    parser.add_argument("--format", choices=("table", "csv", "json"), default="table", help="format (default table)")


def front(options: argparse.Namespace) -> int:
    """Print a saved result, or its table as CSV or JSON."""
    from moo.cli.tables import print_result
    from moo.studies.results.result import load_result

    result = load_result(options.out)
    if options.weights is not None:
        result = result.weighed(options.weights)
    if options.keep:
        from moo.report import renew_reports

        result.save(options.out)
        renew_reports(options.out)
    if options.format == "csv":
        sys.stdout.write(result.table.to_csv(index=False))
    elif options.format == "json":
        sys.stdout.write(json.dumps(result.rows(), ensure_ascii=False, indent=1) + "\n")
    else:
        print_result(out, result)
    return 0
