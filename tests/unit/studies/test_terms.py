"""A name has one gate.

What a guarantee rests on is fixed before anything is spent, and holds in every folder and storage.
"""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from moo.core.errors import PolicyError
from moo.core.trial_record import STATUS_QUO_TRIAL
from moo.privacy.caps import Cap
from moo.privacy.ledger import Ledger
from moo.privacy.release_policy import Policy
from moo.studies.accounting.account import Account, ledger_of
from moo.studies.results.result import load_result
from moo.studies.search.estimate import plan_study
from moo.studies.search.run_study import run_study
from moo.studies.spec.study import StudySpec
from moo.studies.workflows.retrain import retrain
from tests.fixtures.letters import known, letters_spec

FIXED = {
    "policy": "select_one",
    "answer_noise": 5.0,
    "delta": 1e-5,
    "spec": "a",
    "split": "b",
    "data": "c",
    "mean_trials": 24,
    "draw": "d",
}


def account(ledger: Ledger, study: str) -> Account:
    return Account(ledger, study)


@pytest.mark.parametrize("changed", sorted(FIXED))
def test_each_term_is_fixed_by_the_first_gate(tmp_path: Path, changed: str) -> None:
    ledger = Ledger(tmp_path / "x.ledger", "d")
    account(ledger, "one k1").open(FIXED)
    other = FIXED | {changed: 7.0 if isinstance(FIXED[changed], int | float) else "publish_all(9)"}
    for study in ("one k1", "one k2"):  # in its own folder, and in another
        with pytest.raises(PolicyError, match="Give the new study another name") as caught:
            account(ledger, study).open(other)
        assert changed in str(caught.value)
    account(ledger, "one k1").open(FIXED)  # the same study goes on
    account(ledger, "two k2").open(other)  # another name is another study
    assert [e.kind for e in ledger.entries()] == ["genesis", "gate", "gate"]


def test_a_name_with_a_guarantee_is_one_studys(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "x.ledger", "d")
    account(ledger, "one k1").open(FIXED)
    with pytest.raises(PolicyError, match="began in another folder, with another key"):
        account(ledger, "one k2").open(FIXED)
    internal = {"policy": "internal"}
    for study in ("plain k1", "plain k2"):  # which guarantees nothing
        account(ledger, study).open(internal)
    with pytest.raises(PolicyError, match="plain began with internal, but got select_one"):
        account(ledger, "plain k3").open(FIXED)
    ledger.record("gate", "old k1", {"policy": "select_one"})  # of an earlier version
    with pytest.raises(PolicyError, match="answer_noise was not fixed"):
        account(ledger, "old k1").open(FIXED)


def test_one_thing_alone_leaves_where_one_may(tmp_path: Path) -> None:
    of = account(Ledger(tmp_path / "x.ledger", "d"), "one k1")
    assert of.release({"trials": [3]}, only=True)
    assert not of.release({"trials": [3]}, only=True)
    with pytest.raises(PolicyError, match="One result alone"):
        of.release({"trials": [4]}, only=True)


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> StudySpec:
    return letters_spec(tmp_path_factory.mktemp("table"), tiny_folder, n=240)


def share(part: float) -> Policy:
    return Policy(name="proxy_then_retrain", retrain=1, release_share=part)


def test_who_may_be_released_is_fixed_before_the_search(spec: StudySpec, tmp_path: Path) -> None:
    """With another share, or another key, users that were searched on would be told that they were not."""
    home, study = tmp_path / "s", dataclasses.replace(spec, name="shared")
    run_study(study, n_trials=1, policy=share(0.3), folder=home).save(home)
    spent = len(ledger_of(spec.data).entries())
    calls: list[tuple[dict[str, Any], str]] = [
        (
            {"policy": share(0.6), "folder": home, "storage": tmp_path / "other.db"},
            r"release_share was 0\.3 and is now 0\.6",
        ),
        ({"policy": share(0.6), "folder": home}, r"release_share was 0\.3 and is now 0\.6"),
        ({"policy": share(0.3), "folder": tmp_path / "t"}, "split changed"),
    ]
    for call, says in calls:
        with pytest.raises(PolicyError, match=says):
            run_study(study, n_trials=1, **call)
    told = json.loads((home / "result.json").read_text())
    copy = tmp_path / "edited"
    shutil.copytree(home, copy)
    told["about"]["policy"]["release_share"] = 0.6
    (copy / "result.json").write_text(json.dumps(told))
    with pytest.raises(PolicyError, match=r"release_share was 0\.3 and is now 0\.6"):
        retrain(copy, [0], to=tmp_path / "o")
    assert len(ledger_of(spec.data).entries()) == spent
    assert not list(tmp_path.rglob("model.safetensors"))
    (out,) = retrain(home, [0], to=tmp_path / "o")
    card = json.loads((out / "card.json").read_text())
    assert (card["cap"], card["capped"]) == (None, "no cap on these data: further studies may add to it")


def test_without_the_ledger_that_holds_its_terms_nothing_is_retrained(
    spec: StudySpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "s"
    run_study(dataclasses.replace(spec, name="moved"), n_trials=1, policy=share(0.5), folder=home).save(home)
    (home / "ledger.json").unlink()
    monkeypatch.setenv("MOO_LEDGERS", str(tmp_path / "others"))
    with pytest.raises(PolicyError, match="must hold the terms that moved"):
        retrain(home, [0], to=tmp_path / "o")


def test_a_cap_holds_a_study_and_is_told_with_its_numbers(
    spec: StudySpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOO_LEDGERS", str(tmp_path / "ledgers"))
    ledger = ledger_of(spec.data)
    ledger.cap(Cap(epsilon=60.0, delta=1e-4))
    home, study = tmp_path / "s", dataclasses.replace(spec, name="held")
    result = run_study(study, n_trials=8, policy="proxy_then_retrain(1)", folder=home)
    result.save(home)
    kinds = [e.kind for e in ledger.entries()]
    assert result.reference is None  # no bound would hold with it
    assert not any(e.kind == "reserve" and e.body["trial"] == STATUS_QUO_TRIAL for e in ledger.entries())
    assert kinds.count("deny") == sum(t.state == "failed" for t in result.trials) > 0
    assert result.cost.data_epsilon is not None
    assert known(result.cost.data_epsilon).value <= 60.0
    held = "all studies on these data together are capped at epsilon 60, delta 0.0001"
    assert result.cost.label.endswith(held)
    assert load_result(home).cost == result.cost
    assert held in plan_study(study, n_trials=8, policy=Policy.parse("proxy_then_retrain(1)")).holds
    ledger.cap(Cap(epsilon=0.5, delta=1e-4))
    before = ledger.entries()
    with pytest.raises(PolicyError, match=r"The budget must admit this training .*the cap on these data, epsilon 0\.5"):
        retrain(home, [result.complete[0].number], to=tmp_path / "o")
    with pytest.raises(PolicyError, match="came after more was spent"):
        run_study(dataclasses.replace(spec, name="late"), n_trials=2, folder=tmp_path / "t")
    assert not [e for e in ledger.entries()[len(before) :] if e.kind in ("reserve", "answer")]
