"""moo compliance check: judge a table by the gates, before any training."""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moo.cli.arguments import Commands, Parser, add_reading, add_unmatched, day
from moo.cli.exit_status import FINDINGS
from moo.core.errors import InputError
from moo.core.messages import Message, joined

if TYPE_CHECKING:
    from moo.data.tables.check import DataCheck
    from moo.objectives.compliance.rule import Stage
    from moo.studies.spec.study import StudySpec

_OF_A_STUDY = (
    *("text", "label", "user", "encoding", "separator", "na_values", "dossier", "withdrawals", "applies", "packs"),
)


def add(rules: Commands) -> Parser:
    """Add the command and return its parser."""
    parser = rules.command("check", check, "judge a table by the gates, before any training")
    parser.add_argument("--data", metavar="DATA", required=True, help="a table, a data set's name, or a study's TOML")
    parser.add_argument("--text", metavar="COLUMN", help="column of the text (default: text, if there is one)")
    parser.add_argument("--label", metavar="COLUMN", help="column of the class (default: label, if there is one)")
    parser.add_argument("--user", default="", metavar="COLUMN", help="column of the unit of privacy")
    parser.add_argument(
        "--purpose", default="model_training", metavar="P", help="purpose of the data (default model_training)"
    )
    parser.option("--as-of", day, metavar="DATE", help="day at which the data are judged (default today)")
    parser.add_argument(
        "--dossier", metavar="FILE", help="the company's declarations: purposes, roles, audits and the like"
    )
    parser.add_argument("--withdrawals", metavar="FILE", help="users who have withdrawn, one a line")
    parser.add_argument("--applies", nargs="+", default=[], metavar="FLAG", help='flags of the study, e.g. "profiling"')
    parser.add_argument(
        "--sensitive-rows",
        choices=("drop", "keep"),
        default="drop",
        help="rows without separate consent (default drop)",
    )
    parser.add_argument("--format", choices=("table", "json"), default="table", help="format (default table)")
    add_unmatched(parser)
    add_reading(parser)
    parser.add_argument(
        "--na-values", nargs="+", default=[], metavar="TEXT", help="texts that count as an empty cell, e.g. NA"
    )
    return parser


def check(options: argparse.Namespace) -> int:
    """Judge the table; exit with FINDINGS if a gate is not met."""
    from moo.cli.check_table import print_check
    from moo.data.legal.dossier import load_dossier
    from moo.data.legal.dossier_facts import declared_facts
    from moo.data.legal.gates import Terms
    from moo.objectives.compliance import evaluate, load_rules
    from moo.studies.setup.preflight import check_flags

    spec = _spec(options)
    check_flags(spec)
    as_of = date.fromisoformat(spec.as_of)
    dossier = load_dossier(spec.dossier) if spec.dossier else None
    terms = Terms.of(dossier, purpose=spec.purpose, as_of=as_of, declared=spec.declare)
    whole = Path(options.data).suffix.lower() == ".toml"
    named = (("text", whole or options.text), ("label", whole or options.label), ("user", True))
    checked = _checked(spec, terms, [name for name, required in named if required])
    facts = {**checked.facts, **declared_facts(dossier, as_of=as_of)}
    stages: tuple[Stage, ...] = ("trial", "release") if dossier else ("trial",)
    report = evaluate(facts, load_rules(spec.packs), applies=spec.applies, stages=stages)
    rows = [r for r in report.contributions if r["kind"] == "gate" and not any("privacy" in k for k in r["facts"])]
    if options.format == "json":
        sys.stdout.write(json.dumps(_record(spec, checked, rows), ensure_ascii=False, indent=1) + "\n")
    else:
        print_check(spec, checked, rows, dossier is not None)
    if checked.problems:
        raise InputError(_summary(checked.problems))
    return FINDINGS if any(row["verdict"] != "pass" for row in rows) else 0


def _summary(problems: Sequence[str]) -> Message:
    """Return the first problem, and the number of others."""
    others = len(problems) - 1
    more = [Message(" And {n} more kinds.", n=others)] if others else []
    return joined("", [problems[0], *more])


def _record(spec: "StudySpec", checked: "DataCheck", rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the check as JSON."""
    return {
        "data": spec.data,
        "as_of": spec.as_of,
        "rows": checked.rows,
        "units": checked.units,
        "dropped": checked.dropped,
        "listed_not_found": checked.not_found,
        "unlabelled": checked.unlabelled,
        "labels_stripped": checked.stripped,
        "unlisted_basis": dict(checked.unlisted),
        "gates_judged": spec.gates,
        "declared_not_measured": dict(spec.declare),
        "missing": list(checked.missing),
        "problems": list(checked.problems),
        "gates": rows,
        "breaches": {k: {"rows": b.rows, "first": list(b.places)} for k, b in checked.breaches.items()},
    }


def _spec(options: argparse.Namespace) -> "StudySpec":
    """Return the study of a TOML, or the one that the options describe for a table."""
    from moo.studies.spec.study import StudySpec, load_spec

    if Path(options.data).suffix.lower() == ".toml":
        _check_nothing_repeated(options)
        spec = load_spec(options.data)
        spec = replace(spec, as_of=options.as_of.isoformat() if options.as_of else spec.on(date.today()).as_of)
        return replace(spec, allow_unmatched=spec.allow_unmatched or options.allow_unmatched)
    return StudySpec(
        data=options.data,
        text=options.text or StudySpec().text,
        label=options.label or StudySpec().label,
        user=options.user,
        encoding=options.encoding,
        separator=options.separator,
        na_values=tuple(options.na_values),
        allow_unmatched=options.allow_unmatched,
        purpose=options.purpose,
        as_of=(options.as_of or date.today()).isoformat(),
        dossier=options.dossier or "",
        withdrawals=options.withdrawals or "",
        packs=tuple(options.packs or StudySpec().packs),
        applies=tuple(options.applies),
        sensitive_rows=options.sensitive_rows,
    )


def _check_nothing_repeated(options: argparse.Namespace) -> None:
    """Raise at an option that a study's TOML answers itself."""
    for name in _OF_A_STUDY:
        if getattr(options, name, None):
            raise InputError(
                "{option} must not be given together with a study, {data}; write {name} = ... there.",
                option=f"--{name.replace('_', '-')}",
                data=options.data,
                name=name,
            )


def _checked(spec: "StudySpec", terms: Any, required: Sequence[str]) -> "DataCheck":
    from moo.data.catalogue import DATASETS, load_records
    from moo.data.tables.check import check_records, check_table
    from moo.data.tables.users import load_withdrawals

    if spec.data in DATASETS:
        return check_records(load_records(spec.data), terms, sensitive_rows=spec.sensitive_rows)
    listed = load_withdrawals(Path(spec.withdrawals), as_of=terms.as_of) if spec.withdrawals else {}
    return check_table(
        spec.data,
        terms,
        text=spec.text,
        label=spec.label,
        user=spec.user,
        required=required,
        groups=[name for name in (spec.attribute, *spec.attribute_auxiliary) if name],
        withdrawals=listed,
        allow_unmatched=spec.allow_unmatched,
        sensitive_rows=spec.sensitive_rows,
        reading=spec.reading,
    )
