"""moo memorise: fine-tune a writer with planted secrets and measure what it keeps of them."""

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

from moo.cli.arguments import Commands, Parser, filled, number, whole
from moo.cli.console import headers, heading, out, say, show
from moo.cli.language import sentence, spoken, words
from moo.core.measurement import Measurement
from moo.core.personal_data_types import MAX_LEVEL

if TYPE_CHECKING:
    from moo.core.trial_record import TrialParams
    from moo.studies.results.memorisation_report import MemorisationReport
    from moo.studies.spec.study import StudySpec


def add(commands: Commands) -> None:
    """Add the command."""
    parser = commands.command(
        "memorise",
        memorise,
        "fine-tune a writer with planted secrets, with and without DP, and measure what it keeps of them",
    )
    parser.add_argument(
        "study",
        metavar="STUDY",
        nargs="?",
        default="service-reply",
        help="study of task generation (default service-reply)",
    )
    parser.option("--out", filled, metavar="DIR", help="folder of the reports (default moo-runs/NAME-memorisation)")
    parser.option(
        "--epsilon",
        number(0, math.inf, above=True),
        nargs="+",
        default=[math.inf, 8.0],
        metavar="E",
        help="claimed epsilons, one training each (default inf 8)",
    )
    _add_secrets(parser)
    _add_training(parser)
    parser.option(
        "--confidence",
        number(0.5, 0.999999),
        default=0.95,
        metavar="C",
        help="confidence of the upper bound (default 0.95)",
    )
    parser.add_argument("--each", action="store_true", help="show exposure and rank of each planted secret too")
    parser.add_argument("--format", choices=("table", "json"), default="table", help="format (default table)")


def _add_secrets(parser: Parser) -> None:
    parser.option(
        "--canaries", whole(2, 100_000), default=32, metavar="M", help="secrets planted, as many not (default 32)"
    )
    parser.option("--repeats", whole(1, 1000), default=1, metavar="R", help="texts that hold a secret (default 1)")
    parser.option("--digits", whole(1, 5), default=3, metavar="D", help="digits of a secret (default 3)")


def _add_training(parser: Parser) -> None:
    parser.option("--level", whole(0, MAX_LEVEL), default=0, metavar="L", help="masking level of the texts (default 0)")
    parser.option("--records", whole(1, 100_000_000), metavar="N", help="number of texts (default: the study's)")
    parser.option("--steps", whole(1, 100_000), metavar="S", help="optimizer steps (default: the study's)")
    parser.option(
        "--rate", number(0, 1000, above=True), metavar="R", help="learning rate (default: the middle of the study's)"
    )


def memorise(options: argparse.Namespace) -> int:
    """Train once an epsilon and print what was memorised."""
    from moo.studies.spec.study import load_spec

    spec = load_spec(options.study)
    from moo.cli.live import fetching
    from moo.studies.workflows.memorise import memorise as train_and_ask

    if options.records is not None:
        spec = dataclasses.replace(spec, n_records=options.records)
    if options.steps is not None:
        spec = dataclasses.replace(spec, training=dataclasses.replace(spec.training, steps=options.steps))
    folder = Path(options.out) if options.out else Path("moo-runs") / f"{spec.name}-memorisation"
    with fetching(Console(stderr=True) if options.format == "json" else out) as stage:
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


def _claimed(report: "MemorisationReport") -> str:
    if math.isinf(report.claimed_epsilon):
        return words("no DP")
    return words("epsilon {epsilon:.2f}", epsilon=report.claimed_epsilon)


def _print_each(console: Console, reports: "Sequence[MemorisationReport]") -> None:
    """Print every planted secret, the most exposed first."""
    for r in reports:
        table = Table(*headers("prompt", "secret", "rank", "exposure, bits", "said"), box=None, pad_edge=False)
        show(console, f"\n[bold]{_claimed(r)}[/]")
        for c in sorted(r.canaries, key=lambda c: -c.exposure):
            said = words("yes") if c.emitted else ""
            table.add_row(c.prompt, c.secret, str(c.rank), f"{c.exposure:.2f}", said)
        console.print(table)


def _print(console: Console, reports: "Sequence[MemorisationReport]") -> None:
    """Print one column a training: the claim, the memorised secrets, the loss on other texts."""
    first = reports[0]
    heading(
        console,
        "{study}: {model}, {texts} texts, {secrets} planted secrets in {repeats} each, {candidates} of the form",
        study=first.study,
        model=first.model,
        texts=first.texts,
        secrets=len(first.canaries),
        repeats=first.repeats,
        candidates=first.candidates,
    )
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    for r in reports:
        table.add_column(_claimed(r), justify="right")
    for name, cells in _rows(reports).items():
        table.add_row(name, *cells)
    console.print(table)
    for r in reports:
        if r.repeats > 1 and math.isfinite(r.claimed_epsilon):
            say(
                console,
                "{repeats} texts hold each secret: for it the claim of {claimed:.2f} is epsilon {epsilon:.1f}, "
                "delta {delta:.1g} (group privacy).",
                repeats=r.repeats,
                claimed=r.claimed_epsilon,
                epsilon=r.secret_epsilon,
                delta=r.secret_delta,
            )
    if reports[-1].capped:
        show(console, sentence(spoken(reports[-1].capped)))
    say(
        console,
        "Nothing learnt is an exposure of 1.44 bits, not 0. Secrets represent what masking misses. Rule S07 reads the "
        "upper bound: 300 planted and none said score 0, fewer cannot.",
    )


def _rows(reports: "Sequence[MemorisationReport]") -> dict[str, list[str]]:
    """Return the table: name of a row -> one cell a training."""
    first = reports[0]
    said = [words("{n} of {total}", n=r.emission.emitted, total=r.emission.canaries) for r in reports]
    control = [words("{n} of {total}", n=r.control_emitted, total=r.emission.canaries) for r in reports]
    bound = words("rate, upper bound at {confidence:.0%}", confidence=first.emission.confidence)
    return {
        words("claim"): [spoken(r.claim) for r in reports],
        words("exposure of the planted, bits"): [_pair(r.exposure) for r in reports],
        words("exposure of as many that were not planted"): [_pair(r.control) for r in reports],
        words("difference"): [f"{r.learnt.value:+.2f} ± {r.learnt.stderr:.2f}" for r in reports],
        words("largest exposure (rank)"): [f"{r.most_exposed.exposure:.2f} ({r.most_exposed.rank})" for r in reports],
        words("said word for word"): said,
        bound: [f"{r.emission.rate:.3f}, {r.emission.upper:.3f}" for r in reports],
        words("rule S07, verbatim emission (PIPL 9), 0 to 1"): [f"{r.emission_score:.2f}" for r in reports],
        words("not planted, said"): control,
        words("loss on held-out texts, nats a token"): [_pair(r.loss, 3) for r in reports],
        words("loss of the base model"): [_pair(r.base_loss, 3) for r in reports],
        words("steps, seconds"): [f"{r.steps}, {r.seconds:.0f}" for r in reports],
        words("ledger entry"): [r.ledger.partition(":")[0] for r in reports],
    }


def _pair(m: Measurement, digits: int = 2) -> str:
    return f"{m.value:.{digits}f} ± {m.stderr:.{digits}f}"
