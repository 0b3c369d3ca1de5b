"""The search on torch-free black boxes: determinism, crashes, constraints, storage, what the dashboard sees."""

import json
import math
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from wsgiref.util import setup_testing_defaults

import numpy as np
import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

import moo
from moo.core.errors import ConfigChangedError, InputError, StorageError, TrialError
from moo.core.measurement import Measurement
from moo.search import Candidate, Goal, Integer, Outcome, Progress, Real, Space, search
from moo.search.sampler import NAMES
from tests.fixtures.black_box import SPACE, evaluate, run, told


def sometimes_fails(candidate: Candidate) -> Outcome:
    if candidate.number % 5 == 2:
        raise TrialError("the loss must be finite, but is NaN.", cause="NaN loss")
    return evaluate(candidate)


def test_same_seed_same_trials_and_another_seed_others() -> None:
    assert told(run()) == told(run())
    assert told(run()) != told(run(seed=1))


@pytest.mark.parametrize("sampler", NAMES)
def test_every_sampler_runs_and_repeats(sampler: str) -> None:
    if sampler == "gp":
        pytest.importorskip("scipy")
    first = run(sampler=sampler, n_trials=12, population=6)
    assert told(first) == told(run(sampler=sampler, n_trials=12, population=6))


def test_processes_give_what_inline_gives() -> None:
    assert told(run(n_trials=10, population=5, executor="processes", workers=2)) == told(run(n_trials=10, population=5))


def test_enqueued_parameters_come_first() -> None:
    wanted = [{"x": 0.5, "y": 0.1, "n": 2}, {"x": 0.0, "y": 1.0, "n": 0}]
    result = run(enqueue=wanted)
    assert [dict(t.candidate.params) for t in result.trials[:2]] == wanted
    assert [t.candidate.generation for t in result.trials] == [n // 8 for n in range(24)]


@pytest.mark.parametrize(("stop_at", "file"), [(0, ""), (3, ""), (8, ""), (13, "s.db"), (23, "")])
def test_an_interrupted_search_goes_on_as_if_it_had_not_been(tmp_path: Path, stop_at: int, file: str) -> None:
    storage = tmp_path / file if file else optuna.storages.InMemoryStorage()

    def interrupted(candidate: Candidate) -> Outcome:
        if candidate.number == stop_at:
            raise KeyboardInterrupt
        return evaluate(candidate)

    with pytest.raises(KeyboardInterrupt):
        run(evaluate=interrupted, storage=storage)
    evaluated = []

    def counted(candidate: Candidate) -> Outcome:
        evaluated.append(candidate.number)
        return evaluate(candidate)

    resumed = run(evaluate=counted, storage=storage)
    assert told(resumed) == told(run())
    assert evaluated == list(range(stop_at, 24))  # nothing finished is run again


SCRIPT = """
import sys, time
sys.path.insert(0, sys.argv[2])
from tests.fixtures.black_box import evaluate, run
def slow(candidate):
    time.sleep(0.02)
    return evaluate(candidate)
run(evaluate=slow, storage=sys.argv[1])
"""


@pytest.mark.slow
def test_a_killed_search_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    storage = tmp_path / "s.db"
    for wait in (2.5, 3.0, 3.5):
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(SCRIPT), storage, Path(moo.__file__).parents[1]]
        )
        time.sleep(wait)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert told(run(storage=storage)) == told(run())
    states = {t.state for t in optuna.load_study(study_name="search", storage=f"sqlite:///{storage}").trials}
    assert states == {optuna.trial.TrialState.COMPLETE}  # none left running


def test_failed_trials_are_recorded_infeasible_and_the_search_goes_on() -> None:
    result = run(evaluate=sometimes_fails, constraint_names=("limit",))
    failed = [t for t in result.trials if t.outcome.cause]
    assert [t.candidate.number for t in failed] == [2, 7, 12, 17, 22]
    assert len(result.trials) == 24
    assert all(t.outcome.cause == "NaN loss" and not t.outcome.feasible for t in failed)
    assert all(set(t.outcome.constraints) == {"limit", "failed"} for t in result.trials)


