"""moo audit: the command, and what the terminal shows of it."""

import argparse
import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from moo.cli.commands.compliance import FINDINGS
from moo.cli.commands.studies import out
from moo.cli.console import heading, say
from moo.core.errors import InputError

if TYPE_CHECKING:
    from moo.studies.workflows.audit import AuditReport


def audit(options: argparse.Namespace) -> int:
    """moo audit"""
    from moo.cli.tables import fetching
    from moo.core.trial_record import TrialParams
    from moo.report import renew_reports
    from moo.studies.spec.study import load_spec
    from moo.studies.workflows.audit import audit_configuration, audit_trial

    asked = {"canaries": options.canaries, "kind": options.kind, "confidence": options.confidence}
    quiet = Console(stderr=True) if options.format == "json" else out
    with fetching(quiet) as stage:
        if options.trial is not None:
            if options.out is None or options.study is not None:
                raise InputError(
                    "--trial N needs --out DIR, the folder of a study that ran, and no STUDY beside it; it has its own."
                )
            found = audit_trial(options.out, options.trial, stage=stage, **asked)
            renew_reports(options.out)
        else:
            if options.study is None:
                raise InputError("a STUDY, or --out with --trial, must be given, but neither was.")
            spec = load_spec(options.study)
            params = TrialParams(
                target_epsilon=options.epsilon,
                masking_level=spec.space.masking_level[0],
                lora_rank=2 ** spec.space.lora_rank_log2[0],
                learning_rate=(spec.space.learning_rate[0] * spec.space.learning_rate[1]) ** 0.5,
                adapted_layers=options.depth,
                batch_halvings=options.halvings,
            )
            folder = options.out or Path("moo-runs") / f"{spec.name}-audit"
            found = audit_configuration(spec, params, folder=folder, stage=stage, **asked)
    if options.format == "json":
        sys.stdout.write(json.dumps(found.to_json(), ensure_ascii=False, indent=1) + "\n")
    else:
        _print(out, found)
    return FINDINGS if found.alarms else 0


def _print(console: Console, found: "AuditReport") -> None:
    """What was guessed, the lower bounds beside the claim, and what contradicts it."""
    heading(console, f"{found.study}: {found.guessed[0].canaries} {found.kind} canaries, engine {found.engine}")
    table = Table(box=None, pad_edge=False)
    for name in ("guesses", "right", "share"):
        table.add_column(name, justify="right")
    for g in found.guessed:
        table.add_row(str(g.guesses), str(g.correct), f"{g.correct / g.guesses:.3f}")
    console.print(table)
    claimed = "none" if math.isinf(found.claimed_epsilon) else f"{found.claimed_epsilon:.2f} at delta {found.delta:g}"
    lines = [
        f"claimed epsilon {claimed}; DP claim {found.claim}" + (f"; {found.capped}" if found.capped else ""),
        f"lower bound at {found.confidence:.0%}: {found.epsilon_low:.2f} among trainings of the same sampling and steps, "
        f"{found.epsilon_low_dp:.2f} from (epsilon, delta)-DP alone",
        f"such guesses where the claim is true: probability at most {found.p_value:.2g}; such batches under Poisson sampling: "
        f"{found.sampler_p_value:.2g}",
        f"{found.steps} steps, {found.seconds:.0f} s, charged in the ledger up to entry {found.ledger.partition(':')[0]}",
    ]
    for line in lines:
        say(console, line)
    for alarm in found.alarms:
        say(console, f"[bold red]Alarm: {alarm}.[/]")
    if not found.alarms:
        say(console, "[bold]Nothing contradicts the claim[/]; an audit can refute a claim, never prove one.")
