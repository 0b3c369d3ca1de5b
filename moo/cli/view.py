"""What the terminal shows: a live bar while a study runs, and tables afterwards."""

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from moo.cli.membership import print_attribute, print_confirmation, told
from moo.objectives.compliance.sensitivity import TOO_ALIKE
from moo.privacy.claims import HOLDS
from moo.privacy.events import TrainingRun
from moo.privacy.ledger import NO_GUARANTEE, Entry, charged
from moo.privacy.policies import Policy
from moo.records import ACCURACY, PENALTY, RISK, Measurement, TrialRecord
from moo.report.annex import likeness
from moo.studies.accounts import composed
from moo.studies.plan import Plan
from moo.studies.progress import StudyProgress
from moo.studies.result import StudyResult, feasible_hypervolume


class Live:
    """A progress bar that is fed with `StudyProgress`; on a terminal it moves, elsewhere each trial is a line."""

    def __init__(self, console: Console, n_trials: int) -> None:
        self._console = console
        self._started = time.monotonic()
        self._spent: list[float] = []
        self._bar = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            TextColumn("{task.fields[facts]}"),
            TimeElapsedColumn(),
            console=console,
        )
        self._trials = self._bar.add_task("trials", total=n_trials, facts="")
        self._stage = self._bar.add_task("starting", total=1, facts="")

    def __enter__(self) -> "Live":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.update(self._stage, visible=False)
        self._bar.stop()

    def __call__(self, progress: StudyProgress) -> None:
        if progress.stage:
            total = progress.stage_total or 1
            done = progress.stage_done if progress.stage_total else 0
            self._bar.update(self._stage, description=progress.stage, total=total, completed=done)
        if progress.newest is not None:
            self._trial(progress, progress.newest)

    def _trial(self, progress: StudyProgress, newest: TrialRecord) -> None:
        done = len(progress.trials)
        self._spent.append(time.monotonic())
        since = self._spent[0] if len(self._spent) > 1 else self._started
        each = (self._spent[-1] - since) / max(1, len(self._spent) - 1 if len(self._spent) > 1 else 1)
        left = each * (progress.n_trials - done)
        feasible = [t.objectives[ACCURACY].value for t in progress.trials if t.feasible]
        best = f"best feasible {max(feasible):.3f}" if feasible else "none feasible yet"
        volume = feasible_hypervolume([t for t in progress.trials if t.state == "complete"])
        self._bar.update(
            self._trials,
            total=progress.n_trials,
            completed=done,
            facts=f"hypervolume {volume:.3f} | {best} | about {_duration(left)} left |",
        )
        self._console.print(_line(newest, progress.composed_epsilon), highlight=False, soft_wrap=True)


def _line(trial: TrialRecord, composed: float) -> str:
    if trial.state == "failed":
        return f"trial {trial.number:>3}  [red]failed[/]: {trial.cause}"
    o = trial.objectives
    verdict = "[green]feasible[/]" if trial.feasible else f"[yellow]breaks {', '.join(trial.blocking)}[/]"
    p = trial.params
    return (
        f"trial {trial.number:>3}  eps {_epsilon(p.target_epsilon):>4} (search {_epsilon(composed):>5})  "
        f"L{p.masking_level} depth {p.adapted_layers}  accuracy {o[ACCURACY].value:.3f}  risk {o[RISK].value:+.3f}  "
        f"penalty {o[PENALTY].value:.3f}  {verdict}"
    )


@contextmanager
def fetching(console: Console) -> Iterator[Callable[[str, int, int], None]]:
    """A bar for one thing after another."""
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        console=console,
        transient=True,
    ) as bar:
        task = bar.add_task("starting", total=None)
        yield lambda what, done, total: bar.update(task, description=what, completed=done, total=total or None)