def test_optuna_knows_constraints_of_every_trial_and_agrees_on_the_front() -> None:
    storage = optuna.storages.InMemoryStorage()
    result = run(evaluate=sometimes_fails, constraint_names=("limit",), storage=storage)
    study = optuna.load_study(study_name="search", storage=storage)
    assert study.user_attrs["moo:constraints"] == ["limit", "failed"]
    listed = [[t.outcome.constraints[name] for name in ("limit", "failed")] for t in result.trials]
    assert [list(t.constraints.values()) for t in study.trials] == listed
    feasible = [t for t in result.trials if t.outcome.feasible]

    def dominated(t: Any) -> bool:
        mine = [-t.outcome.values["score"].value, t.outcome.values["cost"].value]
        others = [[-o.outcome.values["score"].value, o.outcome.values["cost"].value] for o in feasible]
        return any(all(a <= b for a, b in zip(o, mine, strict=True)) and o != mine for o in others)

    front = {t.candidate.number for t in feasible if not dominated(t)}
    assert {t.number for t in study.best_trials} == front


def test_the_dashboard_shows_constraints_of_every_trial(tmp_path: Path) -> None:
    from optuna_dashboard import wsgi  # imports a web server's worth of modules

    run(n_trials=8, storage=tmp_path / "s.db")
    app = wsgi(f"sqlite:///{tmp_path / 's.db'}")
    captured: list[str] = []
    environ: dict[str, Any] = {"PATH_INFO": "/api/studies/1", "QUERY_STRING": "after=0"}
    setup_testing_defaults(environ)

    def start(status: str, *_: Any) -> Callable[[bytes], object]:
        captured.append(status)
        return lambda body: body

    body = b"".join(app(environ, start))
    assert captured == ["200 OK"]
    trials = json.loads(body)["trials"]
    assert len(trials) == 8
    assert all(len(t["constraints"]) == 2 for t in trials)


def test_exact_repeats_become_replicates_and_are_pooled() -> None:
    storage = optuna.storages.InMemoryStorage()
    tiny = Space({"n": Integer(0, 1)})
    goals = (Goal(name="v", direction="minimize", reference=10.0),)

    def noisy(candidate: Candidate) -> Outcome:
        value = candidate.params["n"] + 0.1 * candidate.replicate
        return Outcome(values={"v": Measurement(value=value)}, constraints={})

    result = search(noisy, tiny, goals, n_trials=8, population=4, storage=storage)
    seen: dict[float, int] = {}
    for trial in result.trials:
        n = trial.candidate.params["n"]
        assert trial.candidate.replicate == seen.get(n, 0)
        seen[n] = seen.get(n, 0) + 1
    study = optuna.load_study(study_name="search", storage=storage)
    for trial, stored in zip(result.trials, study.trials, strict=True):
        r = trial.candidate.replicate
        assert stored.value == pytest.approx(trial.candidate.params["n"] + 0.1 * r / 2)


def test_a_changed_configuration_is_refused_and_named(tmp_path: Path) -> None:
    run(n_trials=4, storage=tmp_path / "s.db", config={"limit": 1})
    with pytest.raises(ConfigChangedError, match="limit was 1 and is now 2"):
        run(n_trials=4, storage=tmp_path / "s.db", config={"limit": 2})
    with pytest.raises(ConfigChangedError, match="seed was 0 and is now 3"):
        run(n_trials=4, storage=tmp_path / "s.db", config={"limit": 1}, seed=3)
    with pytest.raises(InputError, match="population must be 8"):
        run(n_trials=4, storage=tmp_path / "s.db", config={"limit": 1}, population=5)


def test_a_storage_that_is_no_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.db"
    path.write_text("these are my notes, not a database, and they are long enough to be taken for a header\n" * 3)
    before = path.read_bytes()
    with pytest.raises(StorageError, match="must be readable"):
        run(storage=path)
    assert path.read_bytes() == before


def test_a_locked_storage_is_refused(tmp_path: Path) -> None:
    run(n_trials=2, population=2, storage=tmp_path / "s.db")
    with sqlite3.connect(tmp_path / "s.db") as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StorageError, match="locked"):
            run(n_trials=4, population=2, storage=f"sqlite:///{tmp_path / 's.db'}?timeout=0.1")


