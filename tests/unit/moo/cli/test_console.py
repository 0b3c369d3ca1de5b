"""What stands in a terminal of 80 and of 120 columns, and in a pipe."""

import dataclasses
import io
import re
from pathlib import Path

import pytest
from rich.console import Console

from moo.cli import ledger_table, tables
from moo.cli.console import say
from moo.cli.live import Live
from moo.core.measurement import Measurement
from moo.core.messages import Message
from moo.privacy.composed_epsilon import ComposedEpsilon
from moo.privacy.ledger import read_entries
from moo.studies.accounting.account import ledger_path
from moo.studies.results.result import StudyResult, load_result
from moo.studies.search.progress import StudyProgress


@pytest.fixture
def result(study: tuple[Path, Path]) -> StudyResult:
    return load_result(study[1])


def console(width: int, *, terminal: bool = True) -> tuple[Console, io.StringIO]:
    out = io.StringIO()
    return Console(file=out, width=width, force_terminal=terminal, color_system=None), out


def test_words_stay_whole_on_a_terminal_and_lines_in_a_pipe() -> None:
    text = f"[bold]One[/] {'word ' * 30}/a/path/that/is/longer/than/the/line/and/must/not/be/broken end."
    shown, out = console(40)
    say(shown, f"\n{text}")
    first, *others = out.getvalue().strip("\n").split("\n")
    assert first.startswith("One word")
    assert out.getvalue().startswith("\n")
    assert all(line.startswith("  ") and (len(line) <= 40 or "/a/path" in line) for line in others)
    assert " ".join(out.getvalue().split()) == " ".join(text.replace("[bold]", "").replace("[/]", "").split())
    piped, out = console(40, terminal=False)
    say(piped, text)
    assert out.getvalue().count("\n") == 1


@pytest.mark.parametrize("width", [80, 120])
def test_the_result_fits_with_nothing_cut(result: StudyResult, width: int) -> None:
    deep = dataclasses.replace(result.complete[0].params, adapted_layers=1, lora_rank=16)
    constraints = dict.fromkeys(result.complete[0].constraints, 0.1)
    risk = {"membership_risk": Measurement(value=-0.112, stderr=0.034)}
    objectives = {**result.complete[0].objectives, **risk}
    broken = dataclasses.replace(result.complete[0], params=deep, constraints=constraints, objectives=objectives)
    changed = dataclasses.replace(result, trials=(broken, *result.trials[1:]))
    shown, out = console(width)
    tables.print_result(shown, changed)
    lines = out.getvalue().splitlines()
    assert all(len(line.rstrip()) <= width for line in lines)
    assert "…" not in out.getvalue()
    assert "L5 depth 1 rank 16" in out.getvalue()
    for trial in (changed.reference, *changed.trials[:2]):
        assert trial is not None
        assert f"{trial.objectives['membership_risk'].value:.3f} ±" in out.getvalue()


def test_the_most_exposed_tenth_is_shown_where_it_was_assessed_and_there_is_room(result: StudyResult) -> None:
    known = {**result.complete[0].extras, "worst_decile": Measurement(value=0.611, stderr=0.044)}
    told = dataclasses.replace(
        result, trials=(dataclasses.replace(result.complete[0], extras=known), *result.trials[1:])
    )
    for changed, width, there in ((told, 140, True), (told, 120, False), (told, 80, False), (result, 140, False)):
        shown, out = console(width)
        tables.print_result(shown, changed)
        assert "…" not in out.getvalue()
        assert ("worst tenth" in out.getvalue()) == ("0.611 ± 0.044" in out.getvalue()) == there


@pytest.mark.parametrize("width", [80, 120])
def test_a_trials_line_fits_and_the_bars_are_not_cut(result: StudyResult, width: int) -> None:
    shown, out = console(width)
    newest = dataclasses.replace(result.complete[0], constraints={"max_penalty": 0.2, "max_risk": 0.1})
    with Live(shown, 24) as live:
        spent = ComposedEpsilon(private_part=126.5, delta=1e-5, includes_non_private=False)
        told = StudyProgress(trials=(newest,), reference=None, newest=newest, n_trials=24, composed_epsilon=spent)
        live(told)
        live(dataclasses.replace(told, composed_epsilon=dataclasses.replace(spent, includes_non_private=True)))
        live(
            dataclasses.replace(told, newest=None, stage="trunk, masking level 5, pool", stage_done=3, stage_total=525)
        )
        live._bar.refresh()
    plain = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", out.getvalue()).replace("\r", "\n")
    assert all(len(line.rstrip()) <= width for line in plain.split("\n"))
    assert "…" not in plain
    assert "breaks max_penalty, max_risk" in " ".join(plain.split())
    assert "(search 126.5)" in plain
    assert "(search ∞, DP alone 126.5)" in " ".join(plain.split())
    assert "trunk, masking level 5, pool" in plain


def test_notices_that_differ_in_numbers_are_one(result: StudyResult) -> None:
    cut = "{} of 99 texts were longer than 24 tokens and were cut there"
    template = "{n} of {total} texts were longer than {tokens} tokens and were cut there"
    trials = [
        dataclasses.replace(t, notices=(Message(template, n=10 + t.number, total=99, tokens=24), "a {brace} of 1.5"))
        for t in result.trials[:-1]
    ]
    changed = dataclasses.replace(result, trials=(*trials, result.trials[-1]), reference=None)
    assert changed.notices == {
        cut.format("10–12"): "trial 0, trial 1, trial 2",
        "a {brace} of 1.5": "trial 0, trial 1, trial 2",
    }
    same = dataclasses.replace(changed, trials=tuple(dataclasses.replace(t, notices=("full",)) for t in result.trials))
    assert same.notices == {"full": "every trial"}
    many = dataclasses.replace(same, trials=(*same.trials, dataclasses.replace(result.trials[0], number=9)))
    assert many.notices == {"full": "4 of 5 trials"}


@pytest.mark.parametrize("width", [80, 120])
def test_a_ledger_is_shown_whole(study: tuple[Path, Path], width: int) -> None:
    entries = read_entries(ledger_path(str(study[0].with_name("letters.csv"))))
    shown, out = console(width)
    ledger_table.print_ledger(shown, entries)
    lines = out.getvalue().splitlines()
    assert all(len(line.rstrip()) <= width for line in lines)
    assert "…" not in out.getvalue()
    study_name = next(e.study for e in entries if e.study)
    assert all(word in out.getvalue() for word in (*study_name.split(), "trainings", "internal", "0.0001"))
