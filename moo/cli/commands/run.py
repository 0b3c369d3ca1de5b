"""moo run: search a study's privacy settings."""

import argparse
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from moo.cli.arguments import (
    MANY,
    SEEDS,
    Commands,
    Parser,
    add_storage,
    add_unmatched,
    add_weights,
    filled,
    fit,
    number,
    whole,
)
from moo.cli.console import out, say
from moo.cli.runtime_options import add_machine
from moo.core.errors import PolicyError
from moo.core.messages import LANGUAGES
from moo.core.trial_record import SAMPLERS
from moo.privacy.release_policy import Policy

if TYPE_CHECKING:
    from moo.studies.spec.study import StudySpec


def add(commands: Commands) -> None:
    """Add the command."""
    parser = commands.command(
        "run", run, "search a study's privacy settings; the same command goes on where it stopped"
    )
    parser.add_argument("study", metavar="STUDY", help="name of a shipped study, or path to a TOML file")
    _add_search(parser)
    _add_limits(parser)
    parser.add_argument("--quick", action="store_true", help="a small study of a few minutes; its numbers are noisy")
    parser.add_argument("--plan", action="store_true", help="print time, disk and epsilon; spend nothing")
    parser.add_argument("--lang", choices=LANGUAGES, default="en", help="language of report and terminal (default en)")
    add_weights(parser)
    add_machine(parser)
    parser.add_argument(
        "--confirm", action="store_true", help="then train the front again and confirm the recommendation"
    )


def _add_search(parser: Parser) -> None:
    parser.option("--trials", whole(1, MANY), default=24, metavar="N", help="trials in all (default 24)")
    parser.option("--out", filled, metavar="DIR", help="folder of the study (default moo-runs/NAME)")
    add_storage(parser, "Optuna storage, also journal:///PATH (default DIR/study.db)")
    parser.option("--name", fit(_check_name), metavar="NAME", help="name of the study (default: that of STUDY)")
    parser.add_argument(
        "--sampler", choices=SAMPLERS, help="sampler that proposes settings (default: that of STUDY, nsga2)"
    )
    parser.option("--seed", whole(0, SEEDS), default=0, metavar="S", help="seed of the sampler (default 0)")


def _add_limits(parser: Parser) -> None:
    parser.option("--max-risk", number(-1, 1), metavar="R", help="limit on the membership advantage")
    parser.option("--max-penalty", number(0, 1), metavar="P", help="limit on the compliance penalty")
    parser.option(
        "--policy",
        fit(Policy.parse),
        default="internal",
        metavar="P",
        help="release policy: internal (default), publish_all=EPSILON, select_one, proxy_then_retrain=M",
    )
    parser.option(
        "--answer-noise",
        number(0, 1000),
        metavar="Z",
        help="noise on numbers computed from private units, in multiples of their sensitivity",
    )
    add_unmatched(parser)


def _check_name(text: str) -> str:
    from moo.studies.spec.study import check_name

    return check_name(text)


def run(options: argparse.Namespace) -> int:
    """Search a study's settings, write its files and print its result."""
    from moo.studies.spec.study import load_spec

    # A mistyped name is refused before the training stack is imported, which takes seconds
    spec = load_spec(options.study)
    spec, policy = _adapted(spec.quick() if options.quick else spec, options)
    name = options.name or spec.name + ("-quick" if options.quick else "")
    folder = Path(options.out) if options.out else Path("moo-runs") / name
    if options.plan:
        return _plan(spec, policy, options)
    return _search(spec, policy, options, name=name, folder=folder)


def _adapted(spec: "StudySpec", options: argparse.Namespace) -> tuple["StudySpec", Policy]:
    """Return the study with what the command line changes, checked, and its policy."""
    from moo.cli.runtime_options import machine_of
    from moo.studies.results.weights import weights_of
    from moo.studies.setup.preflight import check_specification, sampled

    limits = {"max_risk": options.max_risk, "max_penalty": options.max_penalty}
    limits |= {"allow_unmatched": options.allow_unmatched or None}
    changed = {name: value for name, value in limits.items() if value is not None}
    spec = dataclasses.replace(spec, **changed, machine=machine_of(options, spec.machine))
    if options.answer_noise == 0 and Policy.parse(options.policy).answer_noise:
        raise PolicyError(
            "--answer-noise must be above 0 with --policy {policy}, got 0: exact numbers would leave.",
            policy=options.policy,
        )
    policy = Policy.parse(options.policy, answer_noise=options.answer_noise)
    spec, _ = sampled(spec, options.sampler, policy)
    check_specification(spec, policy)
    if weights_of(options.weights) and policy.name == "select_one":
        raise PolicyError("--weights must not be given with --policy select_one: its guarantee is of its own choice.")
    return spec, policy


def _plan(spec: "StudySpec", policy: Policy, options: argparse.Namespace) -> int:
    from moo.cli.live import fetching
    from moo.cli.plan_lines import print_plan
    from moo.studies.search.estimate import plan_study

    with fetching(out) as stage:
        planned = plan_study(spec, n_trials=options.trials, policy=policy, stage=stage)
    print_plan(out, planned)
    return 0


def _search(spec: "StudySpec", policy: Policy, options: argparse.Namespace, *, name: str, folder: Path) -> int:
    from moo.cli.commands.confirm import confirm_study
    from moo.cli.live import Live
    from moo.cli.plan_lines import print_policy
    from moo.cli.tables import print_result
    from moo.report import renew_reports, save_report
    from moo.studies.search.run_study import run_study

    _print_licences(spec.data, spec.model)
    print_policy(out, policy)
    with Live(out, options.trials, secret=policy.name == "select_one") as live:
        result = run_study(
            spec,
            n_trials=options.trials,
            policy=policy,
            storage=options.storage,
            name=name,
            seed=options.seed,
            sampler=options.sampler,
            executor="processes" if options.workers > 1 else "inline",
            workers=options.workers,
            folder=folder,
            callbacks=[live],
            weights=options.weights,
        )
    result.save(folder)
    if options.confirm:
        return confirm_study(folder, shadows=max(8, spec.training.n_shadows), lang=options.lang)
    written = save_report(result, folder, lang=options.lang)
    renew_reports(folder, but=options.lang)
    print_result(out, result)
    if (folder / "again").is_dir() and not result.refined:
        say(out, "\nThe front is no longer the one that was confirmed: `moo confirm` trains what is new on it.")
    say(out, "\nWritten: {files}", files=f"{folder}/front.csv, front.json, {written.name}, study.db")
    return 0


def _print_licences(data: str, model: str) -> None:
    """Print the licences of what is fetched from others."""
    from moo.cli.language import spoken
    from moo.data.catalogue import DATASETS
    from moo.models.pretrained.loading import REGISTRY

    if data in DATASETS:
        say(out, "Data {name}: {licence}", name=data, licence=spoken(DATASETS[data].licence))
    if model in REGISTRY:
        say(out, "Model {name}: {licence}", name=model, licence=spoken(REGISTRY[model].licence))
