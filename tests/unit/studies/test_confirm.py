"""The winner's curse: the front trained anew, the recommendation on a fresh split, both in the ledger."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moo.cli.main import main
from moo.core.errors import InputError, PolicyError, TrialError
from moo.privacy.events import TrainingRun
from moo.privacy.ledger import charged
from moo.studies.accounting.account import ledger_of
from moo.studies.results.result import StudyResult, load_result
from moo.studies.search.run_study import run_study
from moo.studies.spec.study import StudySpec
from moo.studies.trial.evidence_files import load_membership
from moo.studies.workflows import confirm as confirm_module
from moo.studies.workflows.confirm import confirm
from tests.fixtures.letters import known, letters_spec


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> StudySpec:
    return dataclasses.replace(letters_spec(tmp_path_factory.mktemp("table"), tiny_folder), name="curse")


@pytest.fixture(scope="module")
def searched(spec: StudySpec, tmp_path_factory: pytest.TempPathFactory) -> tuple[StudyResult, Path]:
    folder = tmp_path_factory.mktemp("study")
    result = run_study(spec, n_trials=4, folder=folder)
    result.save(folder)
    return result, folder


@pytest.fixture(scope="module")
def confirmed(spec: StudySpec, searched: tuple[StudyResult, Path]) -> tuple[StudyResult, int]:
    before = len(ledger_of(spec.data).entries())
    result = confirm(searched[1], n_shadows=8)
    return result, before


def told(result: StudyResult) -> list[Any]:
    """What was confirmed and is recommended, in a form in which "not assessed" equals itself."""
    recommended = result.recommend()
    return [t if t is None else t.to_json() for t in (*result.refined, result.confirmed, recommended.trial)] + [
        recommended.reason
    ]


def test_the_front_is_trained_anew_with_more_shadows_and_coins_of_its_own(
    searched: tuple[StudyResult, Path], confirmed: tuple[StudyResult, int]
) -> None:
    (before, folder), (result, _) = searched, confirmed
    assert {t.number for t in result.refined} == set(before.on_front)
    for record in result.refined:
        old, new = (load_membership(folder, record.number, again=again) for again in ("", "again-k8"))
        assert new.members.shape == (8, old.members.shape[1])
        assert not any((new.members == row).all(axis=1).any() for row in old.members)
        assert 1 / 384 <= record.extras["permutation_p"].value <= 1
        assert record.claim == "holds"


def test_a_study_that_goes_on_keeps_its_confirmation_while_its_front_stays(
    spec: StudySpec, searched: tuple[StudyResult, Path], confirmed: tuple[StudyResult, int], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(searched[1], folder)
    confirmed[0].save(folder)
    assert told(run_study(spec, n_trials=4, folder=folder)) == told(confirmed[0])
    point = next(iter(searched[0].on_front))
    rows = json.loads((folder / "front.json").read_text(encoding="utf-8"))
    next(row for row in rows if row["number"] == point)["accuracy"]["value"] = 0.123
    (folder / "front.json").write_text(json.dumps(rows), encoding="utf-8")
    another = run_study(spec, n_trials=4, folder=folder)
    assert (another.refined, another.confirmed) == ((), None)
    weighed = confirmed[0].weighed({"accuracy": 2})
    other = dataclasses.replace(weighed, spec={**weighed.spec, "max_risk": 0.9})
    other.save(folder)
    assert run_study(spec, n_trials=4, folder=folder).weights == {}


def test_the_recommendation_is_confirmed_on_a_fresh_split(
    searched: tuple[StudyResult, Path], confirmed: tuple[StudyResult, int]
) -> None:
    folder, result = searched[1], confirmed[0]
    recommended = result.recommend().trial
    assert recommended is not None
    assert result.confirmed is not None
    assert result.confirmed.number == recommended.number
    assert result.confirmed.params == recommended.params
    assert recommended in result.refined
    assert result.confirmed.objectives["membership_risk"] != recommended.objectives["membership_risk"]
    same, fresh = (load_membership(folder, recommended.number, again=a) for a in ("again-k8", "confirmation-k8"))
    assert same.base_losses is not None
    assert fresh.base_losses is not None
    assert not np.array_equal(np.sort(same.base_losses), np.sort(fresh.base_losses))  # other texts, other fitted head


def test_every_training_of_it_is_charged_for_half_of_its_shadows(
    spec: StudySpec, searched: tuple[StudyResult, Path], confirmed: tuple[StudyResult, int]
) -> None:
    result, before = confirmed
    entries = ledger_of(spec.data).entries()[before:]
    runs = [e for e in charged(entries) if isinstance(e, TrainingRun)]
    assert len(runs) == len(result.refined) + 1
    assert {r.shadows_per_unit for r in runs} == {4}
    assert [e.kind for e in entries] == ["reserve", "commit"] * len(runs)
    assert known(result.cost.composed_epsilon).private_part > known(searched[0].cost.composed_epsilon).private_part
    assert "odometer" in result.cost.label


def test_the_same_call_again_trains_nothing_and_says_the_same(
    spec: StudySpec, searched: tuple[StudyResult, Path], confirmed: tuple[StudyResult, int]
) -> None:
    before = ledger_of(spec.data).entries()
    again = confirm(searched[1], n_shadows=8)
    assert ledger_of(spec.data).entries() == before
    assert told(again) == told(confirmed[0])


def test_it_travels_through_the_files_and_is_printed(
    confirmed: tuple[StudyResult, int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result, _ = confirmed
    result.save(tmp_path)
    loaded = load_result(tmp_path)
    assert told(loaded) == told(result)
    assert main(["front", "--out", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "onfirmed on a fresh split" in shown or "ot confirmed on a fresh split" in shown
    assert result.confirmed is not None
    assert f"{result.confirmed.objectives['membership_risk'].value:.3f}" in shown
    assert "most exposed tenth of the users" in shown


def test_a_study_that_was_not_confirmed_says_so(
    searched: tuple[StudyResult, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["front", "--out", str(searched[1])]) == 0
    assert "Not confirmed: the best of many noisy numbers" in capsys.readouterr().out


def test_every_attack_is_shown_side_by_side(
    searched: tuple[StudyResult, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["attacks", "--out", str(searched[1])]) == 0
    shown = capsys.readouterr().out
    for name in ("pair_reference", "base_difference", "rmia_offline", "quantile"):
        assert name in shown
    assert "(the study's)" in shown
    assert main(["attacks", "--out", str(searched[1]), "--trial", "99"]) == 2


def test_points_that_no_longer_hold_their_limits_are_not_recommended(confirmed: tuple[StudyResult, int]) -> None:
    result, _ = confirmed
    broken = tuple(dataclasses.replace(t, constraints={**t.constraints, "max_risk": 0.2}) for t in result.refined)
    choice = dataclasses.replace(result, refined=broken).recommend()
    assert choice.trial is None
    assert "when trained anew: max_risk" in choice.reason


def test_a_failed_training_is_charged_whole_and_the_rest_waits(
    spec: StudySpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = dataclasses.replace(spec, name="failing")
    run_study(other, n_trials=2, folder=tmp_path).save(tmp_path)
    before = len(ledger_of(spec.data).entries())

    def fails(*_: Any, **__: Any) -> Any:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes.")

    monkeypatch.setattr(confirm_module, "run_trial", fails)
    with pytest.raises(TrialError, match="memory"):
        confirm(tmp_path)
    added = ledger_of(spec.data).entries()[before:]
    assert [e.kind for e in added] == ["reserve", "abort"]
    assert [e.steps for e in charged(added) if isinstance(e, TrainingRun)] == [other.training.steps]


def test_what_cannot_be_confirmed_is_refused_before_anything_is_spent(
    spec: StudySpec, searched: tuple[StudyResult, Path], tmp_path: Path
) -> None:
    before = ledger_of(spec.data).entries()
    with pytest.raises(InputError, match="n_shadows must be even"):
        confirm(searched[1], n_shadows=7)
    with pytest.raises(InputError, match="n_shadows"):
        confirm(searched[1], n_shadows=2)
    with pytest.raises(InputError, match=r"front\.json"):
        confirm(tmp_path)
    result = dataclasses.replace(
        searched[0], about={**searched[0].about, "policy": {"name": "publish_all", "epsilon": 9.0, "answer_noise": 5.0}}
    )
    result.save(tmp_path)
    with pytest.raises(PolicyError, match="internal or proxy_then_retrain"):
        confirm(tmp_path)
    assert ledger_of(spec.data).entries() == before
