"""A study's search: its sampler is part of what it is, and a worker that dies costs one more reservation."""

import json
import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import InMemoryStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend

from moo.cli.main import main
from moo.core.errors import ConfigChangedError, InputError, PolicyError, TrialError
from moo.core.measurement import Measurement
from moo.core.trial_record import PENALTY, RISK, TrialRecord
from moo.privacy.release_policy import Policy
from moo.search import LOST, Candidate, Outcome
from moo.studies.accounting.account import ledger_of
from moo.studies.search.estimate import plan_study
from moo.studies.search.progress import record_of
from moo.studies.search.run_study import run_study
from moo.studies.setup.preflight import sampled
from moo.studies.spec.study import StudySpec
from moo.studies.trial import evaluator as evaluators
from moo.studies.trial.evaluator import Evaluator
from tests.fixtures.letters import letters_spec


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> StudySpec:
    return letters_spec(tmp_path_factory.mktemp("table"), tiny_folder, n=240)


def test_the_sampler_of_a_study_is_its_own_and_part_of_what_it_is(spec: StudySpec, tmp_path: Path) -> None:
    storage = JournalStorage(JournalFileBackend(str(tmp_path / "s.log")))
    found = run_study(spec, n_trials=1, folder=tmp_path, storage=storage, sampler="tpe")
    assert found.about["sampler"] == found.spec["sampler"] == "tpe"
    assert optuna.load_study(study_name="letters", storage=storage).user_attrs["moo:config"]["sampler"] == "tpe"
    with pytest.raises(ConfigChangedError, match="sampler was 'tpe' and is now 'nsga2'"):
        run_study(spec, n_trials=1, folder=tmp_path, storage=storage)
    with pytest.raises(ConfigChangedError, match="sampler was 'tpe' and is now 'TPESampler'"):
        run_study(spec, n_trials=1, folder=tmp_path, storage=storage, sampler=optuna.samplers.TPESampler())


def test_a_sampler_object_searches_a_study(spec: StudySpec, tmp_path: Path) -> None:
    own = optuna.samplers.TPESampler(seed=1)
    found = run_study(spec, n_trials=3, folder=tmp_path, storage=InMemoryStorage(), sampler=own)
    assert found.about["sampler"] == "TPESampler"
    assert len(found.complete) == 3


def test_a_file_and_the_command_line_name_the_sampler(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.toml").write_text('data = "reviews"\nsampler = "gp"\n')
    assert StudySpec.from_toml(tmp_path / "mine.toml").sampler == "gp"
    for wrong in ("best", "Tpe"):
        with pytest.raises(InputError, match="sampler"):
            StudySpec.from_mapping({"sampler": wrong})
        assert main(["run", "reviews", "--sampler", wrong, "--out", str(tmp_path / "no")]) == 2
        assert "sampler" in capsys.readouterr().err
    assert main(["run", "reviews", "--sampler", "tpe", "--policy", "select_one", "--out", str(tmp_path / "no")]) == 2
    assert "'random' under select_one" in capsys.readouterr().err
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", optuna.samplers.RandomSampler()])
def test_a_policy_of_independent_draws_refuses_any_other_sampler(spec: StudySpec, sampler: Any, tmp_path: Path) -> None:
    one = Policy.parse("select_one")
    with pytest.raises(PolicyError, match="must be 'random' under select_one"):
        run_study(spec, n_trials=3, folder=tmp_path / "a", policy="select_one", sampler=sampler)
    assert not (tmp_path / "a").exists()
    named, _ = sampled(spec, "tpe", Policy())
    with pytest.raises(PolicyError, match="got 'tpe'"):
        plan_study(named, n_trials=3, policy=one)
    assert sampled(spec, None, one)[1] == sampled(spec, "random", one)[1] == "random"
    assert sampled(spec, sampler, Policy())[1] == sampler


def candidate() -> Candidate:
    params = {
        "target_epsilon": 1.0,
        "masking_level": 0,
        "lora_rank_log2": 1,
        "learning_rate": 1e-3,
        "adapted_layers": 0,
    }
    return Candidate(number=4, generation=0, params=params)


def test_a_lost_trial_is_a_record_that_breaks_every_constraint(spec: StudySpec, tmp_path: Path) -> None:
    outcome = Evaluator(spec, tmp_path).lost(candidate())
    record = TrialRecord.from_json(json.loads(json.dumps(outcome.payload)))
    assert (record.number, record.state, record.cause) == (4, "failed", LOST)
    assert not record.feasible
    assert {"max_risk", "max_penalty", "validity"} <= set(record.blocking)


def test_a_number_that_is_none_fails_the_trial_and_not_the_study(
    spec: StudySpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = evaluators.judge

    def broken(*given: Any, **named: Any) -> TrialRecord:
        record = judge(*given, **named)
        if named["number"] == 0:
            objectives = {**record.objectives, PENALTY: Measurement(value=float("nan"))}
            object.__setattr__(record, "objectives", objectives)
        return record

    monkeypatch.setattr(evaluators, "judge", broken)
    found = run_study(spec, n_trials=2, folder=tmp_path)
    assert [t.cause for t in found.trials] == ["not a number", ""]
    assert "compliance_penalty" in found.trials[0].claim
    assert RISK in found.trials[1].objectives


def numbers(found: Any) -> list[Any]:
    return [{k: v for k, v in t.to_json().items() if k not in ("seconds", "notices")} for t in found.trials]


@pytest.mark.slow
def test_a_worker_that_is_killed_costs_one_more_reservation_and_no_number(spec: StudySpec, tmp_path: Path) -> None:
    whole = run_study(spec, n_trials=4, folder=tmp_path / "a", policy="internal")
    (tmp_path / "b").mkdir(mode=0o700)
    (tmp_path / "b" / "study.key").write_bytes((tmp_path / "a" / "study.key").read_bytes())
    (tmp_path / "b" / "study.key").chmod(0o600)
    before = reserved(spec)

    def kill() -> None:
        """Kill a worker in the middle of its first trial."""
        while not (workers := multiprocessing.active_children()) or len(reserved(spec)) < len(before) + 5:
            time.sleep(0.05)
        time.sleep(0.5)
        os.kill(workers[0].pid or 0, signal.SIGKILL)

    threading.Thread(target=kill, daemon=True).start()
    found = run_study(spec, n_trials=4, folder=tmp_path / "b", executor="processes", workers=2)
    assert numbers(found) == numbers(whole)
    assert len(reserved(spec)) == len(before) + 5 + 1
    assert "1 of them were cut off and are charged in full" in found.cost.label


def reserved(spec: StudySpec) -> list[Any]:
    return [e for e in ledger_of(spec.data).entries() if e.kind == "reserve"]


def test_a_trial_error_of_an_evaluation_keeps_its_cause(spec: StudySpec, tmp_path: Path, monkeypatch: Any) -> None:
    def fails(*_: Any, **__: Any) -> Any:
        raise TrialError("it is too hot.", cause="heat")

    evaluate = Evaluator(spec, tmp_path)
    monkeypatch.setattr(evaluators, "run_trial", fails)
    outcome: Outcome = evaluate(candidate())
    assert outcome.cause == "heat"
    assert record_of(type("T", (), {"outcome": outcome})()).cause == "heat"  # type: ignore[arg-type]
