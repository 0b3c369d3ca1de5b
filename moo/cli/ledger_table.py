"""Table of a data set's ledger."""

from collections import Counter
from collections.abc import Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table

from moo.cli.console import headers, narrow, say
from moo.cli.language import listed, spoken, words
from moo.cli.numbers import epsilon_text
from moo.privacy.composed_epsilon import compose
from moo.privacy.events import TrainingRun
from moo.privacy.ledger import NO_GUARANTEE, LedgerEntry, charged

# Least columns of each number
_LEAST = (9, 4, 6, 7, 7, 9, 5, 6)


def print_ledger(console: Console, entries: Sequence[LedgerEntry]) -> None:
    """Print the studies of a data set, their charges, and what these compose to."""
    studies = list(dict.fromkeys(e.study for e in entries if e.study))
    table = Table(box=None, pad_edge=False, padding=(0, 1 if narrow(console) else 2, 0, 0))
    study, policy = headers("study", "policy")
    table.add_column(study, min_width=max((cell_len(word) for name in studies for word in name.split()), default=5))
    table.add_column(policy, overflow="fold")
    numbers = headers(
        "trainings", "open", "failed", "without DP", "answers", "composed epsilon", "of it DP alone", "delta"
    )
    for name, least in zip(numbers, _LEAST, strict=True):
        table.add_column(name, justify="right", width=least)
    for study in studies:
        _add_row(table, study, [e for e in entries if e.study == study], one=True)
    if len(studies) > 1:
        _add_row(table, words("[bold]all[/]"), entries, one=False)
    console.print(table)
    say(console, "An odometer, not a guarantee, unless a policy fixed a budget before.")
    bare = [e.study for e in entries if e.kind == "reserve" and e.body.get("note") == NO_GUARANTEE]
    if bare:
        say(console, "{studies}: {note}.", studies=listed(list(dict.fromkeys(bare))), note=spoken(NO_GUARANTEE))


def _add_row(table: Table, name: str, entries: Sequence[LedgerEntry], *, one: bool) -> None:
    """Add a study, or all of them together."""
    events = charged(entries)
    runs = [e for e in events if isinstance(e, TrainingRun)]
    kinds = Counter(e.kind for e in entries)
    delta = max((run.delta for run in runs), default=0.0)
    composed = compose(events, delta=delta, disjoint=one)
    still = kinds["reserve"] - kinds["commit"] - kinds["abort"]
    bare = sum(not run.private for run in runs)
    policy = next((str(e.body.get("policy", "")) for e in entries if e.kind == "gate"), "") if one else ""
    answers = len(events) - len(runs)
    counts = [str(n) for n in (len(runs), still, kinds["abort"], bare, answers)]
    bound = words("unbounded") if composed.includes_non_private else epsilon_text(composed.value)
    table.add_row(name, policy, *counts, bound, epsilon_text(composed.private_part), f"{delta:g}")
