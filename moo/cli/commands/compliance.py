"""What the commands of `moo compliance` do."""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

from moo.cli.commands.studies import out
from moo.cli.console import say
from moo.core import validate
from moo.core.errors import InputError

if TYPE_CHECKING:
    from moo.data.tables.check import DataCheck
    from moo.objectives.compliance.rule import Stage
    from moo.studies.spec.study import StudySpec

FINDINGS = 4  # exit status: it ran, and there is something for a person to do
LEGAL = "Rules are evidence for a person to judge. No law sets epsilon, delta or k: such thresholds are policy."


def list_rules(options: argparse.Namespace) -> int:
    """moo compliance list"""
    from moo.objectives.compliance.loader import load_rules

    table = Table("rule", "kind", "judged", "what it asks", "basis", "status", box=None)
    for rule in load_rules(_packs(options)).rules:
        title = f"{rule.title_en} / {rule.title_zh}"
        table.add_row(rule.id, rule.kind, f"at the {rule.stage}", title, rule.article, rule.status)
    out.print(table)
    out.print(LEGAL)
    return 0


def explain_rule(options: argparse.Namespace) -> int:
    """moo compliance explain"""
    from moo.objectives.compliance.loader import load_rules

    rules = {rule.id: rule for rule in load_rules(_packs(options)).rules}
    if options.rule not in rules:
        near = validate.nearest(options.rule, rules)
        raise InputError(
            "rule must be one of {rules}, but got {rule!r}.{near}", rules=", ".join(rules), rule=options.rule, near=near
        )
    rule = rules[options.rule]
    table = Table(show_header=False, box=None)
    names = (
        "id",
        "kind",
        "stage",
        "title_en",
        "title_zh",
        "article",
        "status",
        "evidence",
        "score",
        "low",
        "high",
        "domain",
    )
    for name in (*names, "applies_if", "fail_at", "varies", "pia", "source", "as_of", "pack"):
        value = getattr(rule, name)
        table.add_row(name, ", ".join(value) if isinstance(value, tuple) else str(value))
    if rule.unless:
        table.add_row("unless", f"{rule.unless.evidence} >= {rule.unless.at_least:g}")
    out.print(table)
    return 0


def _packs(options: argparse.Namespace) -> Sequence[str]:
    from moo.objectives.compliance.pack import BUILT_IN

    return options.packs or BUILT_IN


def check(options: argparse.Namespace) -> int:
    """moo compliance check"""
    from moo.data.legal.dossier import declared_facts, load_dossier
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
    found = _checked(spec, terms, [name for name, asked in named if asked])
    facts = {**found.facts, **declared_facts(dossier, as_of=as_of)}
    stages: tuple[Stage, ...] = ("trial", "release") if dossier else ("trial",)
    report = evaluate(facts, load_rules(spec.packs), applies=spec.applies, stages=stages)
    rows = [r for r in report.contributions if r["kind"] == "gate" and not any("privacy" in k for k in r["facts"])]
    if options.format == "json":
        told = {
            "data": spec.data,
            "as_of": spec.as_of,
            "rows": found.rows,
            "units": found.units,
            "dropped": found.dropped,
            "listed_not_found": found.not_found,
            "unlabelled": found.unlabelled,
            "labels_stripped": found.stripped,
            "unlisted_basis": dict(found.unlisted),
            "gates_judged": spec.gates,
            "declared_not_measured": dict(spec.declare),
        }
        told |= {"missing": list(found.missing), "problems": list(found.problems), "gates": rows}
        told |= {"breaches": {k: {"rows": b.rows, "first": list(b.places)} for k, b in found.breaches.items()}}
        sys.stdout.write(json.dumps(told, ensure_ascii=False, indent=1) + "\n")
    else:
        _print_check(spec, found, rows, dossier is not None)
    if found.problems:
        raise InputError(
            found.problems[0] + ("" if len(found.problems) == 1 else f" And {len(found.problems) - 1} more kinds.")
        )
    return FINDINGS if any(row["verdict"] != "pass" for row in rows) else 0


def _spec(options: argparse.Namespace) -> "StudySpec":
    """The study that the options describe: a TOML as it stands, or a table with what the options say of it."""
    from moo.studies.spec.study import StudySpec, load_spec

    if Path(options.data).suffix.lower() == ".toml":
        _refuse_beside_study(options)
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