def print_result(console: Console, result: StudyResult) -> None:
    """The front with the status quo and the anchors, the cost, the recommendation."""
    shown: list[tuple[str, TrialRecord]] = []
    if result.reference is not None:
        shown.append(("status quo", result.reference))
    labels = () if result.cost.policy == "select_one" else ("strictest", "head alone")
    shown += [(label, t) for label, t in zip(labels, result.trials, strict=False)]
    anchors = {t.number for _, t in shown}
    rest = sorted(
        (t for t in result.complete if t.number in result.on_front), key=lambda t: -t.objectives[ACCURACY].value
    )
    shown += [("front", t) for t in rest if t.number not in anchors]
    table = Table(title=f"{result.name}: feasible front and anchors", box=None, pad_edge=False)
    for name in ("", "trial", "setting", "accuracy", "risk", "worst tenth", "penalty", "feasible"):
        table.add_column(
            name, justify="left" if name in ("", "setting", "feasible") else "right", no_wrap=name != "feasible"
        )
    for label, trial in shown:
        table.add_row(*_cells(label, trial, trial.number in result.on_front))
    console.print(table)
    print_attribute(console, result)
    _print_reference(console, result)
    correlation = likeness(result)
    if correlation > TOO_ALIKE:
        console.print(
            f"[yellow]Penalty and membership risk correlate at {correlation:.2f} over the trials: nearly one objective.[/]",
            highlight=False,
            soft_wrap=True,
        )
    if result.about.get("engine") == "opacus":
        console.print(
            "Engine: the reference path, one shadow after another: as asked for, or because the fast one does not know the model.",
            highlight=False,
            soft_wrap=True,
        )
    cost = result.cost
    console.print(
        f"\nThe search, policy {cost.policy}: composed epsilon {_epsilon(cost.composed_epsilon)} at delta {cost.delta:g} "
        f"({cost.label}).",
        highlight=False,
        soft_wrap=True,
    )
    for notice, trials in result.notices.items():
        console.print(f"Note: {notice} ({trials}).", highlight=False, soft_wrap=True)
    for reason in dict.fromkeys(t.claim for t in result.complete if t.claim != HOLDS):
        console.print(f"[bold red]DP claim {reason}.[/]", highlight=False, soft_wrap=True)
    for trial in result.complete:
        for alarm in trial.alarms:
            console.print(f"[bold red]Trial {trial.number}, {alarm}.[/]", highlight=False, soft_wrap=True)
    choice = result.recommend()
    if choice.trial is None:
        console.print(f"[bold]No recommendation[/]: {choice.reason}.", highlight=False, soft_wrap=True)
        return
    spent = choice.trial.extras["epsilon_spent"].value
    console.print(
        f"[bold]Recommended: trial {choice.trial.number}[/] (epsilon {_epsilon(spent)}, claim {choice.trial.claim}); {choice.reason}.",
        highlight=False,
        soft_wrap=True,
    )
    print_confirmation(console, result)


def _print_reference(console: Console, result: StudyResult) -> None:
    if result.reference is None:
        console.print("\nNo status quo: the policy allows no training without DP.", highlight=False)
        return
    extras = result.reference.extras
    nulls = result.null_aucs
    console.print(
        f"\nStatus quo {result.reference.objectives[ACCURACY].value:.3f}, scikit-learn baseline on the same frozen features "
        f"{extras['baseline_accuracy'].value:.3f}. "
        + (
            f"Null: records that no shadow saw score AUC {sum(nulls) / len(nulls):.3f} over {len(nulls)} trials."
            if nulls
            else ""
        ),
        highlight=False,
        soft_wrap=True,
    )


def _cells(label: str, trial: TrialRecord, on_front: bool) -> list[str]:
    p = trial.params
    setting = f"eps {_epsilon(p.target_epsilon)} L{p.masking_level} depth {p.adapted_layers}"
    if p.layers_dropped:
        setting += f" top -{p.layers_dropped}"
    if p.n_queries:
        setting += f" queries {p.n_queries}"
    if p.adapted_layers:
        setting += f" rank {p.lora_rank}"
    if trial.state == "failed":
        return [label, str(trial.number), setting, "", "", "", "", f"failed: {trial.cause}"]
    verdict = "[green]yes[/]" + (", on the front" if on_front and label != "front" else "") if trial.feasible else ""
    return [
        label,
        str(trial.number) if trial.number >= 0 else "-",
        setting,
        _pm(trial.objectives[ACCURACY]),
        _pm(trial.objectives[RISK]),
        told(trial.extras.get("worst_decile")).replace("not assessed", "-"),
        _pm(trial.objectives[PENALTY]),
        verdict or f"[yellow]no: {', '.join(trial.blocking)}[/]",
    ]


