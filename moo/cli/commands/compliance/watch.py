"""moo compliance watch: look at data and released models regularly."""

import argparse
import json
import sys
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from rich.cells import set_cell_size

from moo.cli.arguments import Commands, Parser, add_reading, add_unmatched, day, number, whole
from moo.cli.console import out, show
from moo.cli.exit_status import FINDINGS
from moo.cli.language import language, spoken, words
from moo.core.personal_data_types import MAX_LEVEL

if TYPE_CHECKING:
    from moo.studies.workflows.monitor import Watched


def add(rules: Commands) -> None:
    """Add the command."""
    parser = rules.command("watch", watch, "look at data and released models, for a scheduler")
    parser.add_argument("--data", metavar="FILE", required=True, help="the table")
    parser.add_argument("--text", default="text", metavar="COLUMN", help="column of the text (default text)")
    parser.add_argument("--label", metavar="COLUMN", help="column of the class (default: label, if there is one)")
    parser.add_argument("--user", default="", metavar="COLUMN", help="column of the unit of privacy")
    parser.add_argument(
        "--purpose", default="model_training", metavar="P", help="purpose of the data (default model_training)"
    )
    parser.add_argument(
        "--models", nargs="+", default=[], metavar="DIR", help="folders of models that `moo retrain` wrote"
    )
    parser.add_argument(
        "--withdrawals",
        default="",
        metavar="FILE",
        help="users who have withdrawn: one line USER or USER,DATE each",
    )
    _add_limits(parser)
    parser.add_argument("--state", default="", metavar="FILE", help="file of the first look's rates, to see drift")
    parser.add_argument("--format", choices=("table", "json"), default="table", help="format (default table)")
    add_unmatched(parser)
    add_reading(parser)
    parser.add_argument(
        "--na-values", nargs="+", default=[], metavar="TEXT", help="texts that count as an empty cell, e.g. NA"
    )


def _add_limits(parser: Parser) -> None:
    parser.option("--as-of", day, metavar="DATE", help="day of the look (default today)")
    parser.option(
        "--ahead", whole(0, 36_500), default=30, metavar="DAYS", help="days that retention is looked ahead (default 30)"
    )
    parser.option(
        "--level",
        whole(0, MAX_LEVEL),
        default=2,
        metavar="L",
        help="masking level, if no model's card names one (default 2)",
    )
    parser.option(
        "--budget",
        number(0, 1e9, above=True),
        metavar="EPSILON",
        help="the company's limit over all studies on the data",
    )


def watch(options: argparse.Namespace) -> int:
    """Look once; exit with FINDINGS if something needs a person."""
    from moo.studies.workflows.monitor import watch as look

    as_of = options.as_of or date.today()
    findings = look(_watched(options, as_of))
    alarm = any(f.status == "attention" for f in findings)
    if options.format == "json":
        record = {
            "as_of": as_of.isoformat(),
            "status": "attention" if alarm else "ok",
            "findings": [vars(f) for f in findings],
        }
        sys.stdout.write(json.dumps(record, ensure_ascii=False, indent=1) + "\n")
    else:
        colour = {"ok": "green", "attention": "bold red", "not assessed": "yellow"}
        stop = "." if language() == "en" else "。"
        for f in findings:
            status = set_cell_size(words(f.status), 12)
            show(out, f"[{colour[f.status]}]{status}[/] {spoken(f.name)}: {spoken(f.text)}{stop}")
    return FINDINGS if alarm else 0


def _watched(options: argparse.Namespace, as_of: date) -> "Watched":
    from moo.data.legal.gates import Terms
    from moo.studies.workflows.monitor import Watched
    from moo.tables import Reading

    return Watched(
        data=Path(options.data),
        text=options.text,
        label=options.label or "label",
        required=("text", "user", *(["label"] if options.label else [])),
        user=options.user,
        terms=Terms(purpose=options.purpose, as_of=as_of),
        models=tuple(map(Path, options.models)),
        withdrawals=options.withdrawals,
        allow_unmatched=options.allow_unmatched,
        reading=Reading(encoding=options.encoding, separator=options.separator, na_values=tuple(options.na_values)),
        days_ahead=options.ahead,
        level=options.level,
        budget=options.budget,
        state=options.state,
    )
