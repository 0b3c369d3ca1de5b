"""moo compliance: list and explain the rules, and the commands that judge by them."""

import argparse
from collections.abc import Sequence

from rich.table import Table

from moo.cli.arguments import Commands, Parser
from moo.cli.commands.compliance import annex, check, watch
from moo.cli.console import headers, out, say
from moo.cli.language import words
from moo.core import validate
from moo.core.errors import InputError

_FIELDS = (
    *("id", "kind", "stage", "title_en", "title_zh", "article", "status", "evidence", "score", "low", "high", "domain"),
    *("applies_if", "fail_at", "varies", "pia", "source", "as_of", "pack"),
)


def add(commands: Commands) -> None:
    """Add the commands."""
    rules = commands.group("compliance", "rules: list, explain, check a table before any training")
    _packs_option(rules.command("list", list_rules, "list all rules of the packs"))
    explained = _packs_option(rules.command("explain", explain_rule, "show one rule in full"))
    explained.add_argument("rule", metavar="RULE", help="id of the rule, see moo compliance list")
    _packs_option(check.add(rules))
    watch.add(rules)
    annex.add(rules)


def _packs_option(parser: Parser) -> Parser:
    parser.add_argument("--packs", nargs="+", metavar="PACK", help="names of packs, or paths of a company's own")
    return parser


def list_rules(options: argparse.Namespace) -> int:
    """Print one line a rule."""
    from moo.objectives.compliance.loader import load_rules

    table = Table(*headers("rule", "kind", "judged", "requirement", "basis", "status"), box=None)
    for rule in load_rules(_packs(options)).rules:
        title = f"{rule.title_en} / {rule.title_zh}"
        judged = words("at the {stage}", stage=words(rule.stage))
        table.add_row(rule.id, words(rule.kind), judged, title, rule.article, words(rule.status))
    out.print(table)
    say(out, "Rules are evidence for a person to judge. No law sets epsilon, delta or k: such thresholds are policy.")
    return 0


def explain_rule(options: argparse.Namespace) -> int:
    """Print every field of a rule."""
    from moo.objectives.compliance.loader import load_rules

    rules = {rule.id: rule for rule in load_rules(_packs(options)).rules}
    if options.rule not in rules:
        near = validate.nearest(options.rule, rules)
        raise InputError(
            "rule must be one of {rules}, got {rule!r}.{near}", rules=", ".join(rules), rule=options.rule, near=near
        )
    rule = rules[options.rule]
    table = Table(show_header=False, box=None)
    for name in _FIELDS:
        value = getattr(rule, name)
        table.add_row(name, ", ".join(value) if isinstance(value, tuple) else str(value))
    if rule.unless:
        table.add_row("unless", f"{rule.unless.evidence} >= {rule.unless.at_least:g}")
    out.print(table)
    return 0


def _packs(options: argparse.Namespace) -> Sequence[str]:
    from moo.objectives.compliance.pack import BUILT_IN

    return options.packs or BUILT_IN