def test_two_searches_on_one_storage_are_refused(tmp_path: Path) -> None:
    def second(_: Progress) -> None:
        with pytest.raises(StorageError, match="another holds"):
            run(storage=tmp_path / "s.db")

    run(n_trials=2, population=2, storage=tmp_path / "s.db", callbacks=[second])


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError):
        run(storage=tmp_path / "file" / "s.db")


def test_progress_counts_up() -> None:
    seen: list[int] = []
    run(callbacks=[lambda p: seen.append(len(p.done))])
    assert seen == list(range(1, 25))


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"x": 0.5, "y": 0.1}, "n must be given"),
        ({"x": 0.5, "y": 0.1, "n": 1, "z": 1}, "got z"),
        ({"x": 1.5, "y": 0.1, "n": 1}, "x must be between 0 and 1"),
    ],
)
def test_bad_parameters_are_named(params: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        run(enqueue=[params])


@pytest.mark.parametrize("bad", [{"n_trials": 0}, {"population": 1}, {"executor": "threads"}, {"sampler": "best"}])
def test_bad_arguments_are_named(bad: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(bad))):
        run(**bad)


@given(low=st.floats(-1e6, 1e6), width=st.floats(0, 1e6), at=st.floats(0, 1))
def test_space_takes_what_is_inside_and_refuses_what_is_not(low: float, width: float, at: float) -> None:
    space = Space({"v": Real(low, low + width)})
    inside = min(low + at * width, low + width)
    assert space.check({"v": inside}) == {"v": inside}
    with pytest.raises(InputError):
        space.check({"v": low + width + max(1.0, abs(low + width)) * 1e-3 + 1e-9})


def test_a_dimension_upside_down_is_refused() -> None:
    with pytest.raises(InputError, match="low <= high"):
        Real(1.0, 0.0)
    with pytest.raises(InputError, match="log scale"):
        Real(0.0, 1.0, log=True)


def test_draws_are_uniform_on_each_dimensions_own_scale() -> None:
    rng = np.random.default_rng(0)
    drawn = [SPACE.draw(rng) for _ in range(4000)]
    assert all(SPACE.check(d) == d for d in drawn)
    assert np.mean([d["x"] for d in drawn]) == pytest.approx(0.5, abs=0.02)
    assert np.mean([math.log10(d["y"]) for d in drawn]) == pytest.approx(-1.5, abs=0.05)
    assert np.bincount([int(d["n"]) for d in drawn]) == pytest.approx([1000] * 4, rel=0.1)


def test_a_worker_ends_with_its_driver(tmp_path: Path) -> None:
    """A driver that is killed takes its workers along: a training that went on would be charged to nobody."""
    script = tmp_path / "driver.py"
    script.write_text(
        textwrap.dedent(
            """
            import sys, time
            from pathlib import Path
            from moo.search.executors import executor_of
            from moo.search.types import Candidate, Outcome

            def beat(candidate):
                for _ in range(1200):
                    Path(sys.argv[1]).write_text(str(time.time()))
                    time.sleep(0.05)
                return Outcome(values={}, constraints={}, payload={})

            if __name__ == "__main__":
                with executor_of(beat, executor="processes", workers=1) as pool:
                    list(pool.run([Candidate(number=0, generation=0, params={})]))
            """
        )
    )
    heart = tmp_path / "heart"
    home = str(Path(moo.__file__).parents[1])
    driver = subprocess.Popen([sys.executable, str(script), str(heart)], env={**os.environ, "PYTHONPATH": home})
    try:
        until = time.monotonic() + 120
        while not heart.exists() and time.monotonic() < until:
            time.sleep(0.1)
        assert heart.exists()
    finally:
        driver.kill()
        driver.wait()
    until = time.monotonic() + 60
    last = -1.0
    while time.monotonic() < until and heart.stat().st_mtime != last:
        last = heart.stat().st_mtime
        time.sleep(2)
    assert heart.stat().st_mtime == last