def _pm(m: Measurement) -> str:
    return f"{m.value:.3f} ± {m.stderr:.3f}" if m.stderr else f"{m.value:.3f}"


def _epsilon(value: float) -> str:
    return "none" if math.isinf(value) else f"{value:.2f}" if value < 10 else f"{value:.1f}"


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes >= 1 else f"{max(0, round(seconds))} s"


def print_policy(console: Console, policy: Policy) -> None:
    """What the policy means for what is shown, before anything is spent."""
    if policy.answer_noise:
        console.print(
            f"Policy {policy}: accuracy, risk and validity are told with Gaussian noise of {policy.answer_noise:g} times their "
            "sensitivity. The accuracy gap between groups is not assessed, which adds its whole weight to every penalty.",
            highlight=False,
            soft_wrap=True,
        )


def print_plan(console: Console, plan: Plan) -> None:
    """What a study would take."""
    table = Table(title=f"Plan of {plan.name}: nothing has been spent", show_header=False, box=None)
    rows: list[tuple[str, Any]] = [
        ("records", ", ".join(f"{part} {n}" for part, n in plan.records.items())),
        (
            "time",
            f"about {_duration(plan.seconds)} on this machine for {plan.trials} trials, "
            f"{_duration(plan.trunk_seconds)} of it masking and trunk",
        ),
        ("disk", f"about {plan.disk_bytes / 1e9:.1f} GB in the study's folder"),
        ("epsilon of a trial", f"{plan.epsilon_low:g} to {plan.epsilon_high:g} at delta {plan.delta:g}"),
        ("epsilon of the search", f"{plan.composed_low:.1f} to {plan.composed_high:.0f}, were all trials at one end"),
        (f"policy {plan.policy}", plan.holds),
    ]
    for name, value in rows:
        table.add_row(f"[bold]{name}[/]", value)
    console.print(table)


def print_ledger(console: Console, entries: Sequence[Entry]) -> None:
    """Studies of a data set, what they are charged for, and what that composes to."""
    columns = ("trainings", "open", "failed", "without DP", "answers", "composed epsilon", "delta")
    table = Table("study", "policy", *columns, box=None)
    studies = list(dict.fromkeys(e.study for e in entries if e.study))
    for study in studies:
        _ledger_row(table, study, [e for e in entries if e.study == study], one=True)
    if len(studies) > 1:
        _ledger_row(table, "[bold]all[/]", entries, one=False)
    console.print(table)
    console.print("An odometer, not a guarantee, unless a policy fixed a budget before.", highlight=False)
    bare = [e.study for e in entries if e.kind == "reserve" and e.body.get("note") == NO_GUARANTEE]
    for study in dict.fromkeys(bare):
        console.print(f"{study}: {NO_GUARANTEE}.", highlight=False)


def _ledger_row(table: Table, name: str, entries: Sequence[Entry], *, one: bool) -> None:
    events = charged(entries)
    runs = [e for e in events if isinstance(e, TrainingRun)]
    kinds = Counter(e.kind for e in entries)
    delta = max((run.delta for run in runs), default=0.0)
    epsilon, _ = composed(events, delta=delta, disjoint=one)
    still = kinds["reserve"] - kinds["commit"] - kinds["abort"]
    bare = sum(not run.private for run in runs)
    policy = next((str(e.body.get("policy", "")) for e in entries if e.kind == "gate"), "") if one else ""
    answers = len(events) - len(runs)
    counts = [str(n) for n in (len(runs), still, kinds["abort"], bare, answers)]
    table.add_row(name, policy, *counts, _epsilon(epsilon), f"{delta:g}")
