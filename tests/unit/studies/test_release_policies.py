"""Release policies on whole studies: what each tells, charges, refuses and lets out."""

import dataclasses
import io
import json
import math
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from rich.console import Console
from safetensors import safe_open
from safetensors.torch import load_file

from moo.cli.tables import print_result
from moo.core.errors import InputError, PolicyError
from moo.core.trial_record import ACCURACY, RISK, STATUS_QUO_TRIAL, Transformation, TrialParams, TrialRecord
from moo.data.catalogue import Records, load_records
from moo.models.bank.files import load_bank
from moo.models.bank.lightning_module import log_probs
from moo.models.dp import optimizer as dp_module
from moo.models.dp.poisson_sampling import PoissonBatches
from moo.privacy.composed_epsilon import compose
from moo.privacy.composition import epsilon_of_all, epsilon_of_selected
from moo.privacy.events import PrivateAnswer, TrainingRun
from moo.privacy.keys import StudyKey
from moo.privacy.ledger import NO_GUARANTEE, PREPARATION, LedgerEntry, charged
from moo.privacy.release_policy import POLICIES, Policy
from moo.report import save_report
from moo.report.annex.content import annex_of
from moo.report.html import render
from moo.search import REFUSED
from moo.studies.accounting.account import ledger_of
from moo.studies.results.result import StudyResult, load_result
from moo.studies.search.about import study_identity
from moo.studies.search.estimate import plan_study
from moo.studies.search.run_study import run_study
from moo.studies.search.select_one import drawn
from moo.studies.setup import study_data as data_module
from moo.studies.setup.prepared import prepare_study
from moo.studies.spec.space import SpaceSpec
from moo.studies.spec.study import StudySpec
from moo.studies.trial.evaluator import Evaluator
from moo.studies.trial.judge import VALID_SHARE
from moo.studies.workflows import retrain as retrain_module
from moo.studies.workflows.retrain import retrain
from tests.fixtures.letters import TINY, known, letters_spec, save_table

PROXY = Policy.parse("proxy_then_retrain(1)")


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> StudySpec:
    return letters_spec(tmp_path_factory.mktemp("table"), tiny_folder)


def entries_of(spec: StudySpec, name: str) -> list[LedgerEntry]:
    return [e for e in ledger_of(spec.data).entries() if e.study.startswith(f"{name} ")]


def named(spec: StudySpec, name: str, **changes: Any) -> StudySpec:
    return dataclasses.replace(spec, name=name, **changes)


def at_one_epsilon(spec: StudySpec, **changes: Any) -> SpaceSpec:
    """The space with every trial at epsilon 4, so that noise is calibrated once."""
    return dataclasses.replace(spec.space, target_epsilon=(4.0, 4.0), **changes)


@pytest.mark.parametrize(
    "text", ["internal", "publish_all(20)", "publish_all=20", "select_one", "proxy_then_retrain(5)"]
)
def test_a_policy_is_read_from_its_name_and_writes_itself(text: str) -> None:
    policy = Policy.parse(text)
    assert Policy.parse(str(policy)) == policy
    assert (policy.answer_noise > 0) == (policy.name in ("publish_all", "select_one"))
    assert policy.allows_reference == (policy.name in ("internal", "proxy_then_retrain"))
    assert policy.name in POLICIES


@pytest.mark.parametrize(
    ("text", "noise", "says"),
    [
        ("publish", None, "policy must be one of"),
        ("publish_all", None, r"publish_all\(epsilon\)"),
        ("publish_all(0)", None, "epsilon must be > 0"),
        ("publish_all(inf)", None, "policy must be one of"),
        ("publish_all(1-2)", None, "must be a number"),
        ("proxy_then_retrain", None, r"proxy_then_retrain\(m\)"),
        ("proxy_then_retrain(0)", None, "m must be between 1 and 1,000"),
        ("proxy_then_retrain(2.5)", None, "a whole one"),
        ("select_one(3)", None, "written select_one"),
        ("publish_all(20)", 0.0, "an exact accuracy or risk"),
        ("select_one", 0.0, "an exact accuracy or risk"),
        ("internal", -1.0, "answer_noise"),
    ],
)
def test_a_policy_that_lacks_something_is_refused_with_the_reason(text: str, noise: float | None, says: str) -> None:
    with pytest.raises(InputError, match=says):
        Policy.parse(text, answer_noise=noise)


