"""Lines about a study before anything is spent: its policy and its plan."""

from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from moo.cli.console import heading, say
from moo.cli.language import listed, spoken, words
from moo.cli.numbers import duration
from moo.privacy.release_policy import Policy

if TYPE_CHECKING:
    from moo.studies.search.estimate import Plan


def print_policy(console: Console, policy: Policy) -> None:
    """Print the noise of a policy, if it has some."""
    if policy.answer_noise:
        say(
            console,
            "Policy {policy}: accuracy, risk and validity are released with Gaussian noise of {noise:g} times their "
            "sensitivity. The accuracy gap between groups is not assessed, which adds its whole weight to every "
            "penalty.",
            policy=policy,
            noise=policy.answer_noise,
        )


def print_plan(console: Console, plan: "Plan") -> None:
    """Print the time, disk and epsilon that a study would take."""
    heading(console, "Plan of {study}: nothing has been spent", study=plan.name)
    table = Table(show_header=False, box=None, pad_edge=False)
    for name, value in _rows(plan):
        table.add_row(f"[bold]{name}[/]", value)
    console.print(table)
    for note in plan.notes:
        say(console, "[yellow]{note}.[/]", note=escape(spoken(note)))


def _rows(plan: "Plan") -> list[tuple[str, str]]:
    """Return name and value of each line."""
    time = words(
        "about {total} on this machine for {trials} trials, {trunk} of it masking and trunk",
        total=duration(plan.seconds),
        trials=plan.trials,
        trunk=duration(plan.trunk_seconds),
    )
    epsilon = words(
        "{low:g} to {high:g} at delta {delta:g}", low=plan.epsilon_low, high=plan.epsilon_high, delta=plan.delta
    )
    disk = words("about {size:.1f} GB in the study's folder", size=plan.disk_bytes / 1e9)
    return [
        (words("preparation"), "\n".join(map(spoken, plan.preparation)) or words("not counted")),
        (words("records"), listed([f"{spoken(part)} {n}" for part, n in plan.records.items()])),
        (words("time"), time),
        (words("disk"), disk),
        (words("epsilon of a trial"), epsilon),
        (words("epsilon of the search"), _composed(plan)),
        (words("policy {policy}", policy=plan.policy), spoken(plan.holds)),
    ]


def _composed(plan: "Plan") -> str:
    """Return the range of the search's composed epsilon."""
    low, high = plan.composed_low, plan.composed_high
    span = words(
        "{low:.1f} to {high:.0f}, if all trials were at one end of the space",
        low=low.private_part,
        high=high.private_part,
    )
    if not high.includes_non_private:
        return span
    return words("unbounded, since the status quo trains without DP; DP alone: {span}", span=span)
