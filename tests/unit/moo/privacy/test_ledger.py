"""The ledger under many writers, kills and edits.

The filter under adaptive sequences; published numbers of composition.
"""

import dataclasses
import math
import os
import random
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
from contextlib import closing
from pathlib import Path

import dp_accounting
import numpy as np
import pytest
from dp_accounting import rdp
from dp_accounting.dp_event import RepeatAndSelectDpEvent
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq

from moo.core.errors import InputError, MachineError, StorageError
from moo.privacy import ledger as ledger_module
from moo.privacy.calibration import calibrate_noise
from moo.privacy.composition import (
    ORDERS,
    compose_epsilon,
    epsilon_of_all,
    epsilon_of_selected,
    epsilon_pld,
    epsilon_rdp,
    group_privacy,
    rdp_of,
    renyi_per_part,
)
from moo.privacy.events import Event, PrivateAnswer, TrainingRun
from moo.privacy.ledger import Ledger, read_entries, verify
from moo.privacy.renyi_filter import RenyiFilter, epsilon_at

RUN = TrainingRun(
    sample_rate=0.02, steps=250, noise_multiplier=1.0, max_grad_norm=1.0, delta=1e-5, n_units=2000, unit="customer"
)


def run_at(epsilon: float) -> TrainingRun:
    """Noise such that one run has this epsilon by PLD."""
    noise = calibrate_noise(target_epsilon=epsilon, delta=1e-5, sample_rate=0.02, steps=250)
    return dataclasses.replace(RUN, noise_multiplier=noise)


def run_at_rdp(epsilon: float) -> TrainingRun:
    """Noise such that one run has this epsilon by RDP."""

    def excess(noise: float) -> float:
        return epsilon_rdp(dataclasses.replace(RUN, noise_multiplier=noise)) - epsilon

    return dataclasses.replace(RUN, noise_multiplier=float(brentq(excess, 0.3, 5.0)))


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "data.ledger", "d" * 32)


def steps_of(ledger: Ledger) -> list[int]:
    return [run.steps for run in ledger.charged() if isinstance(run, TrainingRun)]


def test_what_is_reserved_is_charged_in_full_until_it_is_settled(ledger: Ledger) -> None:
    kept, trained, stopped = (ledger.reserve("s", i, RUN) for i in range(3))
    assert steps_of(ledger) == [250, 250, 250]
    ledger.commit("s", trained, steps=250)
    ledger.abort("s", stopped, steps=40, cause="non-finite loss")
    ledger.record("deny", "s", {"trial": 3, "reason": "budget"})
    assert steps_of(ledger) == [250, 250, 40]
    assert ledger.charged()[0] == RUN
    assert ledger.charged("other") == []
    assert kept == 2
    assert verify(ledger.path).intact


@pytest.mark.parametrize("settle", ["twice", "unknown", "to another study", "more steps"])
def test_a_settlement_that_does_not_fit_is_refused_and_writes_nothing(ledger: Ledger, settle: str) -> None:
    reservation = ledger.reserve("s", 0, RUN)
    if settle == "twice":
        ledger.commit("s", reservation, steps=250)
    before = ledger.entries()
    study, number, steps = {
        "twice": ("s", reservation, 250),
        "unknown": ("s", 77, 250),
        "to another study": ("t", reservation, 250),
        "more steps": ("s", reservation, 251),
    }[settle]
    with pytest.raises(InputError):
        ledger.commit(study, number, steps=steps)
    assert ledger.entries() == before


def test_a_ledger_of_another_data_set_is_refused(ledger: Ledger) -> None:
    with pytest.raises(InputError, match="to another"):
        Ledger(ledger.path, "e" * 32)
    assert Ledger(ledger.path, "d" * 32).entries() == ledger.entries()