@pytest.fixture(scope="module")
def published(spec: StudySpec, tmp_path_factory: pytest.TempPathFactory) -> tuple[StudyResult, Path]:
    folder = tmp_path_factory.mktemp("published")
    return run_study(named(spec, "open"), n_trials=9, policy="publish_all(40)", folder=folder), folder


def test_publishing_all_stops_before_its_filter_would_break(
    spec: StudySpec, published: tuple[StudyResult, Path]
) -> None:
    result, _ = published
    entries = entries_of(spec, "open")
    gate = entries[0]
    assert gate.kind == "gate"
    assert gate.body["policy"] == "publish_all(40)"
    assert gate.body["epsilon"] == 40
    assert gate.body["order"] > 1
    refused = [t.number for t in result.trials if t.cause == REFUSED]
    assert refused
    assert [e.body["trial"] for e in entries if e.kind == "deny"] == refused
    assert {e.body["trial"] for e in entries if e.kind == "reserve"}.isdisjoint(refused)
    assert not any(t.feasible for t in result.trials if t.number in refused)
    assert known(result.cost.composed_epsilon).value <= result.cost.guaranteed_epsilon == 40
    assert "guarantee per user" in result.cost.label
    assert f"{len(refused)} of {len(result.trials)} trials were refused" in result.cost.label


def test_publishing_all_runs_nothing_without_dp_and_charges_every_answer(
    spec: StudySpec, published: tuple[StudyResult, Path]
) -> None:
    result, folder = published
    assert result.reference is None
    assert not (folder / "reference.json").exists()
    entries = entries_of(spec, "open")
    assert not any(e.body.get("note") == NO_GUARANTEE for e in entries)
    ran = [t.number for t in result.complete]
    answers = {e.body["trial"]: e.body["answers"] for e in entries if e.kind == "answer"}
    counted = [(n, a["part"], a["sensitivity"]) for n, told in answers.items() for a in told if a["name"] == "units"]
    assert counted == [(ran[0], "pool", 1), (ran[0], "test", 1)]  # once, with the first trial
    assert sorted(answers) == ran
    for told in answers.values():
        named = {(a["name"], a["part"]) for a in told if a["name"] != "units"}
        assert named == {(RISK, "pool"), ("validity", "pool"), (ACCURACY, "test")}
        assert all(a["noise_multiplier"] == 5.0 for a in told)
    assert entries[-1].kind == "release"


def test_published_numbers_carry_the_noise_and_nothing_exact_stands_beside_them(
    published: tuple[StudyResult, Path], tmp_path: Path
) -> None:
    result, folder = published
    for trial in result.complete:
        assert set(trial.extras) == {"epsilon_spent", "noise_multiplier", "risk_ceiling"}
        assert not trial.seconds
        exact = np.load(folder / "evidence" / f"trial-{trial.number:04d}.npz")
        right = (exact["test_log_probs"].argmax(-1) == exact["test_labels"]).mean()
        assert trial.objectives[ACCURACY].value != pytest.approx(right, abs=1e-6)
        assert trial.objectives[ACCURACY].stderr > 0.1  # 5 times 1 / 34: few units, much noise
        gap = next(row for row in trial.contributions if row["rule"] == "S08")
        assert gap["verdict"] == "not assessed"
    assert "480" not in json.dumps(result.about["data"]["transformations"])  # no exact count
    assert result.about["data"]["dropped"] == {}
    result.save(tmp_path)
    assert load_result(tmp_path).cost == result.cost
    page = render(result)
    assert "Guaranteed by the policy publish_all(40)" in page
    save_report(result, tmp_path, lang="zh")


