"""What a guarantee rests on between calls.

The same users, the same key, the same ledger, one budget, each decision taken once.
"""

import dataclasses
import json
import shutil
import threading
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rich.console import Console

from moo.cli.tables import print_result
from moo.core.errors import InputError, PolicyError, StorageError
from moo.core.messages import render
from moo.core.trial_record import STATUS_QUO_TRIAL, TrialRecord
from moo.privacy.composition import compose_epsilon, epsilon_of_all, epsilon_of_any, epsilon_of_selected
from moo.privacy.events import Event, PrivateAnswer
from moo.privacy.ledger import PREPARATION, Ledger
from moo.privacy.release_policy import Policy
from moo.privacy.renyi_filter import RenyiFilter
from moo.report import renew_reports, save_report
from moo.studies.accounting.account import Account, everywhere, ledger_of
from moo.studies.accounting.ledger_heads import ANCHORS
from moo.studies.results.recommendation import none_feasible
from moo.studies.results.result import load_result
from moo.studies.search.estimate import plan_study
from moo.studies.search.folder_lock import locked_folder
from moo.studies.search.run_study import run_study
from moo.studies.spec.search_space import STATUS_QUO
from moo.studies.spec.study import StudySpec, load_spec
from moo.studies.workflows import retrain as retrain_module
from moo.studies.workflows.audit import audit_trial
from moo.studies.workflows.confirm import confirm
from moo.studies.workflows.monitor import _budgets
from moo.studies.workflows.retrain import retrain
from tests.conftest import save_tiny
from tests.fixtures.letters import known, letters_spec
from tests.fixtures.runs import RUN_OF_100_USERS


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> StudySpec:
    return letters_spec(tmp_path_factory.mktemp("table"), tiny_folder)


def searched(spec: StudySpec, folder: Path, policy: str = "proxy_then_retrain(1)") -> int:
    """A study that ran; the number of a trial that may be retrained."""
    result = run_study(spec, n_trials=2, policy=policy, folder=folder)
    result.save(folder)
    return result.complete[0].number


def models(folder: Path) -> list[Path]:
    return sorted(folder.rglob("model.safetensors"))


def test_without_the_studys_key_nothing_goes_on(spec: StudySpec, tmp_path: Path) -> None:
    """Another key would part the users anew: those searched on without noise would be told that they were not."""
    home = tmp_path / "s"
    number = searched(dataclasses.replace(spec, name="keyless"), home)
    entries, key = len(ledger_of(spec.data).entries()), home / "study.key"
    kept = key.read_text(encoding="ascii")
    for replaced, says in (
        ("", "study's key is missing from .*; restore it"),
        ("5a" * 32, "the one that keyless was searched with"),
    ):
        key.unlink()
        if replaced:
            key.write_text(replaced, encoding="ascii")
            key.chmod(0o600)
        for again in (
            lambda: retrain(home, [number], to=tmp_path / "o"),
            lambda: confirm(home),
            lambda: audit_trial(home, number, canaries=2000),
        ):
            with pytest.raises(InputError, match=says):
                again()
        assert key.is_file() == bool(replaced)  # none is made
        key.touch(0o600)
    assert len(ledger_of(spec.data).entries()) == entries
    assert not models(tmp_path)
    key.write_text(kept, encoding="ascii")
    assert retrain(home, [number], to=tmp_path / "o")


def test_records_without_a_user_are_retrained_on_as_they_were_or_not_at_all(spec: StudySpec, tmp_path: Path) -> None:
    """Their places are their names: with one row less, those behind it stand in other parts."""
    frame, table = pd.read_csv(spec.data), tmp_path / "rows.csv"
    for name, user in (("rows", ""), ("users", "user")):
        frame.to_csv(table, index=False)
        home = tmp_path / name
        number = searched(dataclasses.replace(spec, name=name, data=str(table), user=user), home)
        frame.drop(index=[0, 1] if user else [0]).to_csv(table, index=False)
        if user:  # who is left stays where they were
            assert retrain(home, [number], to=tmp_path / "o")
            continue
        with pytest.raises(InputError, match="named by their places"):
            retrain(home, [number], to=tmp_path / "o")
        assert not models(tmp_path)


