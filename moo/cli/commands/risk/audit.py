"""moo audit: train with planted canaries and compare the guesses with the claimed epsilon."""

import argparse
import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from moo.cli.arguments import MANY, Commands, Parser, filled, number, whole
from moo.cli.console import headers, heading, out, say
from moo.cli.exit_status import FINDINGS
from moo.cli.language import spoken, words
from moo.core.errors import InputError

if TYPE_CHECKING:
    from moo.studies.workflows.audit import AuditReport


def add(commands: Commands) -> None:
    """Add the command."""
    parser = commands.command(
        "audit", audit, "train with planted canaries and see whether the leakage fits the claimed epsilon"
    )
    parser.add_argument("study", metavar="STUDY", nargs="?", help="name of a shipped study, or path to a TOML file")
    parser.option(
        "--out",
        filled,
        metavar="DIR",
        help="folder of a study that ran, or for the cache (default moo-runs/NAME-audit)",
    )
    parser.option(
        "--trial", whole(0, MANY), metavar="N", help="audit the configuration of this trial of the study in --out"
    )
    _add_configuration(parser)
    parser.option(
        "--canaries", whole(2, MANY), default=1000, metavar="M", help="canaries, planted by a fair coin (default 1000)"
    )
    parser.add_argument(
        "--kind", choices=("dirac", "text"), default="dirac", help="dirac (white box, default) or text (black box)"
    )
    parser.option(
        "--confidence",
        number(0.5, 0.999999),
        default=0.95,
        metavar="C",
        help="confidence of the lower bounds (default 0.95)",
    )
    parser.add_argument("--format", choices=("table", "json"), default="table", help="format (default table)")


def _add_configuration(parser: Parser) -> None:
    parser.option(
        "--epsilon",
        number(0, math.inf, above=True),
        default=1.0,
        metavar="E",
        help="claimed epsilon of STUDY (default 1; inf = no DP)",
    )
    parser.option("--depth", whole(0, 1024), default=0, metavar="L", help="adapted layers of STUDY (default 0)")
    parser.option(
        "--halvings", whole(0, 12), default=0, metavar="H", help="halvings of STUDY's expected batch (default 0)"
    )


def audit(options: argparse.Namespace) -> int:
    """Audit a trial or a configuration; exit with FINDINGS if the claim is refuted."""
    from moo.cli.live import fetching

    with fetching(Console(stderr=True) if options.format == "json" else out) as stage:
        report = _trial(options, stage) if options.trial is not None else _configuration(options, stage)
    if options.format == "json":
        sys.stdout.write(json.dumps(report.to_json(), ensure_ascii=False, indent=1) + "\n")
    else:
        _print(out, report)
    return FINDINGS if report.alarms else 0


def _settings(options: argparse.Namespace) -> dict[str, Any]:
    return {"canaries": options.canaries, "kind": options.kind, "confidence": options.confidence}


def _trial(options: argparse.Namespace, stage: Callable[[str, int, int], None]) -> "AuditReport":
    from moo.report import renew_reports
    from moo.studies.workflows.audit import audit_trial

    if options.out is None or options.study is not None:
        raise InputError("--trial N needs --out DIR, the folder of a study that ran, and no STUDY; leave STUDY out.")
    report = audit_trial(options.out, options.trial, stage=stage, **_settings(options))
    renew_reports(options.out)
    return report


def _configuration(options: argparse.Namespace, stage: Callable[[str, int, int], None]) -> "AuditReport":
    if options.study is None:
        raise InputError("a STUDY, or --out with --trial, must be given, but neither was.")
    from moo.core.trial_record import TrialParams
    from moo.studies.spec.study import load_spec

    spec = load_spec(options.study)
    from moo.studies.workflows.audit import audit_configuration

    params = TrialParams(
        target_epsilon=options.epsilon,
        masking_level=spec.space.masking_level[0],
        lora_rank=2 ** spec.space.lora_rank_log2[0],
        learning_rate=(spec.space.learning_rate[0] * spec.space.learning_rate[1]) ** 0.5,
        adapted_layers=options.depth,
        batch_halvings=options.halvings,
    )
    folder = options.out or Path("moo-runs") / f"{spec.name}-audit"
    return audit_configuration(spec, params, folder=folder, stage=stage, **_settings(options))


def _print(console: Console, report: "AuditReport") -> None:
    """Print the guesses, the lower bounds next to the claim, and what contradicts it."""
    heading(
        console,
        "{study}: {n} {kind} canaries, engine {engine}",
        study=report.study,
        n=report.guessed[0].canaries,
        kind=report.kind,
        engine=report.engine,
    )
    table = Table(box=None, pad_edge=False)
    for name in headers("guesses", "right", "share"):
        table.add_column(name, justify="right")
    for g in report.guessed:
        table.add_row(str(g.guesses), str(g.correct), f"{g.correct / g.guesses:.3f}")
    console.print(table)
    _print_bounds(console, report)
    for alarm in report.alarms:
        say(console, "[bold red]Alarm: {alarm}.[/]", alarm=spoken(alarm))
    if not report.alarms:
        say(console, "[bold]Nothing contradicts the claim[/]; an audit can refute a claim, never prove one.")


def _print_bounds(console: Console, report: "AuditReport") -> None:
    if math.isinf(report.claimed_epsilon):
        claimed = words("none")
    else:
        claimed = words("{epsilon:.2f} at delta {delta:g}", epsilon=report.claimed_epsilon, delta=report.delta)
    say(
        console,
        "claimed epsilon {claimed}; DP claim {claim}{capped}",
        claimed=claimed,
        claim=spoken(report.claim),
        capped=words("; {text}", text=spoken(report.capped)) if report.capped else "",
    )
    say(
        console,
        "lower bound at {confidence:.0%}: {low:.2f} among trainings of the same sampling and steps, {low_dp:.2f} from "
        "(epsilon, delta)-DP alone",
        confidence=report.confidence,
        low=report.epsilon_low,
        low_dp=report.epsilon_low_dp,
    )
    say(
        console,
        "such guesses where the claim is true: probability at most {p:.2g}; such batches under Poisson sampling: "
        "{sampler_p:.2g}",
        p=report.p_value,
        sampler_p=report.sampler_p_value,
    )
    say(
        console,
        "{steps} steps, {seconds:.0f} s, charged in the ledger up to entry {entry}",
        steps=report.steps,
        seconds=report.seconds,
        entry=report.ledger.partition(":")[0],
    )
