"""What the terminal shows: a live bar while a study runs, and tables afterwards."""

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from moo.cli.console import ROOMY, heading, narrow, say
from moo.cli.risk_lines import print_attribute, print_recommendation, told
from moo.core.measurement import Measurement
from moo.core.trial_record import (
    ABOVE_MAJORITY,
    ACCURACY,
    MAJORITY,
    PENALTY,
    RISK,
    Transformation,
    TrialRecord,
    describe_steps,
)
from moo.objectives.compliance.sensitivity import TOO_ALIKE
from moo.privacy.claims import HOLDS
from moo.privacy.composed_epsilon import ComposedEpsilon, compose
from moo.privacy.events import TrainingRun
from moo.privacy.ledger import NO_GUARANTEE, LedgerEntry, charged
from moo.privacy.release_policy import Policy
from moo.report.sections.likeness import likeness
from moo.studies.results.recommendation import p_feasible
from moo.studies.results.result import StudyResult, feasible_hypervolume
from moo.studies.setup.legal_gates import notes_of

if TYPE_CHECKING:
    from moo.studies.search.estimate import Plan
    from moo.studies.search.progress import StudyProgress


class Live:
    """A progress bar that is fed with `StudyProgress`; on a terminal it moves, elsewhere each trial is a line.

    Args:
        console: Terminal or file.
        n_trials: Trials that are expected.
        secret: True where trials and their number are not told.
    """

    def __init__(self, console: Console, n_trials: int, *, secret: bool = False) -> None:
        self._console = console
        self._started = time.monotonic()
        self._spent: list[float] = []
        self._bar = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=12 if narrow(console) else 24),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[facts]}"),
            console=console,
        )
        self._trials = self._bar.add_task("trials", total=n_trials, facts="", visible=not secret)
        self._stage = self._bar.add_task("now", total=1, facts="starting")

    def __enter__(self) -> "Live":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.update(self._stage, visible=False)
        self._bar.stop()

    def __call__(self, progress: "StudyProgress") -> None:
        if progress.stage:
            total = progress.stage_total or 1
            done = progress.stage_done if progress.stage_total else 0
            self._bar.update(self._stage, facts=progress.stage, total=total, completed=done)
        if progress.newest is not None:
            self._trial(progress, progress.newest)

    def _trial(self, progress: "StudyProgress", newest: TrialRecord) -> None:
        done = len(progress.trials)
        self._spent.append(time.monotonic())
        since = self._spent[0] if len(self._spent) > 1 else self._started
        each = (self._spent[-1] - since) / max(1, len(self._spent) - 1 if len(self._spent) > 1 else 1)
        left = each * (progress.n_trials - done)
        feasible = [t.objectives[ACCURACY].value for t in progress.trials if t.feasible]
        facts = [f"best feasible {max(feasible):.3f}" if feasible else "none feasible yet"]
        if not narrow(self._console):
            volume = feasible_hypervolume([t for t in progress.trials if t.state == "complete"])
            facts.insert(0, f"hypervolume {volume:.3f}")
        if done < progress.n_trials:
            facts.append(f"about {_duration(left)} left")
        self._bar.update(self._trials, total=progress.n_trials, completed=done, facts=" | ".join(facts))
        say(self._console, _line(newest, progress.composed_epsilon, short=narrow(self._console)))


def _line(trial: TrialRecord, composed: ComposedEpsilon, *, short: bool) -> str:
    if trial.state == "failed":
        return f"trial {trial.number:>3}  [red]failed[/]: {trial.cause}"
    o = trial.objectives
    verdict = "[green]feasible[/]" if trial.feasible else f"[yellow]breaks {', '.join(trial.blocking)}[/]"
    p = trial.params
    halved = f" halvings {p.batch_halvings}" if p.batch_halvings else ""
    setting = f"eps {_epsilon(p.target_epsilon):>4}", f"L{p.masking_level} depth {p.adapted_layers}{halved}"
    private = f"{_epsilon(composed.private_part):>5}"
    search = f"(search ∞, DP alone {private})" if composed.includes_non_private else f"(search {private})"
    values = (
        f"accuracy {o[ACCURACY].value:.3f}{_against(trial)}  risk {o[RISK].value:+.3f}  penalty {o[PENALTY].value:.3f}"
    )
    if short:
        return f"trial {trial.number:>3}  {'  '.join(setting)}  {values}\n{'':9}{search}  {verdict}"
    return f"trial {trial.number:>3}  {setting[0]} {search}  {setting[1]}  {values}  {verdict}"


