"""Weights of the recommendation: what they change, what they do not, and where the choice is said."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from moo.cli.main import main
from moo.core.errors import InputError
from moo.core.measurement import Measurement
from moo.core.trial_record import ACCURACY, PENALTY, RISK, TrialRecord
from moo.report import save_report
from moo.report.annex.content import annex_of
from moo.report.annex.html import render_annex
from moo.studies.results.result import StudyResult, load_result
from moo.studies.results.weights import weights_of
from moo.studies.search.run_study import run_study
from tests.fixtures.pages import read_page

POINTS = ((0.9, 0.3, 0.3), (0.8, 0.08, 0.2), (0.6, 0.0, 0.1))  # accuracy, risk, penalty: the middle one is the knee
ALIKE = {ACCURACY: 1.0, RISK: 1.0, PENALTY: 1.0}


@pytest.fixture
def result(study: tuple[Path, Path]) -> StudyResult:
    """A front of three points, of a study that ran."""
    found = load_result(study[1])

    def at(number: int, values: tuple[float, float, float]) -> TrialRecord:
        objectives = {
            n: Measurement(value=v, stderr=0.01) for n, v in zip((ACCURACY, RISK, PENALTY), values, strict=True)
        }
        one = found.complete[0]
        return dataclasses.replace(
            one, number=number, objectives=objectives, constraints=dict.fromkeys(one.constraints, 0.0)
        )

    return dataclasses.replace(found, trials=tuple(at(i, p) for i, p in enumerate(POINTS)))


def chosen(result: StudyResult) -> int:
    trial = result.recommend().trial
    assert trial is not None
    return trial.number


def test_weights_are_read_from_text_and_from_names() -> None:
    assert weights_of("accuracy=2, risk=1") == {ACCURACY: 2.0, RISK: 1.0, PENALTY: 1.0} == weights_of({"accuracy": 2})
    assert weights_of("risk=1") == ALIKE
    assert weights_of(None) == weights_of("none") == weights_of({}) == {}


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("speed=2", "weights of accuracy, risk, penalty"),
        ("accuracy", "must be written accuracy=2,risk=1,penalty=1"),
        ("", "must be written"),
        ("risk=1,risk=2", "each once"),
        ("risk=much", "must be a number, but got 'risk=much'"),
        ("risk=-1", "a weight >= 0"),
        ("risk=nan", "a weight >= 0"),
        ("risk=inf", "a weight >= 0"),
        ("accuracy=0,risk=0,penalty=0", "all are 0"),
    ],
)
def test_unfit_weights_get_one_line(
    study: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    asked: str,
    message: str,
) -> None:
    for command in (["front", "--out", str(study[1])], ["run", str(study[0]), "--out", str(tmp_path / "never")]):
        assert main([*command, "--weights", asked]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert len(error.strip().splitlines()) == 1
    assert not (tmp_path / "never").exists()


def test_weights_choose_the_knee_and_the_default_is_the_most_accurate(result: StudyResult) -> None:
    assert chosen(result) == chosen(result.weighed("risk=1").weighed("none")) == 0
    assert chosen(result.weighed("accuracy=1,risk=1,penalty=1")) == 1
    assert "weighed" not in result.weighed("risk=1").recommend().reason
    assert chosen(result.weighed({"accuracy": 5})) == 0
    assert chosen(result.weighed({"accuracy": 0})) == 2
    assert (
        "weighed accuracy 5, membership risk 1, compliance penalty 1"
        in result.weighed({"accuracy": 5}).recommend().reason
    )
    again = dataclasses.replace(result, refined=result.trials)
    assert chosen(again.weighed({"accuracy": 5})) == 0
    fixed = dataclasses.replace(result, cost=dataclasses.replace(result.cost, policy="select_one"))
    with pytest.raises(InputError, match="no weights must be given under select_one"):
        fixed.weighed({"accuracy": 5})


def test_a_confirmation_stays_with_the_point_that_it_confirmed(result: StudyResult) -> None:
    confirmed = dataclasses.replace(result, refined=result.trials, confirmed=result.trials[1], weights=ALIKE)
    assert confirmed.weighed({"risk": 1.1}).confirmed is result.trials[1]
    assert confirmed.weighed({"accuracy": 5}).confirmed is None


def test_the_choice_is_kept_and_said_in_files_report_and_annex(result: StudyResult, tmp_path: Path) -> None:
    result.save(tmp_path)
    for lang in ("en", "zh"):
        save_report(result, tmp_path, lang=lang)
    plain = {p.name: p.read_bytes() for p in tmp_path.iterdir() if p.suffix in (".json", ".html")}
    assert main(["front", "--out", str(tmp_path), "--weights", "accuracy=5"]) == 0
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir() if p.name in plain} == plain
    assert main(["front", "--out", str(tmp_path), "--weights", "accuracy=5", "--keep"]) == 0
    rows = {
        row["number"]: row["recommended"] for row in json.loads((tmp_path / "front.json").read_text(encoding="utf-8"))
    }
    assert "weighed accuracy 5" in rows[0]
    assert not any(rows[n] for n in rows if n != 0)
    kept = load_result(tmp_path)
    assert chosen(kept) == 0
    assert "weighed accuracy 5, membership risk 1" in read_page(tmp_path / "report.html")[0]
    assert "按权重（准确率 5、成员推断风险 1、合规罚分 1）" in read_page(tmp_path / "report.zh.html")[0]
    assert "weighed by a person: accuracy 5" in render_annex(annex_of(kept), "en")
    assert "准确率 5" in render_annex(annex_of(kept), "zh")
    assert "weighed" not in render_annex(annex_of(result), "en")
    assert main(["front", "--out", str(tmp_path), "--weights", "risk=1", "--keep"]) == 0
    assert chosen(load_result(tmp_path)) == 1
    assert main(["front", "--out", str(tmp_path), "--weights", "none", "--keep"]) == 0
    assert (tmp_path / "front.json").read_bytes() == plain["front.json"]


def test_a_run_takes_weights_and_trains_nothing_for_them(study: tuple[Path, Path], tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(study[1], run)
    trials = [t.to_json() for t in load_result(run).trials]
    result = run_study(study[0], n_trials=4, folder=run, weights={"penalty": 7})
    assert [t.to_json() for t in result.trials] == trials
    assert result.weights == {ACCURACY: 1.0, RISK: 1.0, PENALTY: 7.0}
    assert main(["run", str(study[0]), "--trials", "4", "--out", str(run), "--weights", "risk=3"]) == 0
    risk = {ACCURACY: 1.0, RISK: 3.0, PENALTY: 1.0}
    assert load_result(run).weights == risk
    assert main(["run", str(study[0]), "--trials", "4", "--out", str(run)]) == 0
    assert load_result(run).weights == risk  # what is not said anew stays
    assert run_study(study[0], n_trials=4, folder=run, weights={}).weights == {}
    assert run_study(study[0], n_trials=4, folder=run, weights="accuracy=1").weights == ALIKE
    with pytest.raises(InputError, match="Weights must be left out"):
        run_study(study[0], n_trials=4, folder=tmp_path / "one", policy="select_one", weights={"risk": 3})


def test_front_json_tells_the_choice_that_was_asked_for(
    result: StudyResult, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result.save(tmp_path)
    assert main(["front", "--out", str(tmp_path), "--format", "json", "--weights", "accuracy=5"]) == 0
    assert [row["number"] for row in json.loads(capsys.readouterr().out) if row["recommended"]] == [0]
