"""The command `moo`. Exit statuses: 0 done, 2 bad input, 3 environment, 4 something found for a person to do, 130 interrupted."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from math import inf

from rich.console import Console

from moo import __version__
from moo.cli.arguments import SEEDS, Parser, add_reading, day, even, filled, fit, number, whole
from moo.cli.commands import audit, compliance, mask, memorise, risk, studies
from moo.cli.runtime_options import add_machine
from moo.core.errors import MooError
from moo.core.personal_data_types import MAX_LEVEL
from moo.core.trial_record import SAMPLERS
from moo.privacy.release_policy import Policy
from moo.studies.results.weights import weights_of

INTERRUPTED = 130
MANY = 1_000_000  # trials, canaries and the like


def parser() -> Parser:
    """All commands and options."""
    top = Parser(prog="moo", description="Choose the privacy of a language model fine-tuned on customers' data.")
    top.add_argument("--version", action="version", version=f"moo {__version__}")
    groups = top.add_subparsers(dest="command", metavar="COMMAND", required=True)

    run = _add(
        groups, "run", studies.run, "search a study's privacy settings; the same command goes on where it stopped"
    )
    run.add_argument("study", metavar="STUDY", help="a shipped study's name, or a path to TOML")
    run.option("--trials", whole(1, MANY), default=24, metavar="N", help="trials in all (default 24)")
    run.option("--out", filled, metavar="DIR", help="folder of the study (default moo-runs/NAME)")
    run.option(
        "--storage",
        fit(_check_storage),
        metavar="URL",
        help="Optuna storage, also journal:///PATH (default DIR/study.db)",
    )
    run.option("--name", fit(_check_name), metavar="NAME", help="name of the study (default: the specification's)")
    run.add_argument("--sampler", choices=SAMPLERS, help="what proposes settings (default: the specification's, nsga2)")
    run.option("--seed", whole(0, SEEDS), default=0, metavar="S", help="seed of the sampler (default 0)")
    run.option("--max-risk", number(-1, 1), metavar="R", help="limit on the membership advantage")
    run.option("--max-penalty", number(0, 1), metavar="P", help="limit on the compliance penalty")
    run.option(
        "--policy",
        fit(Policy.parse),
        default="internal",
        metavar="P",
        help="who may see what: internal (default), publish_all=EPSILON, select_one, proxy_then_retrain=M",
    )
    run.option(
        "--answer-noise",
        number(0, 1000),
        metavar="Z",
        help="noise on numbers that read private units, over their sensitivity",
    )
    _unmatched(run)
    run.add_argument("--quick", action="store_true", help="a small study of a few minutes; its numbers are noisy")
    run.add_argument("--plan", action="store_true", help="print time, disk and epsilon; spend nothing")
    run.add_argument("--lang", choices=("en", "zh"), default="en", help="language of the report (default en)")
    _weights(run)
    add_machine(run)

    run.add_argument("--confirm", action="store_true", help="then train the front anew and confirm the recommendation")

    front = _add(groups, "front", studies.front, "show the front of a study that ran")
    front.option("--out", filled, metavar="DIR", required=True, help="folder of the study")
    _weights(front)
    front.add_argument("--keep", action="store_true", help="write the choice into the study's files and reports")
    front.add_argument("--format", choices=("table", "csv", "json"), default="table")

    sure = _add(
        groups,
        "confirm",
        risk.confirm,
        "train the front anew with more shadows, the recommendation on a fresh split",
    )
    sure.option("--out", filled, metavar="DIR", required=True, help="folder of the study")
    sure.option("--shadows", even(4, 1024), default=8, metavar="K", help="shadows of each training, even (default 8)")
    sure.add_argument("--lang", choices=("en", "zh"), default="en")

    every = _add(groups, "attacks", risk.attacks, "every membership attack on a trial that ran, side by side")
    every.option("--out", filled, metavar="DIR", required=True, help="folder of the study")
    every.option("--trial", whole(0, MANY), metavar="N", help="which trial (default: the status quo)")

    each = _add(groups, "attributes", risk.attributes, "what a trial's answers tell of each attribute of its users")
    each.option("--out", filled, metavar="DIR", required=True, help="folder of the study")
    each.option("--trial", whole(0, MANY), metavar="N", help="which trial (default: the status quo)")
    each.option("--permutations", whole(1, MANY), default=99, metavar="N", help="of each null (default 99)")

    again = _add(
        groups, "retrain", studies.retrain, "train chosen settings on the release users of proxy_then_retrain(m)"
    )
    again.option("--out", filled, metavar="DIR", required=True, help="folder of the study")
    again.option(
        "--trials", whole(0, MANY), nargs="+", metavar="N", required=True, help="trials, all in one call; at most m"
    )
    again.option("--to", filled, metavar="DIR", required=True, help="folder of what may leave")

    check = _add(
        groups,
        "audit",
        audit.audit,
        "train with planted canaries, and see whether what leaks fits the claimed epsilon",
    )
    check.add_argument("study", metavar="STUDY", nargs="?", help="a shipped study's name, or a path to TOML")
    check.option(
        "--out",
        filled,
        metavar="DIR",
        help="folder of a study that ran, or for the cache (default moo-runs/NAME-audit)",
    )
    check.option(
        "--trial", whole(0, MANY), metavar="N", help="audit the configuration of this trial of the study in --out"
    )
    check.option(
        "--epsilon",
        number(0, inf, above=True),
        default=1.0,
        metavar="E",
        help="that is claimed for STUDY (default 1; inf: none)",
    )
    check.option("--depth", whole(0, 1024), default=0, metavar="L", help="adapted layers of STUDY (default 0)")
    check.option("--halvings", whole(0, 12), default=0, metavar="H", help="of STUDY's expected batch (default 0)")
    check.option(
        "--canaries", whole(2, MANY), default=1000, metavar="M", help="planted, each by a fair coin (default 1000)"
    )
    check.add_argument(
        "--kind", choices=("dirac", "text"), default="dirac", help="dirac (white box, default) or text (black box)"
    )
    check.option(
        "--confidence", number(0.5, 0.999999), default=0.95, metavar="C", help="of the lower bounds (default 0.95)"
    )
    check.add_argument("--format", choices=("table", "json"), default="table")

    _memorise(groups)

    report = _add(groups, "report", studies.report, "write the report of a study that ran")
    report.option("--out", filled, metavar="DIR", required=True, help="folder of the study")
    report.add_argument("--lang", choices=("en", "zh"), default="en")

    data = _group(groups, "data", "data sets: list, fetch, purge a study's evidence")
    _add(data, "list", studies.data_list, "known data sets")
    _add(data, "fetch", studies.data_fetch, "download a data set").add_argument("name", metavar="NAME")
    purge = _add(data, "purge", studies.data_purge, "remove a study's evidence and cached activations")
    purge.add_argument("folder", metavar="DIR", help="folder of the study")

    models = _group(groups, "models", "base models: list, fetch")
    _add(models, "list", studies.models_list, "known base models")
    _add(models, "fetch", studies.models_fetch, "download and convert a base model").add_argument(
        "name", metavar="NAME"
    )

    mask.add_options(_add(groups, "mask", studies.mask, "mask a text, lines from standard input, or a table"))

    _compliance(groups)

    ledger = _group(groups, "ledger", "what trainings cost the people in a data set: show, cap, verify, anchor, export")
    for name, action, text in (
        ("show", studies.ledger_show, "studies and what they compose to"),
        ("cap", studies.ledger_cap, "cap what all studies together may compose to"),
        ("verify", studies.ledger_verify, "check the chain, and an anchor that was kept elsewhere"),
        ("anchor", studies.ledger_anchor, "the head of the chain, to be kept elsewhere"),
        ("export", studies.ledger_export, "all entries, as JSON Lines"),
    ):
        one = _add(ledger, name, action, text)
        one.add_argument("data", metavar="DATA", help="a data set's name, or the path to a table")
        if name == "cap":
            one.add_argument("epsilon", metavar="EPSILON", type=float, help="the cap; inf lifts it")
            one.add_argument("--delta", type=float, default=1e-5, help="delta of the cap (default 1e-5)")
            one.add_argument("--reason", default="", help="why the cap rises; stays in the ledger")
        if name == "verify":
            one.add_argument("--anchor", metavar="SEQ:HASH", action="append", default=[], help="as `anchor` printed it")

    board = _add(groups, "dashboard", studies.dashboard, "open a study in the Optuna dashboard")
    board.option("--out", filled, metavar="DIR", required=True, help="folder of the study")
    board.option("--storage", fit(_check_storage), metavar="URL", help="Optuna storage (default DIR/study.db)")
    board.option("--port", whole(1, 65_535), default=8080)
    return top


def _unmatched(one: Parser) -> None:
    one.add_argument(
        "--allow-unmatched",
        action="store_true",
        help="accept users who have withdrawn and have no row, e.g. since it is deleted",
    )


def _reading(one: Parser) -> None:
    add_reading(one, "the table")
    one.add_argument(
        "--na-values", nargs="+", default=[], metavar="TEXT", help="texts that count as an empty cell, e.g. NA"
    )


def _weights(one: Parser) -> None:
    one.option(
        "--weights",
        fit(weights_of),
        metavar="W",
        help="recommend the knee by these weights, e.g. accuracy=2,risk=1,penalty=1; none: the most accurate point whose limits hold",
    )


def _memorise(groups: "argparse._SubParsersAction[Parser]") -> None:
    one = _add(
        groups,
        "memorise",
        memorise.memorise,
        "fine-tune a writer with planted secrets, with and without DP, and see what it keeps of them",
    )
    one.add_argument(
        "study", metavar="STUDY", nargs="?", default="service-reply", help="of task generation (default service-reply)"
    )
    one.option("--out", filled, metavar="DIR", help="folder of the reports (default moo-runs/NAME-memorisation)")
    one.option(
        "--epsilon",
        number(0, inf, above=True),
        nargs="+",
        default=[float("inf"), 8.0],
        metavar="E",
        help="one training each (default inf 8)",
    )
    one.option(
        "--canaries", whole(2, 100_000), default=32, metavar="M", help="secrets planted, as many not (default 32)"
    )
    one.option("--repeats", whole(1, 1000), default=1, metavar="R", help="texts that a secret stands in (default 1)")
    one.option("--digits", whole(1, 5), default=3, metavar="D", help="of a secret (default 3)")
    one.option("--level", whole(0, MAX_LEVEL), default=0, metavar="L", help="masking level of the texts (default 0)")
    one.option("--records", whole(1, 100_000_000), metavar="N", help="texts (default: the study's)")
    one.option("--steps", whole(1, 100_000), metavar="S", help="optimizer steps (default: the study's)")
    one.option(
        "--rate", number(0, 1000, above=True), metavar="R", help="learning rate (default: the middle of the study's)"
    )
    one.option(
        "--confidence", number(0.5, 0.999999), default=0.95, metavar="C", help="of the upper bound (default 0.95)"
    )
    one.add_argument("--each", action="store_true", help="exposure and rank of each planted secret too")
    one.add_argument("--format", choices=("table", "json"), default="table")


def _compliance(groups: "argparse._SubParsersAction[Parser]") -> None:
    rules = _group(groups, "compliance", "rules: list, explain, check a table before any training")
    listed = _add(rules, "list", compliance.list_rules, "all rules of the packs")
    explained = _add(rules, "explain", compliance.explain_rule, "one rule in full")
    explained.add_argument("rule", metavar="RULE")
    check = _add(rules, "check", compliance.check, "judge a table by the gates, before any training")
    check.add_argument("--data", metavar="DATA", required=True, help="a table, a data set's name, or a study's TOML")
    check.add_argument("--text", metavar="COLUMN", help="column of the text (default: text, where there is one)")
    check.add_argument("--label", metavar="COLUMN", help="column of the class (default: label, where there is one)")
    check.add_argument("--user", default="", metavar="COLUMN", help="column of the unit of privacy")
    check.add_argument(
        "--purpose", default="model_training", metavar="P", help="why the data are used (default model_training)"
    )
    check.option("--as-of", day, metavar="DATE", help="day at which the data are judged (default today)")
    check.add_argument(
        "--dossier", metavar="FILE", help="what the company declares: purposes, roles, audits and the like"
    )
    check.add_argument("--withdrawals", metavar="FILE", help="users who have withdrawn, one a line")
    check.add_argument("--applies", nargs="+", default=[], metavar="FLAG", help='flags of the study, e.g. "profiling"')
    check.add_argument("--sensitive-rows", choices=("drop", "keep"), default="drop")
    check.add_argument("--format", choices=("table", "json"), default="table")
    watch = _add(
        rules,
        "watch",
        compliance.watch,
        "look at data and released models, for a scheduler",
    )
    watch.add_argument("--data", metavar="FILE", required=True, help="the table")
    watch.add_argument("--text", default="text", metavar="COLUMN", help="column of the text (default text)")
    watch.add_argument("--label", metavar="COLUMN", help="column of the class (default: label, where there is one)")
    watch.add_argument("--user", default="", metavar="COLUMN", help="column of the unit of privacy")
    watch.add_argument("--purpose", default="model_training", metavar="P")
    watch.add_argument(
        "--models",
        nargs="+",
        default=[],
        metavar="DIR",
        help="folders of models that `moo retrain` wrote",
    )
    watch.add_argument(
        "--withdrawals",
        default="",
        metavar="FILE",
        help="users who have withdrawn: USER or USER,DATE a line",
    )
    watch.option("--as-of", day, metavar="DATE", help="day of the look (default today)")
    watch.option(
        "--ahead",
        whole(0, 36_500),
        default=30,
        metavar="DAYS",
        help="how far ahead retention is looked at (default 30)",
    )
    watch.option(
        "--level",
        whole(0, MAX_LEVEL),
        default=2,
        metavar="L",
        help="masking level, where no model's card tells one (default 2)",
    )
    watch.option(
        "--budget", number(0, 1e9, above=True), metavar="EPSILON", help="the house's limit over all studies on the data"
    )
    watch.add_argument("--state", default="", metavar="FILE", help="keeps the first look's rates, to see drift")
    watch.add_argument("--format", choices=("table", "json"), default="table")
    annex = _add(rules, "annex", compliance.annex, "the evidence that an impact assessment asks for: JSON, HTML, PDF")
    annex.add_argument("folder", metavar="DIR", help="folder of the study")
    annex.option("--trial", whole(0, MANY), metavar="N", help="point (default: the recommended one)")
    annex.option("--to", filled, metavar="DIR", help="where it is written (default DIR/annex)")
    annex.add_argument("--lang", nargs="+", choices=("en", "zh"), default=["en", "zh"])
    annex.add_argument(
        "--dossier", metavar="FILE", help="what the company declares, judged today (default: the study's own)"
    )
    annex.add_argument(
        "--previous", metavar="FILE", help="annex.json to tell the difference to (default: the one there)"
    )
    annex.add_argument("--no-pdf", action="store_true", help="do not ask a browser to print")
    for one in (check, watch):
        _unmatched(one)
        _reading(one)
    for one in (listed, explained, check):
        one.add_argument("--packs", nargs="+", metavar="PACK", help="names, or paths of a company's own packs")


def _check_name(text: str) -> str:
    from moo.studies.spec.study import check_name

    return check_name(text)


def _check_storage(text: str) -> str:
    from moo.search.storage import check_storage

    check_storage(text)
    return text


def _add(groups: "argparse._SubParsersAction[Parser]", name: str, action: Callable[..., int], text: str) -> Parser:
    one = groups.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    one.set_defaults(action=action, parser=one)
    return one


def _group(groups: "argparse._SubParsersAction[Parser]", name: str, text: str) -> "argparse._SubParsersAction[Parser]":
    one = groups.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    return one.add_subparsers(dest="what", metavar="WHAT", required=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its exit status."""
    errors = Console(stderr=True)
    try:
        options, unknown = parser().parse_known_args(arguments)
        options.parser.refuse_unknown(unknown)
        status: int = options.action(options)
    except MooError as error:
        errors.print(f"[bold red]moo:[/] {_plain(str(error))}", highlight=False, soft_wrap=True)
        return error.exit_status
    except KeyboardInterrupt:
        errors.print(
            "[yellow]moo:[/] interrupted; every finished trial is kept, and the same command goes on.", soft_wrap=True
        )
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output has gone, as with `moo front | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return status


def _plain(text: str) -> str:
    """Square brackets are text here, not markup."""
    return text.replace("[", r"\[")


if __name__ == "__main__":
    sys.exit(main())