def _against(trial: TrialRecord) -> str:
    """Return the majority baseline that an accuracy stands against, in words; empty where it was not told."""
    return f" (majority {trial.extras[MAJORITY].value:.3f})" if MAJORITY in trial.extras else ""


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
    if result.alone:
        shown = [("the winner", t) for t in result.complete]
    heading(console, f"{result.name}: {'the winner' if result.alone else 'feasible front and anchors'}")
    console.print(_front_table(result, shown, short=narrow(console), roomy=console.width >= ROOMY))
    _print_majority(console, result, [t for _, t in shown])
    print_attribute(console, result)
    _print_reference(console, result)
    correlation = likeness(result)
    if correlation > TOO_ALIKE:
        say(
            console,
            f"[yellow]Penalty and membership risk correlate at {correlation:.2f} over the trials: nearly one objective.[/]",
        )
    if result.about.get("engine") == "opacus":
        say(
            console,
            "Engine: the reference path, one shadow after another: as asked for, "
            "or because the fast one does not know the model.",
        )
    cost = result.cost
    composed = (
        "" if cost.composed_epsilon is None else f"composed epsilon {cost.composed_epsilon} at delta {cost.delta:g} "
    )
    label = f"({cost.label})" if composed else cost.label
    say(console, f"\nThe search, policy {cost.policy}: {composed}{label}.")
    if cost.data_epsilon is not None:
        say(console, f"All studies on these data: composed epsilon {cost.data_epsilon}.")
    steps = [Transformation(**step) for step in result.about.get("data", {}).get("transformations", [])]
    for line in describe_steps(steps):
        say(console, f"Data, {line}.")
    for notice, trials in result.notices.items():
        say(console, f"Note: {notice} ({trials}).")
    for note in notes_of(result.spec):
        say(console, f"[yellow]{escape(note)}.[/]")
    _print_unassessed(console, result)
    _print_users(console, result)
    for reason in dict.fromkeys(t.claim for t in result.complete if t.claim != HOLDS):
        say(console, f"[bold red]DP claim {reason}.[/]")
    for trial in result.complete:
        for alarm in trial.alarms:
            say(console, f"[bold red]{_called(result, trial).capitalize()}, {alarm}.[/]")
    print_recommendation(console, result)


def _called(result: StudyResult, trial: TrialRecord) -> str:
    return "the winner" if result.alone else f"trial {trial.number}"


def _print_majority(console: Console, result: StudyResult, shown: Sequence[TrialRecord]) -> None:
    """Say what accuracy a constant answer has, and which trials are not above it by two standard errors."""
    told_of = [t for t in shown if MAJORITY in t.extras]
    if not told_of:
        if result.about.get("policy", {}).get("answer_noise"):
            say(console, "\nMajority baseline: not told, since an exact one would read private users.")
        return
    low = [t for t in told_of if t.extras[ABOVE_MAJORITY].value <= 2 * t.extras[ABOVE_MAJORITY].stderr]
    names = ", ".join("status quo" if t.number < 0 else _called(result, t) for t in low)
    say(
        console,
        f"\nAlways answering the most frequent class of the test users is right in {told(told_of[0].extras[MAJORITY])}."
        + (f" [yellow]Not above it by two standard errors: {names}.[/]" if low else ""),
    )


def _print_unassessed(console: Console, result: StudyResult) -> None:
    """What of the penalties stands for rules that lacked a fact: such a rule counts in full."""
    rows = [
        [r for r in t.contributions if r["verdict"] == "not assessed" and r["contribution"]] for t in result.complete
    ]
    most = max((sum(float(r["contribution"]) for r in each) for each in rows), default=0.0)
    if most:
        rules = dict.fromkeys(f"{r['rule']} {r['title_en'].lower()}" for each in rows for r in each)
        say(console, f"Note: up to {most:.3f} of a penalty is of what could not be assessed: {', '.join(rules)}.")


