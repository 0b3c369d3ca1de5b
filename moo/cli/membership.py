"""Commands and lines about membership risk: confirming a recommendation, every attack side by side."""

import argparse
import dataclasses
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from moo.cli.terminal import heading, say
from moo.records import ACCURACY, PENALTY, REFERENCE, RISK, Measurement

if TYPE_CHECKING:
    from moo.studies.result import StudyResult

out = Console() if sys.stdout.isatty() else Console(width=120)


def confirm(options: argparse.Namespace) -> int:
    """moo confirm"""
    from moo.cli import view
    from moo.report import save_report
    from moo.studies.confirm import confirm as train_again

    with view.fetching(out) as stage:
        result = train_again(options.out, n_shadows=options.shadows, stage=stage)
    result.save(options.out)
    written = save_report(result, options.out, lang=options.lang)
    print_refined(out, result)
    view.print_result(out, result)
    say(out, f"\nWritten: {options.out}/front.csv, front.json, {written.name}")
    return 0


def print_refined(console: Console, result: "StudyResult") -> None:
    """The front's points as the search told them and as they measured when trained anew."""
    told = {t.number: t for t in result.trials}
    table = Table(
        "trial",
        *(f"{name}: {when}" for name in ("accuracy", "risk") for when in ("search", "anew")),
        "limits",
        box=None,
        pad_edge=False,
    )
    for record in result.refined:
        cells = [_pm(t.objectives[name]) for name in (ACCURACY, RISK) for t in (told[record.number], record)]
        verdict = "[green]held[/]" if record.feasible else f"[yellow]broken: {', '.join(record.blocking)}[/]"
        table.add_row(str(record.number), *cells, verdict)
    heading(console, "The front trained anew, more shadows each")
    console.print(table)


def print_confirmation(console: Console, result: "StudyResult") -> None:
    """The number that the recommendation stands on, or that there is none yet."""
    from moo.report.attribute import by_attribute

    if result.confirmed is None:
        if not result.refined and result.about.get("policy", {}).get("name") in ("internal", "proxy_then_retrain"):
            say(
                console,
                "Not confirmed: the best of many noisy numbers is too good. `moo confirm` trains the front anew and the "
                "recommendation on a fresh split.",
            )
        return
    record = result.confirmed
    verdict = (
        "[green]Confirmed[/]"
        if record.feasible
        else f"[bold red]Not confirmed[/], it breaks {', '.join(record.blocking)}"
    )
    if by_attribute(record):
        say(console, f"Its risk is the leakage of {result.spec['attribute']}, above the membership advantage.")
    p = record.extras.get("permutation_p")
    chance = "" if p is None else f" (permutation p {p.value:.3f})"
    say(
        console,
        f"{verdict} on a fresh split: accuracy {_pm(record.objectives[ACCURACY])}, "
        f"membership risk {_pm(record.objectives[RISK])}{chance}, penalty {_pm(record.objectives[PENALTY])}; "
        f"most exposed tenth of the users {told(record.extras.get('worst_decile'))}.",
    )


def print_attribute(console: Console, result: "StudyResult") -> None:
    """What the status quo's and the front's answers tell of the study's attribute; nothing where it asks for none."""
    from moo.report.attribute import attribute_trials, by_attribute

    records = attribute_trials(result)
    if not records:
        return
    table = Table(
        "trial",
        "leakage",
        "p",
        "bits of min-entropy",
        "members - others",
        "advantage",
        "risk is",
        box=None,
        pad_edge=False,
    )
    for record in records:
        e = record.extras
        table.add_row(
            "status quo" if record.number == REFERENCE else str(record.number),
            told(e["attribute_leakage"]),
            "" if math.isnan(e["attribute_p"].value) else f"{e['attribute_p'].value:.2f}",
            told(e["attribute_min_entropy"]),
            told(e["attribute_training"]),
            told(e["advantage"]),
            "the attribute's" if by_attribute(record) else "membership's",
        )
    known = ", ".join(result.spec.get("attribute_auxiliary", ())) or "the base rate alone"
    heading(console, f"What the answers tell of {result.spec['attribute']}, beyond imputing it from {known}")
    console.print(table)
    for note in sorted({r.extras["attribute_leakage"].note for r in records} - {""}):
        say(console, f"Note: {note}.")


def attacks(options: argparse.Namespace) -> int:
    """moo attacks"""
    from moo.objectives.membership.attacks import ATTACKS
    from moo.objectives.membership.choice import possible
    from moo.objectives.membership.risk import auc, tpr
    from moo.studies.keep import load_membership
    from moo.studies.result import load_result

    result = load_result(options.out)
    number = REFERENCE if options.trial is None else options.trial
    evidence = load_membership(Path(options.out), number)
    table = Table("attack", "AUC by record", "AUC by user", "TPR at 1 % FPR", box=None, pad_edge=False)
    usable = possible(evidence)
    for name in ATTACKS:
        if name not in usable:
            table.add_row(name, "not assessed", "", "")
            continue
        mark = f"[bold]{name}[/] (the study's)" if name == result.spec.get("attack") else name
        by_record, by_user = auc(evidence, attack=name), auc(evidence, attack=name, level="user")
        table.add_row(mark, _pm(by_record), _pm(by_user), told(tpr(evidence, attack=name)))
    heading(out, f"{result.name}, {'the status quo' if number == REFERENCE else f'trial {number}'}: every attack")
    out.print(table)
    say(
        out,
        "The attack named before the study counts; the largest of a table like this is too large. ± is one standard error.",
    )
    return 0


def attributes(options: argparse.Namespace) -> int:
    """moo attributes"""
    from moo.objectives.attribute import attribute_risk
    from moo.studies.gathered import columns_of
    from moo.studies.keep import load_attributes
    from moo.studies.result import load_result

    result = load_result(options.out)
    number = REFERENCE if options.trial is None else options.trial
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
    heading(out, f"{result.name}, {'the status quo' if number == REFERENCE else f'trial {number}'}: every attribute")
    out.print(table)
    say(
        out,
        "The attribute named before the study counts in its risk; the largest of a table like this is too large. ± is one "
        "standard error. The attacker is taken to know what stands under known.",
    )
    return 0


def told(m: Measurement | None) -> str:
    """A number with its error, or that it was not assessed."""
    return "not assessed" if m is None or math.isnan(m.value) else _pm(dataclasses.replace(m, note=""))


def _pm(m: Measurement) -> str:
    return f"{m.value:.3f} ± {m.stderr:.3f}" if m.stderr else f"{m.value:.3f}"
