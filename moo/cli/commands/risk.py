"""Commands about risk: confirming a recommendation, every attack and every attribute side by side."""

import argparse
import dataclasses
import math
import sys
from pathlib import Path
from typing import cast

from rich.console import Console
from rich.table import Table

from moo.cli.console import heading, say
from moo.core.trial_record import STATUS_QUO_TRIAL

out = Console() if sys.stdout.isatty() else Console(width=120)


def confirm(options: argparse.Namespace) -> int:
    """moo confirm"""
    from moo.cli import risk_lines, tables
    from moo.report import renew_reports, save_report
    from moo.studies.workflows.confirm import confirm as train_again

    with tables.fetching(out) as stage:
        result = train_again(options.out, n_shadows=options.shadows, stage=stage)
    result.save(options.out)
    written = save_report(result, options.out, lang=options.lang)
    renew_reports(options.out, but=options.lang)
    risk_lines.print_refined(out, result)
    tables.print_result(out, result)
    say(out, f"\nWritten: {options.out}/front.csv, front.json, {written.name}")
    return 0


def attacks(options: argparse.Namespace) -> int:
    """moo attacks"""
    from moo.cli.risk_lines import plus_minus, told
    from moo.objectives.membership.attacks.registry import ATTACKS
    from moo.objectives.membership.choice import possible
    from moo.objectives.membership.risk import Level, auc, tpr
    from moo.studies.results.result import load_result
    from moo.studies.search.select_one import check_may_show
    from moo.studies.trial.evidence_files import load_membership

    result = load_result(options.out)
    check_may_show(result)
    number = STATUS_QUO_TRIAL if options.trial is None else options.trial
    evidence = load_membership(Path(options.out), number)
    level = cast(Level, result.spec.get("attack_level", "record"))
    table = Table("attack", "AUC by record", "AUC by user", f"TPR at 1 % FPR by {level}", box=None, pad_edge=False)
    usable = possible(evidence)
    for name in ATTACKS:
        if name not in usable:
            table.add_row(name, "not assessed", "", "")
            continue
        mark = f"[bold]{name}[/] (the study's)" if name == result.spec.get("attack") else name
        by_record, by_user = auc(evidence, attack=name), auc(evidence, attack=name, level="user")
        table.add_row(mark, plus_minus(by_record), plus_minus(by_user), told(tpr(evidence, attack=name, level=level)))
    heading(
        out, f"{result.name}, {'the status quo' if number == STATUS_QUO_TRIAL else f'trial {number}'}: every attack"
    )
    out.print(table)
    say(
        out,
        "The attack named before the study counts; the largest of a table like this is too large. ± is one standard error.",
    )
    return 0


def attributes(options: argparse.Namespace) -> int:
    """moo attributes"""
    from moo.cli.risk_lines import told
    from moo.objectives.attribute.risk import attribute_risk
    from moo.studies.results.result import load_result
    from moo.studies.search.select_one import check_may_show
    from moo.studies.trial.evidence import columns_of
    from moo.studies.trial.evidence_files import load_attributes

    result = load_result(options.out)
    check_may_show(result)
    number = STATUS_QUO_TRIAL if options.trial is None else options.trial
    every = load_attributes(Path(options.out), number)
    codes = {name: evidence.attribute for name, evidence in every.items()}
    table = Table(
        "attribute", "known", "H(P), nats", "imputed", "attacked", "leakage", "members - others", "p", box=None
    )
    for name, evidence in every.items():
        others = tuple(n for n in every if n != name)
        for known in ((), others) if others else ((),):
            risk = attribute_risk(
                dataclasses.replace(evidence, auxiliary=columns_of(codes, known)), n_permutations=options.permutations
            )
            numbers = [f"{v:.3f}" if not math.isnan(v) else "" for v in (risk.entropy, risk.imputed, risk.attacked)]
            p = "" if math.isnan(risk.p_value) else f"{risk.p_value:.2f}"
            table.add_row(name, ", ".join(known) or "-", *numbers, told(risk.leakage), told(risk.training), p)
            if risk.leakage.note:
                say(out, f"Note: {risk.leakage.note}.")
    heading(
        out, f"{result.name}, {'the status quo' if number == STATUS_QUO_TRIAL else f'trial {number}'}: every attribute"
    )
    out.print(table)
    say(
        out,
        "The attribute named before the study counts in its risk; the largest of a table like this is too large. ± is one "
        "standard error. The attacker is taken to know what stands under known.",
    )
    return 0