def _print_users(console: Console, result: StudyResult) -> None:
    """Say how the rules about users become known, where nothing says how many records a user has."""
    data = result.about.get("data", {})
    if "records_per_user" in data and data["records_per_user"] is None:
        say(
            console,
            "Note: rules about users are not assessed, since nothing says how many records a person has: name the column of the "
            "user, or declare one_record_per_user = true or max_records_per_user.",
        )


def _print_reference(console: Console, result: StudyResult) -> None:
    if result.reference is None:
        by = "policy" if result.cost.cap is None else "cap on these data"
        say(console, f"\nNo status quo: the {by} allows no training without DP.")
        return
    extras = result.reference.extras
    nulls = result.null_aucs
    say(
        console,
        f"\nStatus quo {result.reference.objectives[ACCURACY].value:.3f}, scikit-learn baseline on the same frozen features "
        f"{extras['baseline_accuracy'].value:.3f}. "
        + (
            f"Null: records that no shadow saw score AUC {sum(nulls) / len(nulls):.3f} over {len(nulls)} trials."
            if nulls
            else ""
        ),
    )


def _front_table(result: StudyResult, shown: Sequence[tuple[str, TrialRecord]], *, short: bool, roomy: bool) -> Table:
    """Return one row a trial; short, with its setting below its name; roomy, with its most exposed tenth of the users."""
    exposed = roomy and any(not math.isnan(_exposed(t).value) for _, t in shown)
    left = ("trial",) if short else ("", "trial", "setting")
    bound = () if short else ("at most",)
    numbers = ("accuracy", "risk", *bound, *(("worst tenth",) if exposed else ()), "penalty")
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in (*left, *numbers, "feasible"):
        right = name in numbers or (name == "trial" and not short)
        table.add_column(name, justify="right" if right else "left", no_wrap=name != "feasible")
    for label, trial in shown:
        number = "-" if trial.number < 0 or result.alone else str(trial.number)
        names = [label, number, _setting(trial)]
        if short:
            names = [f"{label}{'' if number == '-' else f', trial {number}'}\n {_setting(trial)}"]
        table.add_row(*names, *_values(trial, exposed=exposed, short=short), _verdict(label, trial, result))
    return table


def _setting(trial: TrialRecord) -> str:
    p = trial.params
    setting = f"eps {_epsilon(p.target_epsilon)} L{p.masking_level} depth {p.adapted_layers}"
    if p.layers_dropped:
        setting += f" top -{p.layers_dropped}"
    if p.n_queries:
        setting += f" queries {p.n_queries}"
    if p.batch_halvings:
        setting += f" halvings {p.batch_halvings}"
    return setting + (f" rank {p.lora_rank}" if p.adapted_layers else "")


def _exposed(trial: TrialRecord) -> Measurement:
    return trial.extras.get("worst_decile", Measurement(value=math.nan))


def _values(trial: TrialRecord, *, exposed: bool, short: bool) -> list[str]:
    """Accuracy, risk and its upper bound, the most exposed tenth, penalty; short, the bound is below the risk."""
    if trial.state == "failed":
        return [""] * (3 + exposed + (not short))
    told_of = [trial.objectives[ACCURACY], trial.objectives[RISK], *([_exposed(trial)] if exposed else [])]
    values = [told(m).replace("not assessed", "-") for m in (*told_of, trial.objectives[PENALTY])]
    upper = trial.objectives[RISK].upper
    bound = "-" if math.isnan(upper) else f"{upper:.3f}"
    if not short:
        return [*values[:2], bound, *values[2:]]
    accuracy, risk, penalty = (v.replace(" ± 0.", " ±.") for v in values)
    return [accuracy, f"{risk}\n<= {bound}", penalty]


