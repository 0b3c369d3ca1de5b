"""select_one: the winner is chosen by its own score, and nothing else of the search is in any paper."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moo.cli.main import main
from moo.core.errors import PolicyError
from moo.core.measurement import Measurement
from moo.core.trial_record import ACCURACY, PENALTY, RISK, TrialParams, TrialRecord
from moo.privacy.caps import Cap
from moo.privacy.ledger import cap_of
from moo.report import save_report
from moo.studies.accounting.account import ledger_of
from moo.studies.results.result import StudyResult, load_result
from moo.studies.results.winner import own_score, selected
from moo.studies.search.run_study import run_study
from moo.studies.search.select_one import INTERNAL, winner_alone
from moo.studies.spec.study import StudySpec
from tests.fixtures.letters import letters_spec

PARAMS = st.builds(
    TrialParams,
    target_epsilon=st.sampled_from([1.0, 2.0, 8.0]),
    masking_level=st.integers(0, 5),
    lora_rank=st.sampled_from([2, 4]),
    learning_rate=st.just(1e-3),
    adapted_layers=st.just(1),
)


@st.composite
def trials(draw: st.DrawFn) -> TrialRecord:
    """A complete trial with few different scores, so that there are ties."""
    score = draw(st.sampled_from([0.5, 0.6, 0.7]))
    broken = {name: draw(st.sampled_from([-0.1, 0.1, 0.2])) for name in ("max_risk", "validity")}
    return TrialRecord(
        number=0,
        params=draw(PARAMS),
        state="complete",
        objectives={n: Measurement(value=score, stderr=0.1) for n in (ACCURACY, RISK, PENALTY)},
        constraints=broken,
        claim="holds",
    )


def winner(found: list[TrialRecord]) -> tuple[Any, ...]:
    """The winner but for its number: what decides must not read that."""
    numbered = [dataclasses.replace(t, number=i) for i, t in enumerate(found)]
    chosen = selected(numbered).trial
    assert chosen is not None
    return own_score(chosen)


@settings(max_examples=300, deadline=None)
@given(found=st.lists(trials(), min_size=2, max_size=8), data=st.data())
def test_neither_other_trials_nor_their_order_change_which_of_two_wins(
    found: list[TrialRecord], data: st.DataObject
) -> None:
    a, b, *others = found
    of_two = winner([a, b])
    assert of_two == max(own_score(a), own_score(b))
    shuffled = data.draw(st.permutations(found))
    assert winner(shuffled) == winner(found) == max(map(own_score, found))
    if winner(found) in (own_score(a), own_score(b)):  # one of the two wins: the one that wins without the others
        assert winner(found) == of_two
    for other in others:  # and adding one either makes it the winner, or changes nothing
        assert winner([a, b, other]) in (of_two, own_score(other))


def test_a_score_reads_no_other_trial_and_no_number() -> None:
    base = {"state": "complete", "claim": "holds", "constraints": {"max_risk": -0.1}}
    params = TrialParams(target_epsilon=1.0, masking_level=0, lora_rank=2, learning_rate=1e-3, adapted_layers=0)
    low, high, none = (
        TrialRecord(  # type: ignore[arg-type]
            number=n, params=params, objectives={ACCURACY: Measurement(value=v)}, **base
        )
        for n, v in enumerate([0.4, 0.9, math.nan])
    )
    broken = dataclasses.replace(high, constraints={"max_risk": 0.3})
    assert own_score(high) > own_score(low) > own_score(none) > own_score(broken)
    assert own_score(dataclasses.replace(high, number=77, seconds={"training": 3.0})) == own_score(high)


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> StudySpec:
    return letters_spec(tmp_path_factory.mktemp("table"), tiny_folder, n=240)


def key(folder: Path, byte: str) -> Path:
    folder.mkdir(mode=0o700, exist_ok=True)
    (folder / "study.key").write_text(byte * 32, encoding="ascii")
    (folder / "study.key").chmod(0o600)
    return folder


def several(spec: StudySpec, home: Path, told: list[Any]) -> tuple[StudyResult, Path]:
    """The study under the first key that draws several trials."""
    for byte in (f"{i:02x}" for i in range(16)):
        folder, named = key(home / byte, byte), dataclasses.replace(spec, name=f"one {byte}")
        result = run_study(named, n_trials=4, policy="select_one", folder=folder, callbacks=[told.append])
        if len(reserved(named)) > 2:
            return result, folder
        told.clear()
    raise AssertionError("no key drew several trials")


@pytest.fixture(scope="module")
def searched(spec: StudySpec, tmp_path_factory: pytest.TempPathFactory) -> tuple[StudyResult, Path, list[Any]]:
    """A study of several trials; what it told while it ran."""
    told: list[Any] = []
    result, folder = several(spec, tmp_path_factory.mktemp("one"), told)
    result.save(folder)
    for lang in ("en", "zh"):
        save_report(result, folder, lang=lang)
    assert main(["compliance", "annex", str(folder)]) == 0
    return result, folder, told


def reserved(spec: StudySpec) -> list[int]:
    """Numbers of the trials, from the ledger."""
    entries = ledger_of(spec.data).entries()
    return [e.body["trial"] for e in entries if e.kind == "reserve" and e.study.startswith(f"{spec.name} ")]


def others(folder: Path, result: StudyResult) -> list[dict[str, Any]]:
    """Settings of the trials that did not win, from what stays inside."""
    kept = [json.loads(p.read_text()) for p in sorted((folder / "evidence").glob("trial-*.json"))]
    (alone,) = result.trials
    return [k["params"] for k in kept if k["params"] != alone.params.to_json()]


def test_no_paper_holds_another_trial_its_number_or_their_count(
    searched: tuple[StudyResult, Path, list[Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    result, folder, _ = searched
    (alone,) = result.trials
    assert alone.number == 0
    assert (alone.seconds, alone.resumed_at, alone.notices) == ({}, 0, ())
    rest = others(folder, result)
    assert len(rest) > 1
    capsys.readouterr()
    assert main(["front", "--out", str(folder)]) == 0
    papers = {"moo front": capsys.readouterr().out}
    for path in folder.rglob("*"):
        leaves = path.suffix in (".html", ".csv", ".json") and not {"evidence", "trunk"} & {*path.parts}
        if leaves and path.name not in ("ledger.json", "masking-facts.json"):
            papers[str(path.relative_to(folder))] = path.read_text(encoding="utf-8")
    assert {"front.csv", "front.json", "result.json", "report.html", "report.zh.html"} <= set(papers)
    assert any("annex" in name for name in papers)
    for name, text in papers.items():
        for params in rest:
            for rate in (repr(params["learning_rate"]), f"{params['learning_rate']:.1e}"):
                assert rate not in text or rate in (f"{alone.params.learning_rate:.1e}",), name
        assert "peak_memory" not in text, name
        assert not any(f"{n} trials" in text or f"{n} 次试验" in text for n in (len(rest) + 1, 1)), name
    told = json.loads(papers["result.json"])["cost"]
    assert (told["composed_epsilon"], told["data_epsilon"]) == (None, None)
    assert ":" not in told["anchor"]
    assert len(json.loads(papers["front.json"])) == 1
    assert papers["front.csv"].count("\n") == 2
    assert "Recommended: the winner" in papers["moo front"]
    assert "胜出的试验" in papers["report.zh.html"]


def test_the_anchor_without_its_place_still_vouches_for_the_chain(
    spec: StudySpec, searched: tuple[StudyResult, Path, list[Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    anchor = searched[0].cost.anchor
    assert main(["ledger", "verify", spec.data, "--anchor", anchor]) == 0
    assert "anchored up to entry" in capsys.readouterr().out
    assert main(["ledger", "verify", spec.data, "--anchor", "0" * 64]) == 3


def test_what_runs_tells_nothing_of_trials_and_what_stays_is_marked(
    searched: tuple[StudyResult, Path, list[Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    _, folder, told = searched
    assert all(p.newest is None and p.trials == () and p.n_trials == 4 for p in told)
    assert told[-1].stage == "searching; the number of trials stays secret"
    marked = (folder / INTERNAL).read_text()
    for name in ("study.db", "study.key", "evidence/", "ledger.json", "the ledger of the data"):
        assert name in marked
    for command in (["dashboard"], ["attacks"], ["attributes"], ["audit", "--trial", "0"], ["confirm"]):
        assert main([*command[:1], "--out", str(folder), *command[1:]]) == 2
        assert "select_one" in capsys.readouterr().err


def test_the_same_call_gives_the_same_winner_and_another_is_refused_wherever_it_is_kept(
    spec: StudySpec, searched: tuple[StudyResult, Path, list[Any]], tmp_path: Path
) -> None:
    result, folder, _ = searched
    named = dataclasses.replace(spec, name=result.name)
    again = run_study(named, n_trials=4, policy="select_one", folder=folder)
    assert [t.to_json() for t in again.trials] == [t.to_json() for t in result.trials]
    spent = len(ledger_of(spec.data).entries())
    elsewhere = tmp_path / "elsewhere.db"
    calls: list[tuple[dict[str, Any], str]] = [
        ({"n_trials": 5, "folder": folder, "storage": elsewhere}, "mean_trials was 4 and is now 5"),
        (
            {"n_trials": 4, "folder": folder, "storage": elsewhere, "answer_noise": 9.0},
            "answer_noise was 5 and is now 9",
        ),
        ({"n_trials": 4, "folder": tmp_path / "s"}, "split changed"),
    ]
    for call, says in calls:
        with pytest.raises(PolicyError, match=says):
            run_study(named, policy="select_one", **call)
    for policy in ("publish_all(60)", "internal"):
        with pytest.raises(PolicyError, match="began with select_one"):
            run_study(named, n_trials=2, policy=policy, folder=tmp_path / policy)
    other = dataclasses.replace(named, max_risk=0.4)
    with pytest.raises(PolicyError, match="spec changed"):
        run_study(other, n_trials=4, policy="select_one", folder=folder, storage=elsewhere)
    assert len(ledger_of(spec.data).entries()) == spent


def test_the_winner_is_the_one_of_all_trials_that_were_kept_inside(
    searched: tuple[StudyResult, Path, list[Any]],
) -> None:
    import optuna

    result, folder, _ = searched
    study = optuna.load_study(study_name=result.name, storage=f"sqlite:///{folder / 'study.db'}")
    records = [TrialRecord.from_json(t.user_attrs["moo:outcome"]["payload"]) for t in study.trials]
    best = max(records, key=own_score)
    release = [
        e for e in ledger_of(result.spec["data"]).entries() if e.kind == "release" and e.study.startswith(result.name)
    ]
    assert [e.body["trials"] for e in release] == [[best.number]]
    assert result.trials[0].params == best.params
    assert load_result(folder).recommend().trial == result.recommend().trial


def test_a_logger_of_ones_own_would_count_the_trials(spec: StudySpec, tmp_path: Path) -> None:
    machine = dataclasses.replace(spec.machine, trainer={"logger": lambda _name: True})
    with pytest.raises(PolicyError, match=r"machine\.trainer must hold no logger under select_one"):
        run_study(dataclasses.replace(spec, machine=machine), n_trials=2, policy="select_one", folder=tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_a_study_without_a_winner_leaves_nothing(searched: tuple[StudyResult, Path, list[Any]], tmp_path: Path) -> None:
    failed = dataclasses.replace(searched[0].trials[0], state="failed", number=3, cause="out of memory", objectives={})
    nothing, number = winner_alone(dataclasses.replace(searched[0], trials=(failed, failed)))
    assert (nothing.trials, number) == ((), None)
    nothing.save(tmp_path)
    assert json.loads((tmp_path / "front.json").read_text()) == []


def test_a_cap_that_could_end_the_search_early_refuses_it_before_it_begins(
    spec: StudySpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOO_LEDGERS", str(tmp_path / "ledgers"))
    ledger_of(spec.data).cap(Cap(epsilon=40.0))
    named = dataclasses.replace(spec, name="capped one")
    with pytest.raises(PolicyError, match=r"The cap must admit \d+ trials") as caught:
        run_study(named, n_trials=3, policy="select_one", folder=tmp_path / "s")
    assert [e.kind for e in ledger_of(spec.data).entries()] == ["genesis", "cap"]
    assert "40 at delta" in str(caught.value)
    ledger_of(spec.data).cap(Cap(epsilon=1e4), reason="wide enough")
    result = run_study(named, n_trials=1, policy="select_one", folder=tmp_path / "t")
    assert result.cost.cap == cap_of(ledger_of(spec.data).entries())
    assert "capped at epsilon 10000" in result.cost.label
    assert np.isfinite(result.cost.guaranteed_epsilon)