def test_a_clock_that_goes_backwards_is_refused_and_the_chain_stays(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger.reserve("s", 0, RUN)
    monkeypatch.setattr(ledger_module, "_now", lambda: "2001-01-01T00:00:00.000000+00:00")
    with pytest.raises(MachineError, match="clock must not go backwards"):
        ledger.reserve("s", 1, RUN)
    assert len(ledger.entries()) == 2
    assert verify(ledger.path).intact


def test_a_file_that_is_no_ledger_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes"
    path.write_text("my own notes " * 100)
    with pytest.raises(StorageError, match="ledger must be readable"):
        Ledger(path, "d")
    assert path.read_text() == "my own notes " * 100
    with pytest.raises(InputError, match="run a study first"):
        read_entries(tmp_path / "absent")


def test_the_file_itself_refuses_updates_and_deletions(ledger: Ledger) -> None:
    with closing(sqlite3.connect(ledger.path)) as raw:
        for statement in ("UPDATE entries SET kind = 'gate'", "DELETE FROM entries"):
            with pytest.raises(sqlite3.IntegrityError, match="append-only"):
                raw.execute(statement)


def edited(ledger: Ledger, statement: str) -> None:
    """What someone with the file and without scruples can do."""
    with closing(sqlite3.connect(ledger.path)) as raw:
        raw.executescript(f"DROP TRIGGER no_update; DROP TRIGGER no_delete; {statement}")


@pytest.mark.parametrize("column", ["at", "kind", "study", "body", "previous", "hash"])
def test_any_edited_character_of_an_entry_is_found(tmp_path: Path, column: str) -> None:
    whole = Ledger(tmp_path / "whole", "d" * 32)
    for i in range(3):
        whole.commit("study", whole.reserve("study", i, RUN), steps=200)
    value = str(getattr(read_entries(whole.path)[3], column)) if column != "body" else None
    with closing(sqlite3.connect(whole.path)) as raw:
        value = value or raw.execute("SELECT body FROM entries WHERE seq = 4").fetchone()[0]
    for at in range(0, len(value), max(1, len(value) // 12)):
        path = tmp_path / f"{column}-{at}"
        path.write_bytes(whole.path.read_bytes())
        other = "x" if value[at] != "x" else "y"
        changed = (value[:at] + other + value[at + 1 :]).replace("'", "''")
        edited(Ledger(path, "d" * 32), f"UPDATE entries SET {column} = '{changed}' WHERE seq = 4")
        found = verify(path)
        assert not found.intact, (column, at)


def test_a_removed_entry_is_found_and_a_cut_tail_only_where_it_was_anchored(ledger: Ledger) -> None:
    for i in range(4):
        ledger.reserve("s", i, RUN)
    last = ledger.entries()[-1]
    assert verify(ledger.path, {last.seq: last.hash}).anchored == last.seq
    edited(ledger, "DELETE FROM entries WHERE seq = 5")
    assert verify(ledger.path).intact  # the honest limit
    assert "cut off" in verify(ledger.path, {last.seq: last.hash}).reason
    edited(Ledger(ledger.path, "d" * 32), "DELETE FROM entries WHERE seq = 2")
    assert verify(ledger.path).broken == 2


def test_a_chain_that_was_rewritten_whole_is_found_where_it_was_anchored(ledger: Ledger, tmp_path: Path) -> None:
    ledger.reserve("s", 0, RUN)
    head = ledger.entries()[-1]
    forged = Ledger(tmp_path / "forged", "d" * 32)
    forged.reserve("s", 0, dataclasses.replace(RUN, noise_multiplier=9.0))
    assert verify(forged.path).intact
    assert "not the one" in verify(forged.path, {head.seq: head.hash}).reason


WRITER = textwrap.dedent("""
    import sys, time
    from moo.privacy.ledger import Ledger
    from moo.privacy.events import TrainingRun
    run = TrainingRun(
        sample_rate=.02, steps=250, noise_multiplier=1.0, max_grad_norm=1.0, delta=1e-5, n_units=2000, unit="record"
    )
    ledger, study, until = Ledger(sys.argv[1], "d" * 32), sys.argv[2], time.time() + float(sys.argv[3])
    n = 0
    while time.time() < until:
        seq = ledger.reserve(study, n, run)
        print("reserved", seq, flush=True)
        ledger.commit(study, seq, steps=200)
        print("settled", seq, flush=True)
        n += 1
""")


def writers(path: Path, seconds: float, n: int = 8) -> list[subprocess.Popen[str]]:
    command = [sys.executable, "-c", WRITER, str(path)]
    return [
        subprocess.Popen([*command, f"study {i}", str(seconds)], stdout=subprocess.PIPE, text=True) for i in range(n)
    ]


@pytest.mark.slow
def test_eight_writers_leave_no_gap_no_fork_and_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "shared"
    Ledger(path, "d" * 32)
    told = [p.communicate(timeout=150)[0].split("\n") for p in writers(path, 60)]
    entries = read_entries(path)
    assert verify(path).intact
    assert [e.seq for e in entries] == list(range(1, len(entries) + 1))
    reserved = sorted(int(line.split()[1]) for lines in told for line in lines if line.startswith("reserved"))
    assert sorted(e.seq for e in entries if e.kind == "reserve") == reserved
    assert all(any(e.study == f"study {i}" for e in entries) for i in range(8))
    assert len(reserved) > 100


@pytest.mark.slow
def test_writers_that_are_killed_leave_a_chain_that_verifies_and_pay_in_full(tmp_path: Path) -> None:
    path, rng = tmp_path / "killed", random.Random(0)
    Ledger(path, "d" * 32)
    told: list[str] = []
    for _ in range(6):
        processes = writers(path, 30, n=3)
        time.sleep(1.5 + rng.random())
        for process in processes:
            os.kill(process.pid, signal.SIGKILL)
        told += [line for p in processes for line in p.communicate()[0].split("\n")]
        assert verify(path).intact
    entries = read_entries(path)
    kept = {e.seq for e in entries if e.kind == "reserve"}
    settled = {e.body["reservation"] for e in entries if e.kind == "commit"}
    assert {int(line.split()[1]) for line in told if line.startswith("reserved")} <= kept
    steps = steps_of(Ledger(path, "d" * 32))
    assert steps.count(250) == len(kept - settled)
    assert steps.count(200) == len(settled)


HALF_WRITTEN = textwrap.dedent("""
    import os, signal, sqlite3, sys
    connection = sqlite3.connect(sys.argv[1], isolation_level=None)
    connection.execute("PRAGMA cache_size = 1")  # pages go to the file before the commit
    connection.execute("BEGIN IMMEDIATE")
    for seq in range(100, 200):
        connection.execute("INSERT INTO entries VALUES (?, '', 'gate', '', ?, '', '')", (seq, "x" * 20_000))
    os.kill(os.getpid(), signal.SIGKILL)
""")


def test_whoever_reads_first_after_a_kill_in_the_middle_of_a_commit_sees_the_whole_chain(ledger: Ledger) -> None:
    ledger.reserve("s", 0, RUN)
    before = ledger.entries()
    subprocess.run([sys.executable, "-c", HALF_WRITTEN, str(ledger.path)], check=False)
    journal = ledger.path.with_name(f"{ledger.path.name}-journal")
    assert journal.stat().st_size > 0  # pages were written, and their old content kept for whoever comes next
    assert verify(ledger.path).intact
    assert ledger.entries() == before
    assert not journal.exists()


def test_a_full_disk_is_one_line_and_the_chain_stays(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite's own limit on pages gives the error that a full disk gives."""
    ledger.reserve("s", 0, RUN)
    real = sqlite3.connect

    def full(*args: object, **options: object) -> sqlite3.Connection:
        connection: sqlite3.Connection = real(*args, **options)  # type: ignore[call-overload]
        connection.execute("PRAGMA max_page_count = 1")
        return connection

    monkeypatch.setattr(ledger_module.sqlite3, "connect", full)
    with pytest.raises(StorageError, match="full"):
        ledger.record("gate", "s", {"note": "x" * 200_000})
    monkeypatch.undo()
    assert verify(ledger.path).intact
    assert ledger.reserve("s", 1, RUN) == len(ledger.entries())


@pytest.mark.parametrize(
    ("epsilon", "trials", "expected"),
    [
        (1, 10, 3.3),
        (1, 30, 6.1),
        (1, 100, 12.3),
        (3, 10, 8.4),
        (3, 30, 15.6),
        (3, 100, 33.4),
        (8, 10, 21.4),
        (8, 30, 42.2),
        (8, 100, 100.9),
    ],
)
def test_composition_gives_the_reference_table(epsilon: float, trials: int, expected: float) -> None:
    """q = .02, 250 steps, delta 1e-5, RDP for the run and for the sum, one shadow a trial."""
    found = compose_epsilon([run_at_rdp(epsilon)] * trials, delta=1e-5)
    assert found == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize(
    ("epsilon", "rdp_one", "sixty", "five"), [(1, 1.12, 9.4, 2.3), (3, 3.57, 26.1, 6.2), (8, 9.43, 71.4, 16.0)]
)
def test_publishing_all_or_five_gives_the_reference_rows(
    epsilon: float, rdp_one: float, sixty: float, five: float
) -> None:
    """One run by PLD and RDP; 60 and 5 equal runs, fixed in advance, by PLD."""
    run = run_at(epsilon)
    assert epsilon_rdp(run) == pytest.approx(rdp_one, rel=0.01)
    assert epsilon_pld(dataclasses.replace(run, steps=60 * run.steps)) == pytest.approx(sixty, rel=0.01)
    assert epsilon_pld(dataclasses.replace(run, steps=5 * run.steps)) == pytest.approx(five, rel=0.01, abs=0.05)


@pytest.mark.parametrize(("epsilon", "trials", "expected"), [(8, 10, 32.3), (1, 24, 8.0)])
def test_four_shadows_charge_a_unit_twice(epsilon: float, trials: int, expected: float) -> None:
    twice = dataclasses.replace(run_at_rdp(epsilon), shadows_per_unit=2)
    assert compose_epsilon([twice] * trials, delta=1e-5) == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("settings_tried", [10, pytest.param(200, marks=pytest.mark.slow)])
def test_rdp_is_never_below_pld(settings_tried: int) -> None:
    rng = np.random.default_rng(0)
    for _ in range(settings_tried):
        run = dataclasses.replace(
            RUN,
            sample_rate=float(10 ** rng.uniform(-2.5, -0.1)),
            steps=int(rng.integers(1, 60)),
            noise_multiplier=float(rng.uniform(0.8, 5)),
        )
        assert epsilon_rdp(run) >= epsilon_pld(run) - 2e-3, run


def theorem_2(curve: np.ndarray, *, gamma: float, mean: float, delta: float) -> float:
    """Papernot and Steinke 2022, Theorem 2 at eta = 1, written from the paper.

    The best lambda and lambda' for one epsilon.
    """
    eta, best = 1.0, math.inf
    for lam, eps in zip(ORDERS, curve, strict=True):
        for lam_, eps_ in zip(ORDERS, curve, strict=True):
            total = eps + (1 + eta) * (1 - 1 / lam_) * eps_ + (1 + eta) * math.log(1 / gamma) / lam_
            total += math.log(mean) / (lam - 1)
            best = min(best, total + math.log1p(-1 / lam) - math.log(delta * lam) / (lam - 1))
    return best


@pytest.mark.parametrize(("epsilon", "mean"), [(1.0, 10), (3.0, 24), (8.0, 60)])
def test_selecting_one_costs_what_theorem_2_says(epsilon: float, mean: int) -> None:
    run = run_at(epsilon)
    naive = theorem_2(rdp_of(run), gamma=1 / mean, mean=mean, delta=1e-5)
    found = epsilon_of_selected([run], mean=mean, delta=1e-5)
    assert found == pytest.approx(naive, rel=1e-6)
    assert epsilon_rdp(run) < found < compose_epsilon([run] * mean, delta=1e-5)


def test_the_best_of_one_run_costs_what_one_run_costs() -> None:
    """K = 1: dp-accounting bounds it by the same formula, at most (1 + eta) of the low orders'
    divergence above one run.
    """
    run = run_at(1.0)
    assert epsilon_of_selected([run], mean=1, delta=1e-5) == pytest.approx(epsilon_rdp(run), rel=0.05)
    assert epsilon_of_selected([dataclasses.replace(run, noise_multiplier=0.0)], mean=9, delta=1e-5) == math.inf


@pytest.mark.parametrize(
    ("epsilon", "mean", "shape"), [(1, 1000, 0), (1, 1000, 1), (1, 1000, 0.5), (1, 100, 2), (1, 1000, 5)]
)
def test_corollary_3_pure_epsilon_becomes_two_plus_eta_times_as_much(epsilon: float, mean: float, shape: float) -> None:
    accountant = rdp.RdpAccountant(orders=[1e10])
    accountant.compose(RepeatAndSelectDpEvent(dp_accounting.LaplaceDpEvent(1 / epsilon), mean, shape))
    assert accountant.get_epsilon(1e-10) == pytest.approx((2 + shape) * epsilon, abs=1e-6)


@pytest.mark.parametrize(("rho", "gamma"), [(0.01, 0.01), (1, 0.1), (10, 0.99)])
def test_corollary_4_concentrated_dp_through_our_geometric_law(rho: float, gamma: float) -> None:
    """Corollary 4 of the same paper gives Gaussian trials in closed form.

    It optimises over all real orders, we over a grid.
    """
    rho, mean = min(rho, -math.log(gamma)), 1 / gamma
    answer = PrivateAnswer(name="score", sensitivity=1.0, noise_multiplier=math.sqrt(0.5 / rho))
    orders = np.geomspace(1.0001, 1e4, 20_000)
    switch = 1 + math.sqrt(math.log(mean) / rho)
    flat = 2 * math.sqrt(rho * math.log(mean)) + 4 * math.sqrt(-rho * math.log(gamma)) - rho
    steep = rho * (orders - 1) + math.log(mean) / (orders - 1) + 4 * math.sqrt(-rho * math.log(gamma)) - rho
    curve = np.where(orders <= switch, flat, steep)
    exact = float(np.min(curve + np.log1p(-1 / orders) - np.log(1e-5 * orders) / (orders - 1)))
    assert epsilon_of_selected([answer], mean=mean, delta=1e-5) == pytest.approx(exact, rel=0.01)


@pytest.mark.parametrize("epsilon", [0.5, 2.0, 32.0])
def test_every_order_is_bounded_even_where_the_series_does_not_converge(epsilon: float) -> None:
    """At sampling rate .5 dp-accounting gives up below order 2.

    A filter of such an order would refuse the cheapest runs.
    """
    noise = calibrate_noise(target_epsilon=epsilon, delta=1e-5, sample_rate=0.5, steps=25)
    curve = rdp_of(dataclasses.replace(RUN, sample_rate=0.5, steps=25, noise_multiplier=noise))
    assert np.isfinite(curve).all()
    assert (np.diff(curve) >= 0).all()


def test_units_pay_for_their_own_part_alone() -> None:
    """Pool and test units are disjoint: the dearer side bounds both, and a Gaussian answer has its closed form."""
    answer = PrivateAnswer(name="accuracy", sensitivity=0.01, noise_multiplier=4.0, part="test")
    assert renyi_per_part([answer])["test"] == pytest.approx(np.asarray(ORDERS) / 32)
    run = run_at(3.0)
    assert compose_epsilon([run, answer], delta=1e-5) == pytest.approx(compose_epsilon([run], delta=1e-5))
    same = dataclasses.replace(answer, part="pool")
    assert compose_epsilon([run, same], delta=1e-5) > compose_epsilon([run], delta=1e-5)
    exact = 1 / (2 * 16)  # Renyi divergence per order, so epsilon(delta) of the Gaussian by the same conversion
    assert compose_epsilon([answer], delta=1e-5) == pytest.approx(
        min(a * exact + math.log1p(-1 / a) - math.log(1e-5 * a) / (a - 1) for a in ORDERS)
    )


def test_releasing_several_models_composes_by_pld_below_rdp() -> None:
    runs = [run_at(1.0), run_at(3.0), run_at(3.0)]
    assert epsilon_pld(runs[1]) < epsilon_of_all(runs, delta=1e-5) < compose_epsilon(runs, delta=1e-5)
    assert epsilon_of_all([run_at(8.0)] * 5, delta=1e-5) == pytest.approx(16.0, rel=0.01)


def test_group_privacy_is_the_stated_fallback() -> None:
    assert group_privacy(1.0, 1e-6, 1) == (1.0, 1e-6)
    assert group_privacy(1.0, 1e-6, 3) == (3.0, pytest.approx(3 * math.e**2 * 1e-6))
    assert group_privacy(50.0, 1e-6, 20)[1] == 1.0


@given(st.lists(st.tuples(st.sampled_from([0.8, 1.0, 1.5, 3.0]), st.integers(1, 400), st.integers(1, 4)), max_size=40))
@settings(max_examples=60, deadline=None)
def test_a_filter_is_never_passed_by_any_adaptive_sequence(plan: list[tuple[float, int, int]]) -> None:
    guard = RenyiFilter.tuned(epsilon=8.0, delta=1e-5, typical=[RUN])
    taken: list[Event] = []
    for noise, steps, shadows in plan:
        run = dataclasses.replace(RUN, noise_multiplier=noise, steps=steps, shadows_per_unit=shadows)
        answers = [PrivateAnswer(name="a", sensitivity=0.1, noise_multiplier=5.0, part=p) for p in ("pool", "test")]
        if guard.admits(taken, [run, *answers]):
            taken += [run, *answers]
    assert guard.spent(taken) <= guard.budget
    assert epsilon_at(guard.order, guard.spent(taken), 1e-5) <= 8.0 + 1e-9
    assert compose_epsilon(taken, delta=1e-5) <= 8.0 + 1e-9  # the best order can only be better


def test_a_filter_admits_as_many_equal_runs_as_composition_does() -> None:
    run = run_at_rdp(1.0)
    guard = RenyiFilter.tuned(epsilon=9.08, delta=1e-5, typical=[run])
    taken = 0
    while guard.admits([run] * taken, [run]):
        taken += 1
    assert taken in (59, 60, 61)  # 60 runs compose to 9.07
    assert not guard.admits([], [dataclasses.replace(run, noise_multiplier=0.0)])


def test_the_budget_is_the_inverse_of_the_conversion() -> None:
    for order in (2.0, 8.0, 32.0):
        guard = RenyiFilter(epsilon=20.0, delta=1e-5, order=order)
        assert epsilon_at(order, guard.budget, 1e-5) == pytest.approx(20.0)
    with pytest.raises(InputError, match="order"):
        RenyiFilter(epsilon=1.0, delta=1e-5, order=0.5)


def test_renyi_divergence_agrees_with_opacus() -> None:
    from opacus.accountants.analysis.rdp import compute_rdp

    orders = [2.0, 4.0, 8.0, 16.0, 32.0]
    theirs = compute_rdp(q=RUN.sample_rate, noise_multiplier=1.0, steps=250, orders=orders)
    mine = [rdp_of(RUN)[ORDERS.index(order)] for order in orders]
    assert mine == pytest.approx(np.asarray(theirs), rel=1e-3)
    assert isinstance(RUN.to_dp_event(), dp_accounting.SelfComposedDpEvent)
