"""moo attacks: every membership attack on a trial, side by side."""

import argparse
from pathlib import Path
from typing import cast

from rich.table import Table

from moo.cli.arguments import MANY, Commands, add_folder, whole
from moo.cli.console import headers, heading, out, say
from moo.cli.language import spoken, words
from moo.core.messages import Message
from moo.core.trial_record import STATUS_QUO_TRIAL


def add(commands: Commands) -> None:
    """Add the command."""
    parser = commands.command("attacks", attacks, "run every membership attack on a trial that ran, side by side")
    add_folder(parser)
    parser.option("--trial", whole(0, MANY), metavar="N", help="number of the trial (default: the status quo)")


def trial_name(number: int) -> Message:
    """Return the name of a trial within a sentence."""
    return Message("the status quo") if number == STATUS_QUO_TRIAL else Message("trial {number}", number=number)


def attacks(options: argparse.Namespace) -> int:
    """Print AUC and TPR of every attack."""
    from moo.cli.numbers import measured, plus_minus
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
    table = Table(
        *headers("attack", "AUC by record", "AUC by user"),
        words("TPR at 1 % FPR by {level}", level=spoken(level)),
        box=None,
        pad_edge=False,
    )
    usable = possible(evidence)
    for name in ATTACKS:
        if name not in usable:
            table.add_row(name, words("not assessed"), "", "")
            continue
        mark = words("[bold]{name}[/] (the study's)", name=name) if name == result.spec.get("attack") else name
        by_record, by_user = auc(evidence, attack=name), auc(evidence, attack=name, level="user")
        rate = measured(tpr(evidence, attack=name, level=level))
        table.add_row(mark, plus_minus(by_record), plus_minus(by_user), rate)
    heading(out, "{study}, {trial}: every attack", study=result.name, trial=trial_name(number))
    out.print(table)
    say(
        out,
        "The attack named before the study counts; the largest of a table like this is too large. ± is one standard "
        "error.",
    )
    return 0