def test_published_verdicts_of_rules_are_the_same_for_a_neighbour(spec: StudySpec, tmp_path: Path) -> None:
    """Where one customer's texts hold no word, nobody reads it in what leaves but through the noise
    that was paid for.
    """
    frame = pd.read_csv(spec.data, dtype={"text": str})
    flat = named(spec, "flat", space=at_one_epsilon(spec, masking_level=(1, 1)))
    whose = int(prepare_study(flat, StudyKey(b"\x5a" * 32), tmp_path).data.parts["pool"].unit_ids[0])
    rows: dict[str, list[list[Any]]] = {}
    for name, texts in (("as it is", None), ("wordless", ["13812345678", "13912345679"])):
        changed = frame.copy()
        if texts:
            changed.loc[changed["user"] == whose, "text"] = texts
        changed.to_csv(tmp_path / "neighbour.csv", index=False)
        for policy in ("publish_all(60)", "select_one"):
            folder = tmp_path / f"{name} {policy}"
            folder.mkdir(mode=0o700)
            (folder / "study.key").write_bytes(b"5a" * 32)
            (folder / "study.key").chmod(0o600)
            of = named(flat, f"{name} {policy}", data=str(tmp_path / "neighbour.csv"))
            result = run_study(of, n_trials=2, policy=policy, folder=folder)
            rows.setdefault(policy, []).append([_but_the_noised(t) for t in result.complete])
            assert result.about["data"]["records"] == {}
    one, other = rows["publish_all(60)"]  # select_one draws other settings for other data
    assert one
    assert one == other


def _but_the_noised(trial: TrialRecord) -> list[Any]:
    """Of each rule, what is told of it; of the one that reads the noised share of texts without words, that it does."""
    shares = [row["facts"] for row in trial.contributions if row["rule"] == "S09"]
    assert [list(facts) for facts in shares] == [["masking.wordless_share"]]
    share = min(1.0, max(0.0, trial.constraints["validity"] + VALID_SHARE))
    assert shares[0]["masking.wordless_share"] == pytest.approx(share)
    gates = {k: v for k, v in trial.constraints.items() if k.startswith("G")}
    return [gates, *(row for row in trial.contributions if row["rule"] != "S09")]