def _refuse_beside_study(options: argparse.Namespace) -> None:
    """Raise at an option that a study's TOML answers itself."""
    names = (
        "text",
        "label",
        "user",
        "encoding",
        "separator",
        "na_values",
        "dossier",
        "withdrawals",
        "applies",
        "packs",
    )
    for name in names:
        if getattr(options, name, None):
            option = f"--{name.replace('_', '-')}"
            raise InputError(
                "{option} must not stand beside a study, {data}; write {name} = ... there.",
                option=option,
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


def _print_check(spec: "StudySpec", found: "DataCheck", rows: Sequence[Mapping[str, Any]], declared: bool) -> None:
    out.print(
        f"{spec.data} as of {spec.as_of}, for {spec.purpose}: {found.rows:,} rows of {found.units:,} units",
        highlight=False,
    )
    from moo.data.tables.columns import BASES
    from moo.studies.setup.legal_gates import WANTED, notes_of

    table = Table("rule", "what it asks", "verdict", "rows", "first", "article", box=None)
    colour = {"pass": "green", "fail": "bold red", "not assessed": "yellow"}
    for row in rows:
        broken = [found.breaches[k] for k in (key.removeprefix("data.") for key in row["facts"]) if k in found.breaches]
        count = f"{sum(b.rows for b in broken):,}" if broken else ""
        first = broken[0].places[0] if broken else ""
        verdict = f"[{colour[row['verdict']]}]{row['verdict']}[/]"
        table.add_row(row["rule"], row["title_en"], verdict, count, first, row["article"])
    out.print(table)
    missing = [name for name in found.missing if name != "tags" or "profiling" in spec.applies]
    if missing:
        out.print(
            f"Not assessed for want of columns: {', '.join(missing)}. An unknown gate is not met and stops a study: add the columns, "
            r"or state what holds for the whole table under \[declare] in the study's TOML.",
            highlight=False,
        )
        for name in missing:
            out.print(f"  {name}: {WANTED[name]}", highlight=False)
    for value, n in found.unlisted.items():
        say(out, escape(f"basis {value!r} is no lawful basis ({n:,} rows); choose {', '.join(BASES)}."))
    if not spec.gates:
        say(out, "[yellow]The study sets gates = false: it judges none of these, and none of them stops it.[/]")
    for note in notes_of({"declare": spec.declare}):
        say(out, f"[yellow]{escape(note)}.[/]")
    if found.dropped:
        out.print(f"The filter of a study would drop {found.dropped:,} of {found.rows:,} rows.", highlight=False)
    for n, what in (
        (found.unlabelled, "Rows without a label, which a study drops"),
        (found.stripped, "Labels with blanks around them, which a study takes away"),
        (found.not_found, "Listed users who were not found in the data"),
    ):
        if n:
            out.print(f"{what}: {n:,}.", highlight=False)
    if not declared:
        out.print("Gates of the organisation (G08 to G16) were not looked at: no dossier was given.", highlight=False)
    for problem in found.problems[1:]:
        say(out, f"[bold red]bad input[/] {problem}")


def annex(options: argparse.Namespace) -> int:
    """moo compliance annex"""
    from moo.data.legal.dossier import declared_facts, load_dossier
    from moo.report.annex.content import annex_of
    from moo.report.annex.html import read_annex, save_annex
    from moo.report.pdf import find_browser
    from moo.studies.results.audit_report import load_audits
    from moo.studies.results.result import load_result
    from moo.studies.setup.legal_gates import declaration

    result = load_result(options.folder)
    target = Path(options.to) if options.to else Path(options.folder) / "annex"
    earlier = options.previous or (target / "annex.json" if (target / "annex.json").is_file() else None)
    declared = None
    if options.dossier:
        space = result.spec.get("space", {})
        dossier = load_dossier(options.dossier)
        facts = declared_facts(dossier, as_of=date.today(), space=space)
        flags = result.about.get("declared", {}).get("flags", result.spec.get("applies", ()))
        declared = declaration(dossier, facts, flags=flags)
    made = annex_of(
        result,
        trial=options.trial,
        declared=declared,
        previous=read_annex(earlier) if earlier else None,
        audits=load_audits(options.folder),
    )
    written = save_annex(made, target, langs=options.lang, pdf=not options.no_pdf)
    for row in made["domains"]:
        out.print(
            f"{row['domain']}: {row['contribution']:.3f} = {row['weight']:.2f} x {row['score']:.2f}, {row['rule']} {row['title_en']}",
            highlight=False,
        )
    missing = [row["rule"] for row in made["rules"] if row["verdict"] == "not assessed"]
    say(out, f"Not assessed: {', '.join(missing) or 'nothing'}.")
    if not options.no_pdf and find_browser() is None:
        out.print("No PDF: no Chromium was found; install one or set MOO_BROWSER.", highlight=False)
    say(out, f"Written: {', '.join(map(str, written))}")
    return 0


def watch(options: argparse.Namespace) -> int:
    """moo compliance watch"""
    from moo.data.legal.gates import Terms
    from moo.studies.workflows.monitor import Watched
    from moo.studies.workflows.monitor import watch as look
    from moo.tables import Reading

    as_of = options.as_of or date.today()
    findings = look(
        Watched(
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
    )
    alarm = any(f.status == "attention" for f in findings)
    if options.format == "json":
        told = {
            "as_of": as_of.isoformat(),
            "status": "attention" if alarm else "ok",
            "findings": [vars(f) for f in findings],
        }
        sys.stdout.write(json.dumps(told, ensure_ascii=False, indent=1) + "\n")
    else:
        colour = {"ok": "green", "attention": "bold red", "not assessed": "yellow"}
        for f in findings:
            say(out, f"[{colour[f.status]}]{f.status:12}[/] {f.name}: {f.text}.")
    return FINDINGS if alarm else 0
