"""moo attributes: inference of each attribute of the users from a trial's answers."""

import argparse
import dataclasses
import math
from pathlib import Path

from rich.table import Table

from moo.cli.arguments import MANY, Commands, add_folder, whole
from moo.cli.commands.risk.attacks import trial_name
from moo.cli.console import headers, heading, out, say
from moo.cli.language import spoken
from moo.core.trial_record import STATUS_QUO_TRIAL


def add(commands: Commands) -> None:
    """Add the command."""
    parser = commands.command("attributes", attributes, "show what a trial's answers reveal of each user attribute")
    add_folder(parser)
    parser.option("--trial", whole(0, MANY), metavar="N", help="number of the trial (default: the status quo)")
    parser.option(
        "--permutations", whole(1, MANY), default=99, metavar="N", help="permutations of each null (default 99)"
    )


def attributes(options: argparse.Namespace) -> int:
    """Print the leakage of every attribute, alone and with the others known."""
    from moo.cli.numbers import measured
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
    names = headers("attribute", "known", "H(P), nats", "imputed", "attacked", "leakage", "members - others", "p")
    table = Table(*names, box=None)
    for name, evidence in every.items():
        others = tuple(n for n in every if n != name)
        for known in ((), others) if others else ((),):
            risk = attribute_risk(
                dataclasses.replace(evidence, auxiliary=columns_of(codes, known)), n_permutations=options.permutations
            )
            numbers = [f"{v:.3f}" if not math.isnan(v) else "" for v in (risk.entropy, risk.imputed, risk.attacked)]
            p = "" if math.isnan(risk.p_value) else f"{risk.p_value:.2f}"
            table.add_row(name, ", ".join(known) or "-", *numbers, measured(risk.leakage), measured(risk.training), p)
            if risk.leakage.note:
                say(out, "Note: {note}.", note=spoken(risk.leakage.note))
    heading(out, "{study}, {trial}: every attribute", study=result.name, trial=trial_name(number))
    out.print(table)
    say(
        out,
        "The attribute named before the study counts in its risk; the largest of a table like this is too large. "
        "± is one standard error. The attacker is taken to know the attributes under known.",
    )
    return 0