def test_what_a_failure_says_of_sizes_stays_inside(
    spec: StudySpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def small(*_: Any, **__: Any) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 463872 bytes.")

    monkeypatch.setattr("moo.studies.trial.evaluator.run_trial", small)
    for policy, told in (("publish_all(60)", False), ("internal", True)):
        name = f"small {policy}"
        monkeypatch.setattr("moo.studies.search.study_search.status_quo_record", lambda *_: None)
        result = run_study(named(spec, name), n_trials=1, policy=policy, folder=tmp_path / name)
        result.save(tmp_path / name)
        assert ("463872" in (tmp_path / name / "front.json").read_text()) == told
        assert result.trials[0].claim.startswith("withdrawn because the trial failed: ")
        assert result.trials[0].cause == "out of memory"


def test_a_resumed_publication_tells_the_same_numbers_and_spends_no_more(
    spec: StudySpec, published: tuple[StudyResult, Path]
) -> None:
    result, folder = published
    before = len(entries_of(spec, "open"))
    again = run_study(named(spec, "open"), n_trials=9, policy="publish_all(40)", folder=folder)
    assert [t.to_json() for t in again.trials] == [t.to_json() for t in result.trials]
    assert len(entries_of(spec, "open")) == before
    with pytest.raises(InputError, match="policy"):
        run_study(named(spec, "open"), n_trials=9, policy="publish_all(50)", folder=folder)


def test_noise_of_the_answers_has_the_planned_spread(spec: StudySpec, tmp_path: Path) -> None:
    """The same trials told under two keys' noise: the difference from the exact number has the planned deviation."""
    study = named(spec, "noised", space=at_one_epsilon(spec))
    noised = run_study(study, n_trials=20, policy="internal", answer_noise=2.0, folder=tmp_path)
    answers = {a["name"]: a for e in entries_of(spec, "noised") if e.kind == "answer" for a in e.body["answers"]}
    off = []
    for trial in noised.complete:
        exact = np.load(tmp_path / "evidence" / f"trial-{trial.number:04d}.npz")
        right = (exact["test_log_probs"].argmax(-1) == exact["test_labels"]).mean(0)
        by_unit = np.bincount(exact["test_units"], right) / np.maximum(np.bincount(exact["test_units"]), 1)
        present = np.bincount(exact["test_units"]) > 0
        off.append(trial.objectives[ACCURACY].value - by_unit[present].mean())
    planned = answers[ACCURACY]["sensitivity"] * 2.0
    assert 0.5 * planned < np.std(off) < 1.6 * planned
    assert abs(np.mean(off)) < 4 * planned / math.sqrt(20)
    assert noised.reference is not None  # allowed inside
    assert "odometer" in noised.cost.label
    assert math.isinf(noised.cost.guaranteed_epsilon)


def test_a_budget_too_small_for_one_trial_says_what_one_costs(spec: StudySpec, tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match=r"cheapest alone composes to epsilon \d"):
        run_study(named(spec, "poor"), n_trials=4, policy="publish_all(0.5)", folder=tmp_path)
    assert {e.kind for e in entries_of(spec, "poor")} == {"gate", "deny"}


@pytest.mark.parametrize("policy", ["publish_all(20)", "select_one"])
def test_exact_gates_of_the_data_may_not_leave(spec: StudySpec, tmp_path: Path, policy: str) -> None:
    with pytest.raises(PolicyError, match="consent_filter = true"):
        run_study(named(spec, "bare", consent_filter=False), n_trials=2, policy=policy, folder=tmp_path / "x")
    with pytest.raises(PolicyError, match="sensitive_rows = 'drop'"):
        run_study(named(spec, "bare", sensitive_rows="keep"), n_trials=2, policy=policy, folder=tmp_path / "x")
    assert not (tmp_path / "x").exists()


def with_a_key_that_draws(count: int, spec: StudySpec, home: Path, *, mean: int) -> Path:
    """Return a folder with a secret key under which the policy select_one trains exactly so many trials."""
    policy = Policy.parse("select_one")
    for byte in (f"{number:02x}" for number in range(256)):
        folder = home / byte
        folder.mkdir(mode=0o700)
        (folder / "study.key").write_text(byte * 32, encoding="ascii")
        (folder / "study.key").chmod(0o600)
        prepared = Evaluator(spec, folder, policy).prepared
        purpose = json.dumps(study_identity(prepared), sort_keys=True)
        if drawn(policy, prepared.key.child(spec.name, purpose, mean), mean) == count:
            return folder
    raise AssertionError(f"none of 256 keys draws {count} trials")


@pytest.mark.parametrize("count", [1, 2])
def test_select_one_draws_its_number_of_trials_and_names_one_winner(
    spec: StudySpec, tmp_path: Path, count: int
) -> None:
    one = named(spec, f"one{count}")
    folder = with_a_key_that_draws(count, one, tmp_path, mean=3)
    result = run_study(one, n_trials=3, policy="select_one", folder=folder)
    entries = entries_of(spec, one.name)
    trained = [TrainingRun.from_json(e.body["run"]) for e in entries if e.kind == "reserve"]
    assert len(trained) == count
    assert result.reference is None
    assert result.recommend().trial == result.trials[0]
    assert len(result.trials) == 1
    assert [len(e.body["trials"]) for e in entries if e.kind == "release"] == [1]
    again = run_study(one, n_trials=3, policy="select_one", folder=folder)
    assert [t.to_json() for t in again.trials] == [t.to_json() for t in result.trials]
    assert result.cost.guaranteed_epsilon > spec.space.target_epsilon[1]
    dearest = min(trained, key=lambda run: run.noise_multiplier)
    assert epsilon_of_selected([dearest], mean=3, delta=1e-4) <= result.cost.guaranteed_epsilon
    with pytest.raises(InputError, match="mean_trials was 3 and is now 4"):
        run_study(one, n_trials=4, policy="select_one", folder=folder)


def test_draws_of_select_one_do_not_follow_the_open_seed(spec: StudySpec, tmp_path: Path) -> None:
    first, second = (
        run_study(named(spec, f"draw{i}"), n_trials=2, seed=7, policy="select_one", folder=tmp_path / str(i))
        for i in range(2)
    )
    assert first.trials[0].params != second.trials[0].params


@pytest.mark.parametrize(
    ("policy", "says"),
    [
        ("internal", "not a guarantee"),
        ("publish_all(40)", "the budget admits"),
        ("select_one", "Theorem 2"),
        ("proxy_then_retrain(3)", "3 retrained settings"),
    ],
)
def test_a_plan_says_what_a_policy_would_hold_before_anything_is_spent(spec: StudySpec, policy: str, says: str) -> None:
    before = ledger_of(spec.data).entries()
    planned = plan_study(spec, n_trials=10, policy=Policy.parse(policy))
    assert says in planned.holds
    assert ledger_of(spec.data).entries() == before


def test_the_plan_of_a_budget_counts_what_the_filter_then_admits(spec: StudySpec, tmp_path: Path) -> None:
    flat = named(spec, "flat", space=at_one_epsilon(spec))
    planned = plan_study(flat, n_trials=30, policy=Policy.parse("publish_all(25)"))
    counts = {int(n) for n in planned.holds.split(" trials")[0].split("admits ")[1].split(", ")}
    result = run_study(flat, n_trials=30, policy="publish_all(25)", folder=tmp_path)
    assert counts == {len(result.complete)}


@pytest.fixture(scope="module")
def proxied(spec: StudySpec, tmp_path_factory: pytest.TempPathFactory) -> tuple[StudyResult, Path]:
    folder = tmp_path_factory.mktemp("proxied")
    result = run_study(named(spec, "proxy"), n_trials=4, policy="proxy_then_retrain(2)", folder=folder)
    result.save(folder)
    return result, folder


def test_the_release_users_are_read_by_no_trial(spec: StudySpec, proxied: tuple[StudyResult, Path]) -> None:
    result, folder = proxied
    prepared = prepare_study(spec, StudyKey.load_or_create(folder / "study.key"), folder, policy=PROXY)
    assert "release" in prepared.data.parts
    searched = {u for part in ("pool", "test", "unseen") for u in prepared.data.parts[part].unit_ids}
    assert searched.isdisjoint(prepared.data.parts["release"].unit_ids)
    assert len(searched) + len(prepared.data.parts["release"].unit_ids) == 240
    assert 80 < len(prepared.data.parts["release"].unit_ids) < 160
    assert result.reference is not None
    assert "none for the users searched on" in result.cost.label
    assert NO_GUARANTEE in result.cost.label
    reserved = [e for e in entries_of(spec, "proxy") if e.kind == "reserve"]
    assert {e.body["run"]["part"] for e in reserved} == {"pool"}


def test_at_most_m_settings_are_retrained_in_one_call_and_their_papers_leave(
    spec: StudySpec, proxied: tuple[StudyResult, Path], tmp_path: Path
) -> None:
    result, folder = proxied
    out = tmp_path / "leaves"
    for bad, says in (([0, 1, 2], "1 to 2 different"), ([0, 0], "1 to 2 different"), ([], "1 to 2 different")):
        with pytest.raises(PolicyError, match=says):
            retrain(folder, bad, to=out)
    with pytest.raises(InputError, match="complete ones"):
        retrain(folder, [9], to=out)
    written = retrain(folder, [0, 3], to=out)
    with pytest.raises(PolicyError, match="chosen before"):
        retrain(folder, [1], to=out)
    with pytest.raises(PolicyError, match="retrained once"):
        retrain(folder, [0, 3], to=tmp_path / "again")
    released = [
        TrainingRun.from_json(e.body["run"])
        for e in entries_of(spec, "proxy")
        if e.kind == "reserve" and e.body["run"]["part"] == "release"
    ]
    assert [run.shadows_per_unit for run in released] == [1, 1]
    cards = [json.loads((w / "card.json").read_text()) for w in written]
    for card, run, trial in zip(cards, released, (0, 3), strict=True):
        assert card["claim"] == "holds"
        assert 0.9 * card["params"]["target_epsilon"] < card["epsilon"] <= card["params"]["target_epsilon"]
        assert card["params"] == result.trials[trial].params.to_json()
        assert "stays inside" in card["measured_on_others"]
        assert run.n_units == 120
    total = epsilon_of_all(released, delta=spec.training.target_delta)
    assert [card["epsilon_of_all_retrained"] for card in cards] == pytest.approx([total, total])
    assert total <= result.cost.guaranteed_epsilon
    name = next(e.study for e in entries_of(spec, "proxy"))
    elsewhere = charged([e for e in ledger_of(spec.data).entries() if e.study != name])
    everything = compose([*released, *elsewhere], delta=spec.training.target_delta, disjoint=False)
    assert cards[1]["epsilon_with_other_studies"] == everything.to_json()


def test_a_retrained_model_reloads_to_predictions_and_its_noise_is_no_ones_key(spec: StudySpec, tmp_path: Path) -> None:
    """Two studies under one key: same users, same settings, and still not the same model."""
    study, written = named(spec, "twice"), []
    for name in ("a", "b"):
        home = tmp_path / name
        home.mkdir()
        key = home / "study.key"
        key.write_bytes((tmp_path / "a" / "study.key").read_bytes() if name == "b" else b"5a" * 32)
        key.chmod(0o600)
        run_study(named(spec, f"twice {name}"), n_trials=2, policy="proxy_then_retrain(1)", folder=home).save(home)
        written += retrain(home, [1], to=tmp_path / f"{name} leaves")
    first, second = written
    prepared = prepare_study(study, StudyKey.load_or_create(tmp_path / "a" / "study.key"), tmp_path / "a", policy=PROXY)
    deep = TrialParams(target_epsilon=1.0, masking_level=4, lora_rank=2, learning_rate=1e-3, adapted_layers=1)
    banks = [load_bank(folder / "model.safetensors", prepared.model.frozen(deep)) for folder in (first, second)]
    told = [log_probs(bank, prepared.features.masked("test", 4).packed) for bank in banks]
    assert told[0].shape[0] == 1
    assert torch.isfinite(told[0]).all()
    assert not torch.equal(told[0], told[1])  # fresh noise from the operating system each time
    with pytest.raises(InputError, match="must hold a bank's parameters"):
        load_bank(first / "card.json", prepared.model.frozen(deep))


def test_a_retraining_that_was_cut_off_goes_on_with_what_is_missing(
    spec: StudySpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, out = tmp_path / "s", tmp_path / "leaves"
    run_study(named(spec, "halved"), n_trials=2, policy="proxy_then_retrain(2)", folder=folder).save(folder)
    real, seen = retrain_module.train, []

    def second_is_cut(*args: Any) -> Any:
        seen.append(1)
        if len(seen) == 2:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(retrain_module, "train", second_is_cut)
    with pytest.raises(KeyboardInterrupt):
        retrain(folder, [0, 1], to=out)
    monkeypatch.undo()
    written = retrain(folder, [0, 1], to=out)
    assert [w.name for w in written] == ["trial-0001"]
    assert (out / "trial-0000" / "card.json").is_file()
    charged = [
        e.body["trial"]
        for e in entries_of(spec, "halved")
        if e.kind == "reserve" and e.body["run"]["part"] == "release"
    ]
    assert charged == [0, 1, 1]  # the one that was cut off keeps its full charge


@pytest.mark.parametrize("policy", ["internal", "publish_all(40)"])
def test_only_proxy_then_retrain_has_users_to_retrain_on(spec: StudySpec, tmp_path: Path, policy: str) -> None:
    folder = tmp_path / "s"
    run_study(named(spec, f"spent {policy}"), n_trials=2, policy=policy, folder=folder).save(folder)
    with pytest.raises(PolicyError, match="every user was searched on"):
        retrain(folder, [0], to=tmp_path / "out")


def with_dataset_step(*args: Any, **kwargs: Any) -> Records:
    loaded = load_records(*args, **kwargs)
    return dataclasses.replace(
        loaded, transformations=(*loaded.transformations, Transformation(name="rare_words", scope="dataset"))
    )


def test_a_dataset_scoped_step_withdraws_the_claim_in_every_output(
    spec: StudySpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Masking tuned on the data, planted: front, files, report, terminal and card say that no claim holds."""
    monkeypatch.setattr(data_module, "load_records", with_dataset_step)
    folder = tmp_path / "s"
    result = run_study(named(spec, "planted"), n_trials=2, policy="proxy_then_retrain(1)", folder=folder)
    result.save(folder)
    says = "withdrawn because the step 'rare_words' read other units' records"
    assert all(says in claim for claim in result.table["claim"][1:])
    assert math.isinf(result.cost.guaranteed_epsilon)
    assert "not a guarantee: the DP claim is withdrawn" in result.cost.label
    assert says in (folder / "front.csv").read_text()
    assert says.replace("'", "&#39;") in render(result)
    print_result(Console(width=200), result)
    assert "DP claim withdrawn because the step 'rare_words'" in capsys.readouterr().out
    card = json.loads((retrain(folder, [0], to=tmp_path / "out")[0] / "card.json").read_text())
    assert says in card["claim"]


def without_saying(*args: Any, **kwargs: Any) -> Records:
    """Drop the users of the ten commonest texts, in a step that declares nothing."""
    loaded = load_records(*args, **kwargs)
    return loaded.take(np.arange(len(loaded)) >= 10)


def test_a_step_that_declares_no_scope_withdraws_the_claim_in_every_output(
    spec: StudySpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data_module, "load_records", without_saying)
    result = run_study(named(spec, "silent"), n_trials=1, policy="publish_all(40)", folder=tmp_path)
    result.save(tmp_path)
    says = "withdrawn because the step 'undeclared' read other units' records"
    assert says in result.trials[0].claim
    assert math.isinf(result.cost.guaranteed_epsilon)
    assert says in (tmp_path / "front.csv").read_text()
    assert says.replace("'", "&#39;") in render(result)
    annex = annex_of(result, trial=0)
    assert says in annex["point"]["claim"]
    shown = {step["name"]: step for step in annex["data"]["transformations"]}
    assert shown["undeclared"]["scope"] == "dataset"
    assert (shown["class_list"]["effect"], shown["users_of_each_class"]["effect"]) == ("takes_as_public", "refuses")
    assert "takes it as public" in shown["class_list"]["detail"]
    assert "Majority baseline: not released" in printed(result)
    assert not any("majority" in name for trial in result.trials for name in trial.extras)


def printed(result: StudyResult) -> str:
    out = io.StringIO()
    print_result(Console(file=out, width=200), result)
    return out.getvalue()


def test_a_dataset_scoped_step_that_the_ledger_charges_keeps_the_claim(
    spec: StudySpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data_module, "load_records", with_dataset_step)
    study = named(spec, "covered", data=str(save_table(tmp_path / "letters.csv")))
    noisy = [PrivateAnswer(name="rare_words", sensitivity=1.0, noise_multiplier=8.0, part=p) for p in ("pool", "test")]
    ledger_of(study.data).answer(PREPARATION, STATUS_QUO_TRIAL, noisy)
    result = run_study(study, n_trials=1, policy="publish_all(40)", folder=tmp_path / "s")
    assert result.trials[0].claim == "holds"
    assert result.cost.guaranteed_epsilon == 40
    without = run_study(named(spec, "plain"), n_trials=1, policy="publish_all(40)", folder=tmp_path / "t")
    assert "withdrawn" in without.trials[0].claim
    assert (
        known(result.cost.composed_epsilon).value > known(without.cost.composed_epsilon).value
    )  # the step is charged to the study too


def test_no_file_that_leaves_names_a_class_of_withdrawn_records_alone(spec: StudySpec, tmp_path: Path) -> None:
    frame = pd.read_csv(save_table(tmp_path / "letters.csv")).astype({"label": str, "withdrawn": bool})
    frame.loc[:1, ["label", "withdrawn"]] = ["oncology ward 7", True]
    frame.to_csv(tmp_path / "letters.csv", index=False)
    study, folder = named(spec, "left", data=str(tmp_path / "letters.csv")), tmp_path / "s"
    run_study(study, n_trials=1, policy="proxy_then_retrain(1)", folder=folder).save(folder)
    (out,) = retrain(folder, [0], to=tmp_path / "out")
    assert json.loads((out / "card.json").read_text())["classes"] == ["0", "1"]
    told = [p for place in (out, folder) for p in place.rglob("*") if p.is_file() and b"oncology" in p.read_bytes()]
    assert told == []


@pytest.mark.parametrize("head", ["stock", "with_mean"])
def test_a_class_that_no_release_record_has_keeps_its_place_in_all_that_leaves(
    spec: StudySpec, tmp_path: Path, head: str
) -> None:
    (tmp_path / "s").mkdir(mode=0o700)
    classes, key = ["0", "0 rare", "1"], StudyKey.load_or_create(tmp_path / "s" / "study.key")
    study = named(
        spec,
        f"absent {head}",
        data=str(save_table(tmp_path / "letters.csv")),
        min_class_users=1,
        space=dataclasses.replace(spec.space, adapted_layers=(1, 1)),
        training=dataclasses.replace(TINY, head=head, steps=4),
    )
    frame = pd.read_csv(study.data, dtype={"label": str})
    searched = prepare_study(study, key, tmp_path / "s", policy=PROXY).data.records.texts
    (user,) = frame["user"][frame["text"] == searched[0]]
    frame.loc[frame["user"] == user, "label"] = "0 rare"
    frame.to_csv(study.data, index=False)
    release = prepare_study(study, key, tmp_path / "s", policy=PROXY).data.parts["release"]
    assert (list(release.classes), sorted(set(release.labels))) == (classes, [0, 2])
    run_study(study, n_trials=1, policy="proxy_then_retrain(1)", folder=tmp_path / "s").save(tmp_path / "s")
    (out,) = retrain(tmp_path / "s", [0], to=tmp_path / "out")
    assert json.loads((out / "card.json").read_text())["classes"] == classes
    if head == "stock":
        assert runpy.run_path(str(out / "peft" / "load.py"))["CLASSES"] == dict(enumerate(classes))
        weights = load_file(out / "peft" / "adapter_model.safetensors")
        assert [len(w) for name, w in weights.items() if name.endswith("classifier.weight")] == [3]
    else:
        with safe_open(out / "peft" / "head.safetensors", framework="pt") as file:
            assert json.loads(file.metadata()["classes"]) == classes
            assert file.get_tensor("bias").shape == (3,)


def test_a_table_that_n_records_cuts_has_no_claim_and_no_charge_of_another_step_brings_it_back(
    spec: StudySpec, tmp_path: Path
) -> None:
    study = named(spec, "cut", data=str(save_table(tmp_path / "letters.csv")))
    noisy = [PrivateAnswer(name="rare_words", sensitivity=1.0, noise_multiplier=8.0, part=p) for p in ("pool", "test")]
    ledger_of(study.data).answer(PREPARATION, STATUS_QUO_TRIAL, noisy)
    claims, costs = {}, {}
    for n in (0, 400, 480):
        folder = tmp_path / str(n)
        result = run_study(named(study, f"cut{n}", n_records=n), n_trials=1, policy="publish_all(40)", folder=folder)
        claims[n], costs[n] = result.trials[0].claim, result.cost
        steps = {t["name"]: t for t in result.about["data"]["transformations"]}
        assert ("first_units" in steps) == (n > 0)
        if n:
            assert "one user at a time" in steps["first_units"]["why"]
    assert claims[0] == "holds"
    assert (
        claims[400]
        == claims[480]
        == "withdrawn because the step 'first_units' read other units' records without a ledger event"
    )
    assert costs[0].guaranteed_epsilon == 40
    assert math.isinf(costs[400].guaranteed_epsilon)
    assert "not a guarantee: the DP claim is withdrawn" in costs[400].label


def planted_breach(name: str, patch: pytest.MonkeyPatch) -> str:
    """Break the engine in one way; the reason that the claim must give."""
    if name == "batches of one size":

        def of_one_size(self: PoissonBatches, shadow: int) -> Any:
            half = self._halves[shadow]
            return self._generators[shadow].permutation(half)[: len(half) // 2]

        patch.setattr(PoissonBatches, "_chosen", of_one_size)
        return "batches were of nearly one size"
    optimizer = dp_module.BankOptimizer
    if name == "zero-noise step":
        noise = optimizer.add_noise

        def third_is_bare(self: Any) -> None:
            if self.steps_taken == 2:
                for p in self.params:
                    p.grad = p.summed_grad
            else:
                noise(self)

        patch.setattr(optimizer, "add_noise", third_is_bare)
        return "1 steps ran without noise"
    init = optimizer.__init__

    def private_size(self: Any, inner: Any, settings: Any, *rest: Any) -> None:
        init(self, inner, dataclasses.replace(settings, expected_batch_size=settings.expected_batch_size + 3), *rest)

    patch.setattr(optimizer, "__init__", private_size)
    return "divided by a private number"


@pytest.mark.parametrize("name", ["batches of one size", "zero-noise step", "private normaliser"])
def test_what_the_engine_really_did_decides_the_claim(
    spec: StudySpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    reason = planted_breach(name, monkeypatch)
    result = run_study(named(spec, "breach"), n_trials=1, folder=tmp_path)
    assert reason in result.trials[0].claim
    dp_rule = next(r for r in result.trials[0].contributions if "privacy.epsilon_user" in str(r) or r["rule"] == "S04")
    assert dp_rule["score"] == 1.0  # a withdrawn claim counts as no DP in the penalty
