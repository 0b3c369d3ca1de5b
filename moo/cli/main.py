"""The command `moo`. Exit statuses: 0 done, 2 bad input, 3 environment, 4 something found for a person to do, 130 interrupted."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence

from rich.console import Console

from moo import __version__
from moo.cli import audit, commands, compliance, masking, membership, memorise
from moo.cli.machine import add_machine
from moo.errors import MooError

INTERRUPTED = 130


class _Parser(argparse.ArgumentParser):
    """An argument that does not fit gets one line, as every other bad input does."""

    def error(self, message: str) -> "None":  # type: ignore[override]
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help.\n")


def parser() -> argparse.ArgumentParser:
    """All commands and options."""
    top = _Parser(prog="moo", description="Choose the privacy of a language model fine-tuned on customers' data.")
    top.add_argument("--version", action="version", version=f"moo {__version__}")
    groups = top.add_subparsers(dest="command", metavar="COMMAND", required=True)

    run = _add(
        groups, "run", commands.run, "search a study's privacy settings; the same command goes on where it stopped"
    )
    run.add_argument("study", metavar="STUDY", help="a shipped study's name, or a path to TOML")
    run.add_argument("--trials", type=int, default=24, metavar="N", help="trials in all (default 24)")
    run.add_argument("--out", metavar="DIR", help="folder of the study (default moo-runs/NAME)")
    run.add_argument("--storage", metavar="URL", help="Optuna storage (default DIR/study.db)")
    run.add_argument("--name", metavar="NAME", help="name of the study (default: the specification's)")
    run.add_argument("--seed", type=int, default=0, metavar="S", help="seed of the sampler (default 0)")
    run.add_argument("--max-risk", type=float, metavar="R", help="limit on the membership advantage")
    run.add_argument("--max-penalty", type=float, metavar="P", help="limit on the compliance penalty")
    run.add_argument(
        "--policy",
        default="internal",
        metavar="P",
        help="who may see what: internal (default), publish_all=EPSILON, select_one, proxy_then_retrain=M",
    )
    run.add_argument(
        "--answer-noise",
        type=float,
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

    front = _add(groups, "front", commands.front, "show the front of a study that ran")
    front.add_argument("--out", metavar="DIR", required=True, help="folder of the study")
    _weights(front)
    front.add_argument("--keep", action="store_true", help="write the choice into the study's files and reports")
    front.add_argument("--format", choices=("table", "csv", "json"), default="table")

    sure = _add(
        groups,
        "confirm",
        membership.confirm,
        "train the front anew with more shadows, the recommendation on a fresh split",
    )
    sure.add_argument("--out", metavar="DIR", required=True, help="folder of the study")
    sure.add_argument("--shadows", type=int, default=8, metavar="K", help="shadows of each training, even (default 8)")
    sure.add_argument("--lang", choices=("en", "zh"), default="en")

    every = _add(groups, "attacks", membership.attacks, "every membership attack on a trial that ran, side by side")
    every.add_argument("--out", metavar="DIR", required=True, help="folder of the study")
    every.add_argument("--trial", type=int, metavar="N", help="which trial (default: the status quo)")

    each = _add(
        groups, "attributes", membership.attributes, "what a trial's answers tell of each attribute of its users"
    )
    each.add_argument("--out", metavar="DIR", required=True, help="folder of the study")
    each.add_argument("--trial", type=int, metavar="N", help="which trial (default: the status quo)")
    each.add_argument("--permutations", type=int, default=99, metavar="N", help="of each null (default 99)")

    again = _add(
        groups, "retrain", commands.retrain, "train chosen settings on the release users of proxy_then_retrain(m)"
    )
    again.add_argument("--out", metavar="DIR", required=True, help="folder of the study")
    again.add_argument(
        "--trials", type=int, nargs="+", metavar="N", required=True, help="trials, all in one call; at most m"
    )
    again.add_argument("--to", metavar="DIR", required=True, help="folder of what may leave")

    check = _add(
        groups,
        "audit",
        audit.audit,
        "train with planted canaries, and see whether what leaks fits the claimed epsilon",
    )
    check.add_argument("study", metavar="STUDY", nargs="?", help="a shipped study's name, or a path to TOML")
    check.add_argument(
        "--out",
        metavar="DIR",
        help="folder of a study that ran, or for the cache (default moo-runs/NAME-audit)",
    )
    check.add_argument(
        "--trial", type=int, metavar="N", help="audit the configuration of this trial of the study in --out"
    )
    check.add_argument(
        "--epsilon",
        type=float,
        default=1.0,
        metavar="E",
        help="that is claimed for STUDY (default 1; inf: none)",
    )
    check.add_argument("--depth", type=int, default=0, metavar="L", help="adapted layers of STUDY (default 0)")
    check.add_argument("--halvings", type=int, default=0, metavar="H", help="of STUDY's expected batch (default 0)")
    check.add_argument(
        "--canaries", type=int, default=1000, metavar="M", help="planted, each by a fair coin (default 1000)"
    )
    check.add_argument("--kind", default="dirac", metavar="KIND", help="dirac (white box, default) or text (black box)")
    check.add_argument("--confidence", type=float, default=0.95, metavar="C", help="of the lower bounds (default 0.95)")
    check.add_argument("--format", choices=("table", "json"), default="table")

    _memorise(groups)

    report = _add(groups, "report", commands.report, "write the report of a study that ran")
    report.add_argument("--out", metavar="DIR", required=True, help="folder of the study")
    report.add_argument("--lang", choices=("en", "zh"), default="en")

    data = _group(groups, "data", "data sets: list, fetch, purge a study's evidence")
    _add(data, "list", commands.data_list, "known data sets")
    _add(data, "fetch", commands.data_fetch, "download a data set").add_argument("name", metavar="NAME")
    purge = _add(data, "purge", commands.data_purge, "remove a study's evidence and cached activations")
    purge.add_argument("folder", metavar="DIR", help="folder of the study")

    models = _group(groups, "models", "base models: list, fetch")
    _add(models, "list", commands.models_list, "known base models")
    _add(models, "fetch", commands.models_fetch, "download and convert a base model").add_argument(
        "name", metavar="NAME"
    )

    masking.add_options(_add(groups, "mask", commands.mask, "mask a text, lines from standard input, or a table"))

    _compliance(groups)

    ledger = _group(groups, "ledger", "what trainings cost the people in a data set: show, cap, verify, anchor, export")
    for name, action, text in (
        ("show", commands.ledger_show, "studies and what they compose to"),
        ("cap", commands.ledger_cap, "cap what all studies together may compose to"),
        ("verify", commands.ledger_verify, "check the chain, and an anchor that was kept elsewhere"),
        ("anchor", commands.ledger_anchor, "the head of the chain, to be kept elsewhere"),
        ("export", commands.ledger_export, "all entries, as JSON Lines"),
    ):
        one = _add(ledger, name, action, text)
        one.add_argument("data", metavar="DATA", help="a data set's name, or the path to a table")
        if name == "cap":
            one.add_argument("epsilon", metavar="EPSILON", type=float, help="the cap; inf lifts it")
            one.add_argument("--delta", type=float, default=1e-5, help="delta of the cap (default 1e-5)")
            one.add_argument("--reason", default="", help="why the cap rises; stays in the ledger")
        if name == "verify":
            one.add_argument("--anchor", metavar="SEQ:HASH", action="append", default=[], help="as `anchor` printed it")

    board = _add(groups, "dashboard", commands.dashboard, "open a study in the Optuna dashboard")
    board.add_argument("--out", metavar="DIR", required=True, help="folder of the study")
    board.add_argument("--storage", metavar="URL", help="Optuna storage (default DIR/study.db)")
    board.add_argument("--port", type=int, default=8080)
    return top


def _unmatched(one: _Parser) -> None:
    one.add_argument(
        "--allow-unmatched",
        action="store_true",
        help="accept users who have withdrawn and have no row, e.g. since it is deleted",
    )


def _reading(one: _Parser) -> None:
    one.add_argument("--encoding", default="", metavar="NAME", help="of the table, e.g. gb18030 (default utf-8)")
    one.add_argument(
        "--separator", default="", metavar="S", help='of the table: ",", ";" or tab (default: the one in its header)'
    )


def _weights(one: _Parser) -> None:
    one.add_argument(
        "--weights",
        metavar="W",
        help="what the objectives weigh in the recommendation, e.g. accuracy=2,risk=1,penalty=1 (default: all alike)",
    )


def _memorise(groups: "argparse._SubParsersAction[_Parser]") -> None:
    one = _add(
        groups,
        "memorise",
        memorise.memorise,
        "fine-tune a writer with planted secrets, with and without DP, and see what it keeps of them",
    )
    one.add_argument(
        "study", metavar="STUDY", nargs="?", default="service-reply", help="of task generation (default service-reply)"
    )
    one.add_argument("--out", metavar="DIR", help="folder of the reports (default moo-runs/NAME-memorisation)")
    one.add_argument(
        "--epsilon",
        type=float,
        nargs="+",
        default=[float("inf"), 8.0],
        metavar="E",
        help="one training each (default inf 8)",
    )
    one.add_argument("--canaries", type=int, default=32, metavar="M", help="secrets planted, as many not (default 32)")
    one.add_argument("--repeats", type=int, default=1, metavar="R", help="texts that a secret stands in (default 1)")
    one.add_argument("--digits", type=int, default=3, metavar="D", help="of a secret (default 3)")
    one.add_argument("--level", type=int, default=0, metavar="L", help="masking level of the texts (default 0)")
    one.add_argument("--records", type=int, metavar="N", help="texts (default: the study's)")
    one.add_argument("--steps", type=int, metavar="S", help="optimizer steps (default: the study's)")
    one.add_argument("--rate", type=float, metavar="R", help="learning rate (default: the middle of the study's)")
    one.add_argument("--confidence", type=float, default=0.95, metavar="C", help="of the upper bound (default 0.95)")
    one.add_argument("--each", action="store_true", help="exposure and rank of each planted secret too")
    one.add_argument("--format", choices=("table", "json"), default="table")


def _compliance(groups: "argparse._SubParsersAction[_Parser]") -> None:
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
    check.add_argument("--as-of", metavar="DATE", help="day at which the data are judged (default today)")
    check.add_argument(
        "--dossier", metavar="FILE", help="what the company declares: purposes, roles, audits and the like"
    )
    check.add_argument("--withdrawals", metavar="FILE", help="users who have withdrawn, one a line")
    check.add_argument(
        "--na-values", nargs="+", default=[], metavar="TEXT", help="texts that count as an empty cell, e.g. NA"
    )
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
    watch.add_argument("--as-of", metavar="DATE", help="day of the look (default today)")
    watch.add_argument(
        "--ahead", type=int, default=30, metavar="DAYS", help="how far ahead retention is looked at (default 30)"
    )
    watch.add_argument(
        "--level", type=int, default=2, metavar="L", help="masking level, where no model's card tells one (default 2)"
    )
    watch.add_argument("--budget", type=float, metavar="EPSILON", help="the house's limit over all studies on the data")
    watch.add_argument("--state", default="", metavar="FILE", help="keeps the first look's rates, to see drift")
    watch.add_argument("--format", choices=("table", "json"), default="table")
    annex = _add(rules, "annex", compliance.annex, "the evidence that an impact assessment asks for: JSON, HTML, PDF")
    annex.add_argument("folder", metavar="DIR", help="folder of the study")
    annex.add_argument("--trial", type=int, metavar="N", help="point (default: the recommended one)")
    annex.add_argument("--to", metavar="DIR", help="where it is written (default DIR/annex)")
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


def _add(groups: "argparse._SubParsersAction[_Parser]", name: str, action: Callable[..., int], text: str) -> _Parser:
    one = groups.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    one.set_defaults(action=action)
    return one


def _group(
    groups: "argparse._SubParsersAction[_Parser]", name: str, text: str
) -> "argparse._SubParsersAction[_Parser]":
    one = groups.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    return one.add_subparsers(dest="what", metavar="WHAT", required=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its exit status."""
    options = parser().parse_args(arguments)
    errors = Console(stderr=True)
    try:
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
