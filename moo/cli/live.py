"""Progress bars of the terminal: one of a running study, one of any other task."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from moo.cli.console import narrow, show
from moo.cli.language import listed, spoken, words
from moo.cli.numbers import duration, epsilon_text
from moo.core.trial_record import ACCURACY, MAJORITY, PENALTY, RISK, TrialRecord
from moo.privacy.composed_epsilon import ComposedEpsilon
from moo.studies.results.result import feasible_hypervolume

if TYPE_CHECKING:
    from moo.studies.search.progress import StudyProgress


class Live:
    """Progress bar that is fed with `StudyProgress`; on a terminal it moves, elsewhere each trial is a line.

    Args:
        console: Terminal or file.
        n_trials: Trials that are expected.
        secret: True if trials and their number must not be shown.
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
        self._trials = self._bar.add_task(words("trials"), total=n_trials, facts="", visible=not secret)
        self._stage = self._bar.add_task(words("now"), total=1, facts=words("starting"))

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
            self._bar.update(self._stage, facts=spoken(progress.stage), total=total, completed=done)
        if progress.newest is not None:
            self._trial(progress, progress.newest)

    def _trial(self, progress: "StudyProgress", newest: TrialRecord) -> None:
        done = len(progress.trials)
        self._spent.append(time.monotonic())
        since = self._spent[0] if len(self._spent) > 1 else self._started
        each = (self._spent[-1] - since) / max(1, len(self._spent) - 1 if len(self._spent) > 1 else 1)
        left = each * (progress.n_trials - done)
        facts = [_best(progress)]
        if not narrow(self._console):
            volume = feasible_hypervolume([t for t in progress.trials if t.state == "complete"])
            facts.insert(0, words("hypervolume {volume:.3f}", volume=volume))
        if done < progress.n_trials:
            facts.append(words("about {time} left", time=duration(left)))
        self._bar.update(self._trials, total=progress.n_trials, completed=done, facts=" | ".join(facts))
        show(self._console, _line(newest, progress.composed_epsilon, short=narrow(self._console)))


def _best(progress: "StudyProgress") -> str:
    feasible = [t.objectives[ACCURACY].value for t in progress.trials if t.feasible]
    if not feasible:
        return words("none feasible yet")
    return words("best feasible {accuracy:.3f}", accuracy=max(feasible))


def _line(trial: TrialRecord, composed: ComposedEpsilon, *, short: bool) -> str:
    """Return the line of a finished trial; short, it takes two."""
    if trial.state == "failed":
        return words("trial {number:>3}  [red]failed[/]: {cause}", number=trial.number, cause=spoken(trial.cause))
    parts = {
        "number": words("trial {number:>3}", number=trial.number),
        "epsilon": words("eps {epsilon:>4}", epsilon=epsilon_text(trial.params.target_epsilon)),
        "search": _search(composed),
        "setting": _setting(trial),
        "values": _values(trial),
        "verdict": _verdict(trial),
    }
    if short:
        return "{number}  {epsilon}  {setting}  {values}\n         {search}  {verdict}".format(**parts)
    return "{number}  {epsilon} {search}  {setting}  {values}  {verdict}".format(**parts)


def _search(composed: ComposedEpsilon) -> str:
    """Return the epsilon that the search has composed to."""
    private = f"{epsilon_text(composed.private_part):>5}"
    if composed.includes_non_private:
        return words("(search ∞, DP alone {private})", private=private)
    return words("(search {private})", private=private)


def _setting(trial: TrialRecord) -> str:
    p = trial.params
    setting = words("L{level} depth {depth}", level=p.masking_level, depth=p.adapted_layers)
    return setting + (words(" halvings {n}", n=p.batch_halvings) if p.batch_halvings else "")


def _values(trial: TrialRecord) -> str:
    o = trial.objectives
    majority = ""
    if MAJORITY in trial.extras:
        majority = words(" (majority {value:.3f})", value=trial.extras[MAJORITY].value)
    return words(
        "accuracy {accuracy:.3f}{majority}  risk {risk:+.3f}  penalty {penalty:.3f}",
        accuracy=o[ACCURACY].value,
        majority=majority,
        risk=o[RISK].value,
        penalty=o[PENALTY].value,
    )


def _verdict(trial: TrialRecord) -> str:
    if trial.feasible:
        return words("[green]feasible[/]")
    return words("[yellow]breaks {limits}[/]", limits=listed(list(trial.blocking)))


@contextmanager
def fetching(console: Console) -> Iterator[Callable[[str, int, int], None]]:
    """Show a bar for one thing after another; the block gets the function that moves it."""
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        console=console,
        transient=True,
    ) as bar:
        task = bar.add_task(words("starting"), total=None)
        yield lambda what, done, total: bar.update(task, description=spoken(what), completed=done, total=total or None)
