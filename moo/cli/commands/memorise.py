"""moo memorise: the command, and what the terminal shows of it."""

import argparse
import dataclasses
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from moo.cli.commands.studies import out
from moo.cli.console import heading, say

if TYPE_CHECKING:
    from moo.core.trial_record import TrialParams
    from moo.studies.results.memorisation_report import MemorisationReport
    from moo.studies.spec.study import StudySpec


def memorise(options: argparse.Namespace) -> int:
    """moo memorise"""
    from moo.cli.tables import fetching
    from moo.studies.spec.study import load_spec
    from moo.studies.workflows.memorise import memorise as train_and_ask

    spec = load_spec(options.study)
    if options.records is not None:
        spec = dataclasses.replace(spec, n_records=options.records)
    if options.steps is not None:
        spec = dataclasses.replace(spec, training=dataclasses.replace(spec.training, steps=options.steps))
    folder = Path(options.out) if options.out else Path("moo-runs") / f"{spec.name}-memorisation"
    quiet = Console(stderr=True) if options.format == "json" else out
    with fetching(quiet) as stage:
        reports = [
            train_and_ask(
                spec,
                _params(spec, epsilon, options),
                folder=folder,
                canaries=options.canaries,
                repeats=options.repeats,
                digits=options.digits,
                confidence=options.confidence,
                stage=stage,
            )
            for epsilon in options.epsilon
        ]
    if options.format == "json":
        sys.stdout.write(json.dumps([r.to_json() for r in reports], ensure_ascii=False, indent=1) + "\n")
    else:
        if options.each:
            _print_each(out, reports)
        _print(out, reports)
    return 0


def _params(spec: "StudySpec", epsilon: float, options: argparse.Namespace) -> "TrialParams":
    from moo.core.trial_record import TrialParams

    return TrialParams(
        target_epsilon=epsilon,
        masking_level=options.level,
        lora_rank=2 ** spec.space.lora_rank_log2[1],
        learning_rate=options.rate or (spec.space.learning_rate[0] * spec.space.learning_rate[1]) ** 0.5,
        adapted_layers=spec.space.adapted_layers[1],
    )


def _print_each(console: Console, reports: "Sequence[MemorisationReport]") -> None:
    """Every planted secret, the most exposed first."""
    for r in reports:
        table = Table("prompt", "secret", "rank", "exposure, bits", "said", box=None, pad_edge=False)
        heading(console, "no DP" if math.isinf(r.claimed_epsilon) else f"epsilon {r.claimed_epsilon:.2f}")
        for c in sorted(r.canaries, key=lambda c: -c.exposure):
            table.add_row(c.prompt, c.secret, str(c.rank), f"{c.exposure:.2f}", "yes" if c.emitted else "")
        console.print(table)


def _print(console: Console, reports: "Sequence[MemorisationReport]") -> None:
    """One column a training: the claim, what was learnt of the secrets, and what was learnt of the texts."""
    first = reports[0]
    heading(
        console,
        f"{first.study}: {first.model}, {first.texts} texts, {len(first.canaries)} planted secrets in {first.repeats} each, "
        f"{first.candidates} of the form",
    )
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    for r in reports:
        bare = math.isinf(r.claimed_epsilon)
        table.add_column("no DP" if bare else f"epsilon {r.claimed_epsilon:.2f}", justify="right")
    rows = {
        "claim": [r.claim for r in reports],
        "exposure of the planted, bits": [f"{r.exposure.value:.2f} ± {r.exposure.stderr:.2f}" for r in reports],
        "of as many that were not planted": [f"{r.control.value:.2f} ± {r.control.stderr:.2f}" for r in reports],
        "difference": [f"{r.learnt.value:+.2f} ± {r.learnt.stderr:.2f}" for r in reports],
        "largest exposure (rank)": [f"{r.most_exposed.exposure:.2f} ({r.most_exposed.rank})" for r in reports],
        "said word for word": [f"{r.emission.emitted} of {r.emission.canaries}" for r in reports],
        f"rate, upper bound at {first.emission.confidence:.0%}": [
            f"{r.emission.rate:.3f}, {r.emission.upper:.3f}" for r in reports
        ],
        "rule S07, verbatim emission (PIPL 9), 0 to 1": [f"{r.emission_score:.2f}" for r in reports],
        "not planted, said": [f"{r.control_emitted} of {r.emission.canaries}" for r in reports],
        "loss on held-out texts, nats a token": [f"{r.loss.value:.3f} ± {r.loss.stderr:.3f}" for r in reports],
        "of the base model": [f"{r.base_loss.value:.3f} ± {r.base_loss.stderr:.3f}" for r in reports],
        "steps, seconds": [f"{r.steps}, {r.seconds:.0f}" for r in reports],
        "ledger entry": [r.ledger.partition(":")[0] for r in reports],
    }
    for name, cells in rows.items():
        table.add_row(name, *cells)
    console.print(table)
    for r in reports:
        if r.repeats > 1 and math.isfinite(r.claimed_epsilon):
            say(
                console,
                f"A secret stands in {r.repeats} texts: for it the claim of {r.claimed_epsilon:.2f} is epsilon "
                f"{r.secret_epsilon:.1f}, "
                f"delta {r.secret_delta:.1g} (group privacy).",
            )
    if reports[-1].capped:
        say(console, f"{reports[-1].capped.capitalize()}.")
    say(
        console,
        "Nothing learnt is an exposure of 1.44 bits, not 0. Secrets stand for what masking misses. Rule S07 reads the upper "
        "bound: 300 planted and none said score 0, fewer cannot.",
    )
