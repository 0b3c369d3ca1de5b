"""Workers of a search: one pool, each loads once, and a death costs one trial."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

import moo
from moo.core.errors import InputError, StorageError, TrialError
from moo.search import LOST, REFUSED, Candidate, Outcome, search
from tests.fixtures.black_box import GOALS, SPACE, evaluate, told


class Counting:
    """A black box that counts in a folder how often it was loaded and called, and dies where it is told to."""

    def __init__(self, folder: Path, *, dies: Mapping[int, int] | None = None) -> None:
        self.folder, self.dies = folder, dies or {}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        (self.folder / f"loaded-{os.getpid()}-{time.monotonic_ns()}").touch()

    def __call__(self, candidate: Candidate) -> Outcome:
        before = len(list(self.folder.glob(f"trial-{candidate.number}-*")))
        (self.folder / f"trial-{candidate.number}-{before}").touch()
        if before < self.dies.get(candidate.number, 0):
            os._exit(9)
        found = evaluate(candidate)
        return Outcome(values=found.values, constraints=found.constraints, payload={"attempt": candidate.attempt})


def run(black_box: Any, **changes: Any) -> Any:
    given = {"n_trials": 12, "population": 4, "executor": "processes", "workers": 2}
    return search(black_box, SPACE, GOALS, **(given | changes))


def loads(folder: Path) -> list[str]:
    return [path.name.split("-")[1] for path in folder.glob("loaded-*")]


def calls(folder: Path, number: int) -> int:
    return len(list(folder.glob(f"trial-{number}-*")))


class Ledger:
    """Reservations as a study makes them."""

    def __init__(self, denies: Mapping[int, int] | None = None) -> None:
        self.reserved: list[int] = []
        self.denies = denies or {}

    def before(self, candidates: Sequence[Candidate]) -> dict[int, Outcome]:
        numbers = [c.number for c in candidates]
        denied = [n for n in numbers if self.reserved.count(n) >= self.denies.get(n, 99)]
        self.reserved += [n for n in numbers if n not in denied]
        return {n: Outcome(values={}, constraints={}, cause=REFUSED) for n in denied}

    def attempt(self, number: int) -> str:
        return f"{number}:{self.reserved.count(number)}"


def test_workers_load_once_and_a_death_costs_one_trial_a_second_reservation(tmp_path: Path) -> None:
    ledger = Ledger()
    black_box = Counting(tmp_path, dies={2: 1, 5: 9})
    result = run(black_box, n_trials=8, before=ledger.before, attempts=ledger.attempt)
    assert [t.outcome.cause for t in result.trials] == [LOST if n == 5 else "" for n in range(8)]
    assert all(not t.outcome.feasible for t in result.trials if t.outcome.cause)
    assert {n: ledger.reserved.count(n) for n in range(8)} == {n: 2 if n in (2, 5) else 1 for n in range(8)}
    assert {n: calls(tmp_path, n) for n in range(8)} == {n: 2 if n in (2, 5) else 1 for n in range(8)}
    attempts = {t.candidate.number: t.outcome.payload["attempt"] for t in result.trials if not t.outcome.cause}
    assert attempts == {n: f"{n}:{2 if n == 2 else 1}" for n in attempts}
    assert len(loads(tmp_path)) == len(set(loads(tmp_path)))
    assert 3 <= len(loads(tmp_path)) <= 2 + 3  # two at first, and at most one after each death


def test_one_pool_serves_the_whole_search(tmp_path: Path) -> None:
    result = run(Counting(tmp_path))
    assert len(loads(tmp_path)) == len(set(loads(tmp_path))) == 2
    assert [t.candidate for t in result.trials] == [t.candidate for t in run(evaluate, executor="inline").trials]


def test_a_retry_that_the_budget_refuses_is_a_lost_trial(tmp_path: Path) -> None:
    ledger = Ledger(denies={1: 1})
    result = run(Counting(tmp_path, dies={1: 1}), n_trials=4, before=ledger.before)
    assert [t.outcome.cause for t in result.trials] == ["", LOST, "", ""]
    assert calls(tmp_path, 1) == 1


def test_nothing_is_started_where_nothing_is_to_be_evaluated(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first = run(Counting(tmp_path / "a"), storage=tmp_path / "s.db", n_trials=4)
    again = run(Counting(tmp_path / "b"), storage=tmp_path / "s.db", n_trials=4)
    assert told(again) == told(first)
    assert loads(tmp_path / "b") == []


class Unloadable:
    """A black box that cannot be loaded elsewhere."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        raise RuntimeError("no licence on this machine")

    def __getstate__(self) -> dict[str, Any]:
        return {"a": 1}

    def __call__(self, candidate: Candidate) -> Outcome:
        return evaluate(candidate)