def test_two_retrainings_at_once_give_one_model(
    spec: StudySpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, copy, real = tmp_path / "s", tmp_path / "copy", retrain_module.train
    number = searched(dataclasses.replace(spec, name="race"), home)
    with locked_folder(home), pytest.raises(StorageError, match="one run at a time"):
        retrain(home, [number], to=tmp_path / "held")
    shutil.copytree(home, copy)

    def overtaken(*args: Any) -> Any:
        monkeypatch.setattr(retrain_module, "train", real)
        retrain(copy, [number], to=tmp_path / "first")  # begins and ends while the other trains
        return real(*args)

    monkeypatch.setattr(retrain_module, "train", overtaken)
    with pytest.raises(PolicyError, match="retrained once"):
        retrain(home, [number], to=tmp_path / "second")
    assert [path.parts[-3] for path in models(tmp_path)] == ["first"]


def test_accounts_that_reserve_at_once_stay_within_the_budget(tmp_path: Path) -> None:
    limit = RenyiFilter.tuned(epsilon=12.0, delta=1e-5, typical=[RUN_OF_100_USERS])
    accounts = [Account(Ledger(tmp_path / "x.ledger", "d"), "s k", limit=limit) for _ in range(3)]
    runs = [
        {n: dataclasses.replace(RUN_OF_100_USERS, noise_multiplier=3.0 + n / 100) for n in range(i, i + 6)}
        for i in (0, 10, 20)
    ]
    denied: list[dict[int, str]] = []
    threads = [
        threading.Thread(target=lambda a=a, r=r: denied.append(a.reserve(r)))
        for a, r in zip(accounts, runs, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    events = accounts[0].events()
    assert len(events) == 18 - sum(map(len, denied)) > 1
    assert limit.spent(events) <= limit.budget
    assert not limit.admits(events, [RUN_OF_100_USERS])  # it was used up, not refused


def test_a_study_goes_on_with_the_ledger_that_holds_what_it_has_spent(
    spec: StudySpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, study = tmp_path / "s", dataclasses.replace(spec, name="spent")
    result = run_study(study, n_trials=2, policy="publish_all(60)", folder=home)
    assert list(json.loads((home / ANCHORS).read_text())) == [next(e.study for e in _entries(study))]
    monkeypatch.setenv("MOO_LEDGERS", str(tmp_path / "others"))
    for call in (
        lambda: run_study(study, n_trials=4, policy="publish_all(60)", folder=home),
        lambda: run_study(study, n_trials=2, policy="publish_all(60)", folder=home),
    ):
        with pytest.raises(PolicyError, match=r"must hold what spent \w+ has spent so far, up to entry \d+"):
            call()
    monkeypatch.undo()
    again = run_study(study, n_trials=3, policy="publish_all(60)", folder=home)
    assert known(again.cost.composed_epsilon).value > known(result.cost.composed_epsilon).value


def _entries(study: StudySpec) -> list[Any]:
    return [e for e in ledger_of(study.data).entries() if e.study.startswith(f"{study.name} ")]


def test_a_budget_that_was_fixed_is_not_raised(spec: StudySpec, tmp_path: Path) -> None:
    study = dataclasses.replace(spec, name="raised")
    run_study(study, n_trials=1, policy="publish_all(20)", folder=tmp_path)
    (tmp_path / "study.db").unlink()
    with pytest.raises(PolicyError, match=r"began with publish_all\(20\).* got publish_all\(60\)"):
        run_study(study, n_trials=1, policy="publish_all(60)", folder=tmp_path)
    account = Account(ledger_of(study.data), _entries(study)[0].study)
    with pytest.raises(PolicyError, match="Give the new study another name"):
        account.open({"policy": "internal"})


def test_a_preparation_that_was_charged_is_in_every_epsilon(
    spec: StudySpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: dict[float, list[float]] = {}
    for noise in (20.0, 1.0):
        monkeypatch.setenv("MOO_LEDGERS", str(tmp_path / f"{noise}"))
        step = PrivateAnswer(name="rare_words", sensitivity=1.0, noise_multiplier=noise)
        ledger_of(spec.data).answer(PREPARATION, STATUS_QUO_TRIAL, [step])
        home = tmp_path / f"proxy {noise}"
        home.mkdir(mode=0o700)
        (home / "study.key").write_text("5a" * 32, encoding="ascii")
        (home / "study.key").chmod(0o600)
        number = searched(spec, home)
        (out,) = retrain(home, [number], to=tmp_path / f"o{noise}")
        card = json.loads((out / "card.json").read_text(encoding="utf-8"))
        one = run_study(
            dataclasses.replace(spec, name="one"), n_trials=2, policy="select_one", folder=tmp_path / f"one {noise}"
        )
        proxy = run_study(spec, n_trials=2, policy="proxy_then_retrain(1)", folder=home)
        told[noise] = [card["epsilon_of_all_retrained"], proxy.cost.guaranteed_epsilon, one.cost.guaranteed_epsilon]
        assert card["epsilon_of_all_retrained"] > card["epsilon"]
    assert all(loud > quiet + 0.5 for quiet, loud in zip(told[20.0], told[1.0], strict=True))


def test_watch_counts_the_preparation_as_the_filter_does(
    spec: StudySpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOO_LEDGERS", str(tmp_path / "ledgers"))
    step = PrivateAnswer(name="rare_words", sensitivity=1.0, noise_multiplier=0.5, part="test")
    spent = []
    for charge in (False, True):
        study = dataclasses.replace(spec, name=f"watched {charge}")
        if charge:
            ledger_of(study.data).answer(PREPARATION, STATUS_QUO_TRIAL, [step])
        run_study(study, n_trials=1, policy="publish_all(60)", folder=tmp_path / study.name)
        spent.append([f.numbers["spent"] for f in _budgets(study.data, None)])
    assert len(spent[1]) == 2
    assert min(spent[1]) > spent[0][0] + 1  # what everyone's texts were read for, every study pays


def test_a_step_that_read_all_units_is_paid_for_by_each_part_as_often() -> None:
    a, b = (PrivateAnswer(name=n, sensitivity=1.0, noise_multiplier=4.0) for n in "ab")
    told: list[Event] = [a, dataclasses.replace(a, part="test"), b, b]
    for part in ("pool", "test", "release"):
        names = sorted(e.name for e in everywhere(told) if e.part == part)
        assert names == ["a", "b", "b"]


def test_what_is_told_beside_trainings_adds_to_each_epsilon() -> None:
    once = dataclasses.replace(RUN_OF_100_USERS, shadows_per_unit=1)
    step = PrivateAnswer(name="a", sensitivity=1.0, noise_multiplier=2.0)
    both = epsilon_of_all([once, once, step], delta=1e-5)
    assert epsilon_of_any([once], times=2, delta=1e-5, once=[step]) == pytest.approx(both, rel=1e-6)
    assert both > epsilon_of_all([once, once], delta=1e-5)
    assert epsilon_of_all([step], delta=1e-5) <= compose_epsilon([step], delta=1e-5)
    # with one trial on the mean, Theorem 2 is of a curve that what stands beside it is added to
    plain = epsilon_of_selected([RUN_OF_100_USERS], mean=3, delta=1e-5)
    beside = epsilon_of_selected([RUN_OF_100_USERS], mean=3, delta=1e-5, once=[step])
    assert plain < beside <= plain + compose_epsilon([step], delta=1e-6) + 5
    elsewhere = dataclasses.replace(step, part="test")
    assert epsilon_of_selected([RUN_OF_100_USERS], mean=3, delta=1e-5, once=[elsewhere]) == plain


def test_a_setting_that_breaks_a_gate_does_not_leave(spec: StudySpec, tmp_path: Path) -> None:
    home = tmp_path / "s"
    number = searched(dataclasses.replace(spec, name="gated"), home)
    rows = json.loads((home / "front.json").read_text(encoding="utf-8"))
    row = next(row for row in rows if row["number"] == number)
    row["constraints"] |= {"G01": 1.0, "max_risk": 0.2}
    (home / "front.json").write_text(json.dumps(rows), encoding="utf-8")
    with pytest.raises(PolicyError, match=rf"every gate, but trial {number} breaks G01; see"):
        retrain(home, [number], to=tmp_path / "o")
    assert not models(tmp_path)


def test_a_call_with_fewer_trials_shows_all_that_were_paid_for(spec: StudySpec, tmp_path: Path) -> None:
    study = dataclasses.replace(spec, name="fewer")
    whole = run_study(study, n_trials=3, folder=tmp_path)
    fewer = run_study(study, n_trials=1, folder=tmp_path)
    assert [t.to_json() for t in fewer.trials] == [t.to_json() for t in whole.trials]
    assert fewer.cost.composed_epsilon == whole.cost.composed_epsilon
    assert fewer.about["seconds"] >= sum(
        sum(t.seconds.values()) for t in whole.trials
    )  # of the study, not of this call


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("result.json", "{}"),
        ("result.json", "[]"),
        ("result.json", "garbage"),
        ("result.json", ""),
        ("front.json", '[{"number": 0}]'),
        ("front.json", "3"),
    ],
)
def test_a_damaged_result_says_how_it_is_written_anew(tmp_path: Path, file: str, text: str) -> None:
    (tmp_path / "front.json").write_text("[]", encoding="utf-8")
    (tmp_path / "result.json").write_text("{}", encoding="utf-8")
    (tmp_path / file).write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=r"must be as a study wrote them.*writes them anew") as caught:
        load_result(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["", " ", ".", "..", "a/b", "a/../../b", "a\\b", " a"])
def test_a_name_leads_nowhere_else(spec: StudySpec, tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="it names the study's folder"):
        dataclasses.replace(spec, name=name)
    if name:
        with pytest.raises(InputError, match="it names the study's folder"):
            run_study(spec, n_trials=1, name=name, folder=tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_a_study_of_ones_own_names_its_data(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('text = "message"\n', encoding="utf-8")
    with pytest.raises(InputError, match=r"data must be named.*mine\.toml names none"):
        load_spec(path)
    path.write_text('data = "mine.csv"\n', encoding="utf-8")
    assert load_spec(path).name == "mine"


def test_a_plan_refuses_what_a_run_refuses(spec: StudySpec) -> None:
    with pytest.raises(InputError, match="nope"):
        plan_study(dataclasses.replace(spec, packs=("nope",)), n_trials=2)
    with pytest.raises(PolicyError, match="consent_filter = true"):
        plan_study(dataclasses.replace(spec, consent_filter=False), n_trials=2, policy=Policy.parse("select_one"))


def test_a_study_does_not_go_on_with_other_weights(spec: StudySpec, tmp_path: Path) -> None:
    """Its front would be of two models."""
    model = save_tiny(tmp_path / "model", seed=0)
    study = dataclasses.replace(spec, name="weights", model=str(model))
    run_study(study, n_trials=1, folder=tmp_path / "s")
    save_tiny(model, seed=5)
    with pytest.raises(InputError, match="weights was"):
        run_study(study, n_trials=2, folder=tmp_path / "s")


def test_the_terminal_says_what_of_a_penalty_was_not_assessed(
    spec: StudySpec, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = run_study(dataclasses.replace(spec, name="unassessed"), n_trials=1, folder=tmp_path)
    print_result(Console(width=200), result)
    rows = [r for r in result.trials[0].contributions if r["verdict"] == "not assessed" and r["contribution"]]
    assert [r["rule"] for r in rows] == ["S08"]
    assert (
        f"up to {rows[0]['contribution']:.3f} of a penalty is of what could not be assessed: S08"
        in capsys.readouterr().out
    )


def test_missing_columns_are_refused_before_and_are_the_reason_in_results_from_before(
    spec: StudySpec, tmp_path: Path
) -> None:
    table = tmp_path / "bare.csv"
    pd.read_csv(spec.data)[["text", "label", "user"]].to_csv(table, index=False)
    bare = dataclasses.replace(spec, name="bare", data=str(table))
    with pytest.raises(InputError, match="G01 Lawful basis is unknown"):
        run_study(bare, n_trials=1, folder=tmp_path / "s")
    facts = {"data.no_lawful_basis": None, "data.consent_after_use": None}
    row = {"rule": "G01", "verdict": "not assessed", "facts": facts}
    trial = TrialRecord(
        number=0,
        params=STATUS_QUO,
        state="complete",
        objectives={},
        constraints={"max_risk": -0.1, "G01": 1.0},
        contributions=(row,),
    )
    reason = none_feasible([trial]).reason
    assert reason.startswith(
        "no trial is feasible: G01 is not assessed, for want of no lawful basis, consent after use;"
    )
    assert "没有可行的试验：G01 未评估" in render(reason, "zh")


def test_a_report_in_the_other_language_is_renewed_with_the_first(spec: StudySpec, tmp_path: Path) -> None:
    home = tmp_path / "s"
    searched(dataclasses.replace(spec, name="told"), home, "internal")
    for lang in ("en", "zh"):
        save_report(load_result(home), home, lang=lang)
    english, chinese = ((home / name).read_bytes() for name in ("report.html", "report.zh.html"))
    result = run_study(dataclasses.replace(spec, name="told"), n_trials=3, folder=home)
    result.save(home)
    renew_reports(home, but="en")
    assert (home / "report.html").read_bytes() == english
    assert (home / "report.zh.html").read_bytes() != chinese
    assert "3 次试验" in (home / "report.zh.html").read_text(encoding="utf-8")
