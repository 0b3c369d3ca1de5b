"""moo retrain: train chosen settings on the release users."""

import argparse
import json
from typing import TYPE_CHECKING

from moo.cli.arguments import MANY, Commands, add_folder, filled, whole
from moo.cli.console import out, say
from moo.cli.language import listed, spoken
from moo.cli.numbers import composed_text

if TYPE_CHECKING:
    from pathlib import Path


def add(commands: Commands) -> None:
    """Add the command."""
    parser = commands.command("retrain", retrain, "train chosen settings on the release users of proxy_then_retrain=M")
    add_folder(parser)
    parser.option(
        "--trials",
        whole(0, MANY),
        nargs="+",
        metavar="N",
        required=True,
        help="trials, all in one call; at most M of the policy",
    )
    parser.option("--to", filled, metavar="DIR", required=True, help="folder of what may leave")


def retrain(options: argparse.Namespace) -> int:
    """Train the settings and print what each model guarantees."""
    from moo.cli.live import fetching
    from moo.studies.results.result import load_result
    from moo.studies.workflows.retrain import retrain as train_again

    with fetching(out) as stage:
        written = train_again(options.out, options.trials, to=options.to, stage=stage)
    for folder in written:
        _print_card(folder)
    for trial in (t for t in load_result(options.out).complete if t.number in options.trials and t.blocking):
        say(
            out,
            "[bold red]Trial {number} breaks {limits}[/]: a limit of the study, not of the law.",
            number=trial.number,
            limits=listed(list(trial.blocking)),
        )
    return 0


def _print_card(folder: "Path") -> None:
    from moo.privacy.composed_epsilon import ComposedEpsilon

    card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
    everything = ComposedEpsilon.from_json(card["epsilon_with_other_studies"], delta=card["delta"])
    say(
        out,
        "{folder}: epsilon {epsilon:.2f} at delta {delta:g} per {unit}, all retrained together {together:.2f}, "
        "with other studies on these data {everything}; {capped}; claim {claim}",
        folder=folder,
        epsilon=card["epsilon"],
        delta=card["delta"],
        unit=spoken(card["unit_of_privacy"]),
        together=card["epsilon_of_all_retrained"],
        everything=composed_text(everything),
        capped=spoken(card["capped"]),
        claim=spoken(card["claim"]),
    )