def test_a_black_box_that_does_not_travel_is_refused_before_anything_is_reserved() -> None:
    for black_box, message in ((lambda c: evaluate(c), "must be picklable"), (Unloadable(), "no licence")):
        ledger = Ledger()
        with pytest.raises(InputError, match=message) as caught:
            run(black_box, before=ledger.before)
        assert "\n" not in str(caught.value)
        assert ledger.reserved == []


def errs(candidate: Candidate) -> Outcome:
    if candidate.number == 1:
        raise StorageError("the disk must be there, but is not.")
    if candidate.number == 2:
        raise TrialError("x", cause="y")
    if candidate.number == 3:
        raise KeyError(candidate.number)
    return evaluate(candidate)


@pytest.mark.parametrize(("n_trials", "error"), [(2, StorageError), (4, (StorageError, KeyError))])
def test_an_error_of_the_black_box_is_raised_in_the_driver(n_trials: int, error: Any) -> None:
    with pytest.raises(error) as caught:
        run(errs, n_trials=n_trials, workers=1)
    assert any("in errs" in note for note in caught.value.__notes__)


def misses_a_file(candidate: Candidate) -> Outcome:
    Path(f"/nowhere/{candidate.number}").read_text()
    return evaluate(candidate)


@pytest.mark.parametrize("executor", ["inline", "processes"])
def test_a_file_that_the_black_box_misses_is_no_fault_of_the_storage(executor: str, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="/nowhere/0"):
        run(misses_a_file, executor=executor, workers=1, storage=tmp_path / "s.db")


UNGUARDED = """
from moo.search import *
from moo.core.measurement import Measurement
def evaluate(candidate):
    return Outcome(values={"a": Measurement(value=candidate.params["x"])}, constraints={})
reserved = []
try:
    search(evaluate, Space({"x": Real(0.0, 1.0)}), [Goal(name="a", direction="minimize", reference=1.0)], n_trials=3,
           executor="processes", before=lambda c: reserved.extend(c) or {})
except OSError as error:
    print(type(error).__name__, error, reserved)
"""


def test_a_script_without_its_guard_is_told_so_before_anything_is_reserved(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(UNGUARDED)
    environment = {**os.environ, "PYTHONPATH": str(Path(moo.__file__).parents[1])}
    told = subprocess.run([sys.executable, str(script)], env=environment, capture_output=True, text=True, check=False)
    lines = told.stdout.splitlines()
    assert lines[-1].startswith("MachineError worker processes must start")
    assert "if __name__ == '__main__':" in lines[-1]
    assert lines[-1].endswith("[]")


INTERRUPTED = """
import signal, sys
# a shell starts its background jobs without it
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.path.insert(0, sys.argv[1])
from tests.unit.moo.search.test_workers import Sleeping, run
if __name__ == "__main__":
    run(Sleeping())
"""


class Sleeping:
    def __call__(self, candidate: Candidate) -> Outcome:
        os.write(1, f"{os.getpid()}\n".encode())
        time.sleep(60)
        return evaluate(candidate)


def test_an_interrupt_ends_all_workers_and_leaves_no_traceback_of_theirs(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(INTERRUPTED)
    environment = {**os.environ, "PYTHONPATH": str(Path(moo.__file__).parents[1])}
    with subprocess.Popen(
        [sys.executable, str(script), str(Path(moo.__file__).parents[1])],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as driver:
        assert driver.stdout is not None
        workers = [int(driver.stdout.readline()) for _ in range(2)]
        os.killpg(driver.pid, signal.SIGINT)
        _, errors = driver.communicate(timeout=60)
    assert errors.count("Traceback") == 1
    assert errors.rstrip().endswith("KeyboardInterrupt")
    for worker in workers:
        with pytest.raises(ProcessLookupError):
            os.kill(worker, 0)