def _verdict(label: str, trial: TrialRecord, result: StudyResult) -> str:
    if trial.state == "failed":
        return f"failed: {trial.cause}"
    chance = "" if trial.number < 0 else f", P {p_feasible(trial, result.limits):.2f}"
    if not trial.feasible:
        return f"[yellow]no: {', '.join(trial.blocking)}[/]{chance}"
    front = ", on the front" if trial.number in result.on_front and label != "front" else ""
    return f"[green]yes[/]{chance}{front}"


def _epsilon(value: float) -> str:
    return "none" if math.isinf(value) else f"{value:.2f}" if value < 10 else f"{value:.1f}"


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes >= 1 else f"{max(0, round(seconds))} s"


def print_policy(console: Console, policy: Policy) -> None:
    """What the policy means for what is shown, before anything is spent."""
    if policy.answer_noise:
        say(
            console,
            f"Policy {policy}: accuracy, risk and validity are told with Gaussian noise of "
            f"{policy.answer_noise:g} times their "
            "sensitivity. The accuracy gap between groups is not assessed, which adds its whole weight to every penalty.",
        )


def print_plan(console: Console, plan: "Plan") -> None:
    """What a study would take."""
    heading(console, f"Plan of {plan.name}: nothing has been spent")
    table = Table(show_header=False, box=None, pad_edge=False)
    rows: list[tuple[str, Any]] = [
        ("preparation", "\n".join(plan.preparation) or "not counted"),
        ("records", ", ".join(f"{part} {n}" for part, n in plan.records.items())),
        (
            "time",
            f"about {_duration(plan.seconds)} on this machine for {plan.trials} trials, "
            f"{_duration(plan.trunk_seconds)} of it masking and trunk",
        ),
        ("disk", f"about {plan.disk_bytes / 1e9:.1f} GB in the study's folder"),
        ("epsilon of a trial", f"{plan.epsilon_low:g} to {plan.epsilon_high:g} at delta {plan.delta:g}"),
        ("epsilon of the search", _planned_epsilon(plan)),
        (f"policy {plan.policy}", plan.holds),
    ]
    for name, value in rows:
        table.add_row(f"[bold]{name}[/]", value)
    console.print(table)
    for note in plan.notes:
        say(console, f"[yellow]{escape(note)}.[/]")


def _planned_epsilon(plan: "Plan") -> str:
    low, high = plan.composed_low, plan.composed_high
    span = f"{low.private_part:.1f} to {high.private_part:.0f}, if all trials were at one end of the space"
    return f"unbounded, since the status quo trains without DP; DP alone: {span}" if high.includes_non_private else span


_COUNTED = (("trainings", 9), ("open", 4), ("failed", 6), ("without DP", 7), ("answers", 7))


def print_ledger(console: Console, entries: Sequence[LedgerEntry]) -> None:
    """Studies of a data set, what they are charged for, and what that composes to."""
    studies = list(dict.fromkeys(e.study for e in entries if e.study))
    table = Table(box=None, pad_edge=False, padding=(0, 1 if narrow(console) else 2, 0, 0))
    table.add_column("study", min_width=max((len(word) for name in studies for word in name.split()), default=5))
    table.add_column("policy", overflow="fold")
    for name, least in (*_COUNTED, ("composed epsilon", 9), ("of it DP alone", 5), ("delta", 6)):
        table.add_column(name, justify="right", width=least)
    for study in studies:
        _ledger_row(table, study, [e for e in entries if e.study == study], one=True)
    if len(studies) > 1:
        _ledger_row(table, "[bold]all[/]", entries, one=False)
    console.print(table)
    say(console, "An odometer, not a guarantee, unless a policy fixed a budget before.")
    bare = [e.study for e in entries if e.kind == "reserve" and e.body.get("note") == NO_GUARANTEE]
    if bare:
        say(console, f"{', '.join(dict.fromkeys(bare))}: {NO_GUARANTEE}.")


def _ledger_row(table: Table, name: str, entries: Sequence[LedgerEntry], *, one: bool) -> None:
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
    bound = "unbounded" if composed.includes_non_private else _epsilon(composed.value)
    table.add_row(name, policy, *counts, bound, _epsilon(composed.private_part), f"{delta:g}")
