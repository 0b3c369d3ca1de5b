"""Whole studies on a small real encoder and a small table: the path that `moo run` takes."""

import copy
import dataclasses
import itertools
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from moo.core.errors import ConfigChangedError, InputError, PolicyError, StorageError, TrialError
from moo.core.trial_record import STATUS_QUO_TRIAL, TrialParams
from moo.masking.recognisers import names_ner
from moo.models.dp.optimizer import ShadowNoise
from moo.models.dp.poisson_sampling import PoissonBatches
from moo.models.pretrained.loading import BaseModel
from moo.privacy.events import Event
from moo.privacy.keys import StudyKey
from moo.privacy.ledger import charged, parse_anchor, verify
from moo.privacy.release_policy import Policy
from moo.studies.accounting.account import ledger_of
from moo.studies.results.result import StudyResult, load_result
from moo.studies.search.estimate import plan_study
from moo.studies.search.progress import StudyProgress
from moo.studies.search.run_study import run_study
from moo.studies.setup import prepared as prepare_module
from moo.studies.setup.prepared import PreparedStudy, prepare_study
from moo.studies.setup.study_model import StudyModel
from moo.studies.spec.space import SpaceSpec
from moo.studies.spec.study import StudySpec, load_spec, presets
from moo.studies.spec.training import TrainingSpec
from moo.studies.trial import evaluator as evaluator_module
from moo.studies.trial import paths as places_module
from moo.studies.trial import run as trial_module
from moo.studies.trial.plan import TrialPlan, plan_trial
from tests.fixtures.letters import TINY, known, letters_spec


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> StudySpec:
    return letters_spec(tmp_path_factory.mktemp("table"), tiny_folder)


@pytest.fixture(scope="module")
def done(spec: StudySpec, tmp_path_factory: pytest.TempPathFactory) -> tuple[StudyResult, Path]:
    folder = tmp_path_factory.mktemp("study") / "run"
    return run_study(spec, n_trials=6, folder=folder), folder


def numbers_of(result: StudyResult) -> list[Any]:
    """All that a study measured, without wall clocks."""
    rows = [t.to_json() for t in (result.reference, *result.trials) if t is not None]
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


def test_a_study_measures_every_objective_and_spends_no_more_than_it_may(done: tuple[StudyResult, Path]) -> None:
    result, _ = done
    assert len(result.trials) == 6
    for record in result.trials:
        assert record.state == "complete"
        spent = record.extras["epsilon_spent"].value
        assert 0.9 * record.params.target_epsilon < spent <= record.params.target_epsilon
        assert record.claim == "holds"
        assert 0 <= record.objectives["accuracy"].value <= 1
        assert record.objectives["accuracy"].stderr > 0
        assert record.objectives["membership_risk"].stderr > 0
        total = sum(row["contribution"] for row in record.contributions)
        assert record.objectives["compliance_penalty"].value == pytest.approx(total)
    assert math.isinf(known(result.cost.composed_epsilon).value)
    assert known(result.cost.composed_epsilon).private_part > max(t.params.target_epsilon for t in result.trials)


def test_every_accuracy_has_the_majority_baseline_of_the_test_part(done: tuple[StudyResult, Path]) -> None:
    result, folder = done
    kept = np.load(folder / "evidence" / "trial-0000.npz")
    labels, right = kept["test_labels"], kept["test_log_probs"].argmax(-1) == kept["test_labels"]
    for record in (result.reference, *result.trials):
        assert record is not None
        assert record.extras["majority_accuracy"].value == pytest.approx(np.bincount(labels).max() / len(labels))
        assert record.extras["majority_accuracy"].stderr > 0
    above = result.trials[0].extras["above_majority"]
    assert above.value == pytest.approx(right.mean() - np.bincount(labels).max() / len(labels))
    assert (result.table["majority_accuracy"] == result.trials[0].extras["majority_accuracy"].value).all()


def test_the_status_quo_runs_first_and_is_never_told_to_the_sampler(done: tuple[StudyResult, Path]) -> None:
    result, folder = done
    assert result.reference is not None
    assert result.reference.number == STATUS_QUO_TRIAL
    assert math.isinf(result.reference.params.target_epsilon)
    assert "baseline_accuracy" in result.reference.extras
    assert "without noise" in result.reference.claim
    import optuna

    stored = optuna.load_study(study_name="letters", storage=f"sqlite:///{folder / 'study.db'}").trials
    assert len(stored) == 6
    assert all(math.isfinite(t.params["target_epsilon"]) for t in stored)
    assert b"Infinity" not in (folder / "study.db").read_bytes()


def test_the_anchors_come_first(done: tuple[StudyResult, Path]) -> None:
    strictest, head = (t.params for t in done[0].trials[:2])
    assert (strictest.target_epsilon, strictest.masking_level, strictest.adapted_layers) == (1.0, 5, 0)
    assert head.adapted_layers == 0
    assert head.target_epsilon == pytest.approx(math.sqrt(32.0))


def test_evidence_is_for_the_owner_alone_and_the_pairs_are_what_the_attack_believes(
    done: tuple[StudyResult, Path],
) -> None:
    _, folder = done
    assert folder.stat().st_mode & 0o777 == 0o700
    files = sorted((folder / "evidence").glob("trial-*.npz"))
    assert len(files) == 6
    matrices = []
    for path in files:
        assert path.stat().st_mode & 0o777 == 0o600
        kept = np.load(path)
        members, units = kept["members"], kept["units"]
        assert np.array_equal(members[0::2], ~members[1::2])
        for unit in np.unique(units):  # a unit is in or out whole
            assert (members[:, units == unit] == members[:, units == unit][:, :1]).all()
        matrices.append(members.tobytes())
    assert len(set(matrices)) == 6  # coins are tossed anew for every trial


def test_runs_that_differ_share_no_randomness_and_the_same_run_shares_all(
    spec: StudySpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One folder, one key, one trial number.

    By another name, another clip, other parameters, and with its storage lost.
    """
    drawn: list[set[bytes]] = []
    streams, run = ShadowNoise.__init__, trial_module.run_trial

    def kept(self: ShadowNoise, generators: Any) -> None:
        drawn[-1] |= {copy.deepcopy(g).standard_normal(4).tobytes() for g in generators}
        streams(self, generators)

    def kept_batches(self: PoissonBatches, **options: Any) -> None:
        drawn[-1] |= {copy.deepcopy(g).random(4).tobytes() for g in options["generators"]}
        batches(self, **options)

    def members_too(*arguments: Any, **options: Any) -> Any:
        evidence = run(*arguments, **options)
        drawn[-1] |= {row.tobytes() for row in evidence.membership.members}
        return evidence

    batches = PoissonBatches.__init__
    monkeypatch.setattr(ShadowNoise, "__init__", kept)
    monkeypatch.setattr(PoissonBatches, "__init__", kept_batches)
    monkeypatch.setattr("moo.studies.trial.evaluator.run_trial", members_too)
    clipped = dataclasses.replace(spec, training=dataclasses.replace(spec.training, max_grad_norm=0.31))
    narrow = dataclasses.replace(spec, space=dataclasses.replace(spec.space, target_epsilon=(2.0, 32.0)))
    for name, other in (
        ("a", spec),
        ("b", dataclasses.replace(spec, name="b")),
        ("c", clipped),
        ("d", narrow),
        ("a", spec),
    ):
        drawn.append(set())
        storage = f"sqlite:///{tmp_path / f'{len(drawn)}.db'}"
        (tmp_path / "one" / "reference.json").unlink(missing_ok=True)
        run_study(other, n_trials=1, name=name, folder=tmp_path / "one", storage=storage)
    k = spec.training.n_shadows
    assert [len(seen) for seen in drawn] == [
        2 * (k + k + k)
    ] * 5  # noise, batches, halves; of the status quo and of one trial
    for i, j in itertools.combinations(range(4), 2):
        assert not drawn[i] & drawn[j]
    assert drawn[4] == drawn[0]


def test_while_shadows_train_no_more_than_the_pool_is_held(
    spec: StudySpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twice at one masking level, so that a trial could find the other parts of the one before."""
    held: list[set[str]] = []
    train, run = trial_module.train, trial_module.run_trial

    def kept(plan: TrialPlan, prepared: PreparedStudy, **options: Any) -> Any:
        def spied(*arguments: Any) -> Any:
            held.append(set(prepared.features.held_parts))
            return train(*arguments)

        monkeypatch.setattr(trial_module, "train", spied)
        plan = plan_trial(dataclasses.replace(plan.params, masking_level=3), prepared)
        return run(plan, prepared, **options)

    monkeypatch.setattr("moo.studies.trial.evaluator.run_trial", kept)
    run_study(spec, n_trials=2, folder=tmp_path)
    assert held == [{"pool"}] * 3


def test_a_stream_is_of_the_whole_run_and_noised_answers_of_their_policy(spec: StudySpec, tmp_path: Path) -> None:
    """Under one key: what the specification does not say, and still decides what is trained or told."""
    params = TrialParams(target_epsilon=4.0, masking_level=2, lora_rank=2, learning_rate=1e-3, adapted_layers=1)
    key = StudyKey(b"k" * 32)

    def noise(*, own: StudyKey | None = None, more: str = "", number: int = 0, **options: Any) -> bytes:
        made = prepare_study(spec, key, tmp_path, **options)
        found = made.streams.trial_key(params, *([more] if more else []), number=number, key=own)
        return found.generator("noise", 0).standard_normal(4).tobytes()

    first = noise()
    others = [
        noise(name="another"),
        noise(policy=Policy.parse("proxy_then_retrain(1)")),
        noise(split="fresh"),
        noise(number=1),
        noise(more="answers at 5"),
        noise(own=StudyKey(b"q" * 32)),
    ]
    made = prepare_study(spec, key, tmp_path)
    # as a filter that lets one user less pass
    fewer = made.data.records.take(np.arange(len(made.data.records) - 2))
    fewer_streams = made.on(dataclasses.replace(made.data, records=fewer)).streams
    others.append(fewer_streams.trial_key(params, number=0).generator("noise", 0).standard_normal(4).tobytes())
    other = StudyModel(made.spec)
    vars(other)["base"] = dataclasses.replace(other.base, digest="of other weights")
    others.append(
        dataclasses.replace(made.streams, model=other)
        .trial_key(params, number=0)
        .generator("noise", 0)
        .standard_normal(4)
        .tobytes()
    )
    assert len({first, *others}) == 1 + len(others)
    assert noise() == first


def test_streams_are_of_the_recogniser_that_masks(
    spec: StudySpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another version masks other words.

    Two runs on texts that differ must not share their noise. Without it none is asked for.
    """
    pytest.importorskip("jieba")
    params = TrialParams(target_epsilon=4.0, masking_level=2, lora_rank=2, learning_rate=1e-3, adapted_layers=1)
    installed = metadata.version
    drawn: dict[tuple[bool, str], set[bytes]] = {}
    for masks in (True, False):
        for found in ("0.42.1", "0.43", "0.42.1"):
            own = {names_ner.PACKAGE: found}
            monkeypatch.setattr(metadata, "version", lambda name, own=own: own.get(name) or installed(name))
            made = prepare_study(dataclasses.replace(spec, ner=masks), StudyKey(b"k" * 32), tmp_path)
            noise = made.streams.trial_key(params, number=0).generator("noise", 0).standard_normal(4).tobytes()
            drawn.setdefault((masks, found), set()).add(noise)
    assert [len(told) for told in drawn.values()] == [1] * 4  # the same run, the same noise
    assert drawn[True, "0.42.1"].isdisjoint(drawn[True, "0.43"])
    assert drawn[False, "0.42.1"] == drawn[False, "0.43"]


def test_a_part_may_hold_one_class_alone_but_a_classifier_pool_may_not(spec: StudySpec, tmp_path: Path) -> None:
    """One customer alone is of the second class; keys place that customer in the pool or in another part."""
    frame = pd.read_csv(spec.data)
    frame.assign(label=(frame["user"] == 7).astype(int)).to_csv(tmp_path / "one.csv", index=False)
    rare = dataclasses.replace(spec, data=str(tmp_path / "one.csv"))
    writer = dataclasses.replace(rare, task="generation")
    held: set[tuple[int, ...]] = set()
    for key in (StudyKey(bytes([i]) * 32) for i in range(16)):
        parts = prepare_study(writer, key, tmp_path).data.parts
        assert sum(int(part.labels.sum()) for part in parts.values()) == 2  # every record of theirs, in one part
        held.add(tuple(len(np.unique(part.labels)) for part in parts.values()))
        if parts["pool"].labels.any():
            assert len(np.unique(prepare_study(rare, key, tmp_path).data.parts["test"].labels)) == 1
        else:
            with pytest.raises(InputError, match=r"pool must hold at least two classes, .* is '0'; take more data"):
                prepare_study(rare, key, tmp_path)
    assert len(held) > 1  # both happened


def test_answers_of_two_policies_do_not_share_their_noise(
    spec: StudySpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One key, one trial, one model, told at two noise multipliers.

    With the same draw, both together would tell the number.
    """
    drawn: list[bytes] = []
    told = evaluator_module.noise_record

    def watched(*args: Any, rng: np.random.Generator, **options: Any) -> Any:
        drawn.append(copy.deepcopy(rng).standard_normal(4).tobytes())
        return told(*args, rng=rng, **options)

    monkeypatch.setattr(evaluator_module, "noise_record", watched)
    for noise in (5.0, 10.0, 5.0):
        storage = tmp_path / f"{len(drawn)}.db"
        run_study(spec, n_trials=1, answer_noise=noise, folder=tmp_path / "one", storage=storage)
    assert drawn[0] != drawn[1]
    assert drawn[0] == drawn[2]


def test_a_stream_is_of_what_the_files_hold_and_not_of_where_they_stand(spec: StudySpec, tmp_path: Path) -> None:
    params = TrialParams(target_epsilon=4.0, masking_level=2, lora_rank=2, learning_rate=1e-3, adapted_layers=1)
    table, model = Path(spec.data), Path(spec.model)
    shutil.copy(table, tmp_path / table.name)
    shutil.copytree(model, tmp_path / model.name)
    moved = dataclasses.replace(spec, data=str(tmp_path / table.name), model=str(tmp_path / model.name))

    def noise(spec: StudySpec) -> float:
        made = prepare_study(spec, StudyKey(b"k" * 32), tmp_path)
        return float(made.streams.trial_key(params, number=0).generator("noise", 0).standard_normal())

    assert noise(moved) == noise(spec)
    file = tmp_path / model.name / "tokenizer.json"
    told = json.loads(file.read_text())
    vocabulary = told["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    file.write_text(json.dumps(told))
    assert noise(moved) != noise(spec)


def test_the_same_seed_and_key_give_the_same_numbers_bit_for_bit(
    spec: StudySpec, done: tuple[StudyResult, Path], tmp_path: Path
) -> None:
    result, folder = done
    again = tmp_path / "again"
    again.mkdir()
    (again / "study.key").write_bytes((folder / "study.key").read_bytes())
    (again / "study.key").chmod(0o600)
    assert numbers_of(run_study(spec, n_trials=6, folder=again)) == numbers_of(result)
    other = run_study(spec, n_trials=1, folder=tmp_path / "other")
    assert numbers_of(other)[0] != numbers_of(result)[0]  # another key, other coins


def test_a_finished_study_goes_on_and_keeps_what_it_has(spec: StudySpec, tmp_path: Path) -> None:
    first = run_study(spec, n_trials=2, folder=tmp_path)
    seen: list[StudyProgress] = []
    more = run_study(spec, n_trials=3, folder=tmp_path, callbacks=[seen.append])
    assert numbers_of(more)[:3] == numbers_of(first)
    assert [p.newest.number for p in seen if p.newest is not None] == [2]


def test_results_travel_through_their_files(done: tuple[StudyResult, Path], tmp_path: Path) -> None:
    result, _ = done
    result.save(tmp_path)
    loaded = load_result(tmp_path)
    assert numbers_of(loaded) == numbers_of(result)
    pd.testing.assert_frame_equal(loaded.table, result.table)
    rows = json.loads((tmp_path / "front.json").read_text())
    wanted = {"number", "params", "accuracy", "membership_risk", "compliance_penalty", "constraints", "feasible"}
    assert wanted | {"on_front"} <= set(rows[0])
    assert len(pd.read_csv(tmp_path / "front.csv")) == 7
    assert set(result.front["number"]) == set(result.on_front)
    recommended = result.recommend()
    assert recommended.trial is not None
    assert recommended.trial.number in result.on_front


def test_without_a_feasible_trial_the_limit_in_the_way_is_named(done: tuple[StudyResult, Path]) -> None:
    result, _ = done
    hopeless = [dataclasses.replace(t, constraints={**t.constraints, "max_penalty": 0.2}) for t in result.trials]
    answer = dataclasses.replace(result, trials=tuple(hopeless)).recommend()
    assert answer.trial is None
    assert "max_penalty is broken by 6 of 6" in answer.reason


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"max_risk": 0.4}, "max_risk was 0.5 and is now 0.4"),
        ({"training": dataclasses.replace(TINY, steps=9)}, "steps was 8 and is now 9"),
    ],
)
def test_the_same_name_with_a_changed_configuration_is_refused(
    spec: StudySpec, done: tuple[StudyResult, Path], change: dict[str, Any], message: str
) -> None:
    _, folder = done
    kept = [folder / "study.db", folder / "reference.json", folder / "evidence" / "reference.npz"]
    before = [path.read_bytes() for path in kept], ledger_of(spec.data).entries()
    with pytest.raises(ConfigChangedError, match=message):
        run_study(dataclasses.replace(spec, **change), n_trials=6, folder=folder)
    assert ([path.read_bytes() for path in kept], ledger_of(spec.data).entries()) == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"training": dataclasses.replace(TINY, target_delta=0.1)}, "target_delta"),
        ({"space": SpaceSpec(lora_rank_log2=(1, 9))}, "Every rank must be <= 32"),
        ({"purpose": "marketing"}, "consent filter"),
        ({"consent_filter": False, "purpose": "marketing"}, "100.0% of"),
        ({"model": "/nowhere"}, "nowhere"),
        ({"attack": "guess"}, "guess"),
        ({"attack": "lira_online_per_text"}, "n_shadows must be >= 8"),
        ({"attribute": "gender"}, "column 'gender'"),
    ],
)
def test_what_cannot_be_studied_is_refused_before_anything_is_spent(
    spec: StudySpec, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        run_study(dataclasses.replace(spec, **change), n_trials=2, folder=tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run" / "study.db").exists()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"space": {"target_epsilon": [0.0, 8.0]}}, "target_epsilon must be > 0"),
        ({"space": {"target_epsilon": [8.0, 1.0]}}, "space.target_epsilon must have low <= high"),
        ({"space": {"masking_level": [0, 9]}}, "masking_level"),
        ({"training": {"n_shadows": 5}}, "n_shadows must be even"),
        ({"training": {"target_delta": 2.0}}, "target_delta"),
        ({"training": {"sample_rate": math.nan}}, "sample_rate"),
        ({"epsilon": 1.0}, "epsilon"),
        ({"max_risk": "low"}, "max_risk must be float"),
        ({"as_of": "yesterday"}, "ISO date"),
        ({"pool": 0.8, "test": 0.2}, "pool \\+ test"),
    ],
)
def test_an_unfit_specification_is_refused_by_name(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        StudySpec.from_mapping(values)


def test_specifications_come_from_presets_files_and_json(tmp_path: Path) -> None:
    assert "reviews" in presets()
    shipped = load_spec("reviews")
    assert StudySpec.from_mapping(shipped.to_json()) == shipped
    (tmp_path / "mine.toml").write_text('data = "reviews"\n[space]\nmasking_level = [2, 5]\n')
    assert load_spec(tmp_path / "mine.toml").space.masking_level == (2, 5)
    (tmp_path / "bad.toml").write_text("name = ")
    for path, message in (
        (tmp_path / "bad.toml", "TOML"),
        (tmp_path / "absent.toml", "readable"),
        ("revews", "reviews"),
    ):
        with pytest.raises(InputError, match=message):
            load_spec(path)


def test_a_study_without_a_day_is_judged_today_and_keeps_its_day_when_it_goes_on(
    spec: StudySpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_day = dataclasses.replace(spec, as_of="")
    assert open_day.on(date(2026, 11, 30)).as_of == "2026-11-30"
    assert spec.on(date(2026, 11, 30)) is spec
    first = run_study(open_day, n_trials=1, folder=tmp_path)
    assert first.spec["as_of"] == date.today().isoformat()
    kept = load_spec("reviews")
    assert kept.as_of, "shipped data have days of their own"

    class Tomorrow(date):
        @classmethod
        def today(cls) -> "Tomorrow":
            return cls.fromordinal(date.today().toordinal() + 1)

    for module in (places_module, evaluator_module, prepare_module):
        monkeypatch.setattr(module, "date", Tomorrow)
    assert run_study(open_day, n_trials=1, folder=tmp_path).spec["as_of"] == first.spec["as_of"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: StudySpec(max_risk="low"), "max_risk must be float, got 'low'"),  # type: ignore[arg-type]
        (lambda: StudySpec(packs="pipl"), "packs must be a list"),  # type: ignore[arg-type]
        (lambda: StudySpec(n_records=True), "n_records must be int"),
        (lambda: StudySpec(consent_filter=1), "consent_filter must be bool"),  # type: ignore[arg-type]
        (lambda: StudySpec(name=None), "name must be str"),  # type: ignore[arg-type]
        (lambda: StudySpec(max_penalty=math.nan), "max_penalty must be a number, got NaN"),
        (lambda: StudySpec(space={"target_epsilo": (1, 2)}), "Did you mean 'target_epsilon'"),  # type: ignore[arg-type]
        (
            lambda: SpaceSpec(target_epsilon=(1.0,)),  # type: ignore[arg-type]
            r"space\.target_epsilon must be \[low, high\]",
        ),
        (lambda: SpaceSpec(masking_level=(0, 1.5)), r"space\.masking_level must be int"),  # type: ignore[arg-type]
        (lambda: TrainingSpec(steps=2.5), r"training\.steps must be int"),  # type: ignore[arg-type]
        (lambda: TrainingSpec(engine="bnak"), "Did you mean 'bank'"),
        (lambda: StudySpec.from_mapping({"max_rsk": 0.1}, source="a.toml"), r"a\.toml: .*Did you mean 'max_risk'"),
    ],
)
def test_python_arguments_are_checked_like_those_of_toml(make: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()


def test_values_from_python_take_the_types_of_their_fields() -> None:
    space: Any = {"target_epsilon": [1, 8]}
    made = StudySpec(data=Path("a.csv"), max_risk=1, packs=["pipl"], space=space)  # type: ignore[arg-type]
    assert (made.data, made.max_risk, made.packs) == ("a.csv", 1.0, ("pipl",))
    assert made.space == SpaceSpec(target_epsilon=(1.0, 8.0))
    assert StudySpec.from_mapping(made.to_json()) == made


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_trials": 0}, "n_trials"),
        ({"n_trials": 2.0}, "n_trials must be a whole number"),
        ({"n_trials": "3"}, "n_trials must be a number"),
        ({"n_trials": True}, "n_trials must be a number"),
        ({"seed": 1.5}, "seed must be a whole number"),
        ({"workers": 0}, "workers"),
        ({"executor": "process"}, "Did you mean 'processes'"),
        ({"callbacks": [3]}, "callbacks"),
        ({"policy": 7}, "policy must be a name"),
        ({"policy": "select_on"}, "Did you mean 'select_one'"),
        ({"policy": "publish_all(9)", "answer_noise": "much"}, "answer_noise must be a number"),
        ({"weights": 3}, "weights must be"),
        ({"name": ""}, "name must be a word without slashes"),
        ({"spec": 3}, "study must be a name"),
        ({"spec": StudySpec(applies=("profilng",))}, "Did you mean 'profiling'"),
        ({"spec": StudySpec(data="revews")}, "Did you mean 'reviews'"),
        ({"spec": StudySpec(packs=("pilp",))}, "Did you mean 'pipl'"),
        ({"spec": StudySpec(attack="pair_refernce")}, "Did you mean 'pair_reference'"),
        ({"spec": StudySpec(dossier="absent.toml")}, "no such file"),
    ],
)
def test_unfit_arguments_of_a_search_are_refused_before_its_folder_is_made(
    spec: StudySpec, tmp_path: Path, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        run_study(**{"spec": spec, "n_trials": 2, **arguments}, folder=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_only_known_policies_and_counts_are_taken(spec: StudySpec, tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="policy must be one of"):
        run_study(spec, n_trials=1, policy="everything", folder=tmp_path)
    with pytest.raises(InputError, match="n_trials"):
        run_study(spec, n_trials=0, folder=tmp_path)


def test_a_folder_is_held_by_one_run_at_a_time(spec: StudySpec, tmp_path: Path) -> None:
    def second(_: StudyProgress) -> None:
        with pytest.raises(StorageError, match="one run at a time"):
            run_study(spec, n_trials=1, folder=tmp_path)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_study(spec, n_trials=1, folder=tmp_path, callbacks=[second])


def test_a_storage_that_is_not_one_is_refused_and_left_alone(spec: StudySpec, tmp_path: Path) -> None:
    (tmp_path / "notes.db").write_text(
        "these are my notes, not a database, and they are longer than a header of SQLite"
    )
    before = (tmp_path / "notes.db").read_bytes()
    with pytest.raises(StorageError, match="storage must be readable"):
        run_study(spec, n_trials=1, folder=tmp_path / "run", storage=tmp_path / "notes.db")
    for unfit in ("redis://host", 3):
        with pytest.raises(InputError, match="storage must be a URL"):
            run_study(spec, n_trials=1, folder=tmp_path / "run", storage=unfit)  # type: ignore[arg-type]
    assert (tmp_path / "notes.db").read_bytes() == before
    assert not (tmp_path / "run").exists()


def test_a_failed_trial_is_recorded_with_its_cause_and_the_study_goes_on(
    spec: StudySpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real: Callable[..., Any] = trial_module.train
    calls = 0

    def fails_once(*args: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 3:  # the reference and trial 0 come before
            raise TrialError("the step must fit into memory, but does not.", cause="out of memory")
        return real(*args, **options)

    monkeypatch.setattr(trial_module, "train", fails_once)
    result = run_study(spec, n_trials=3, folder=tmp_path)
    states = [(t.state, t.cause) for t in result.trials]
    assert states == [("complete", ""), ("failed", "out of memory"), ("complete", "")]
    failed = result.trials[1]
    assert not failed.feasible
    assert set(failed.constraints) >= set(result.trials[0].constraints)
    assert 1 not in result.on_front
    result.save(tmp_path)
    assert load_result(tmp_path).trials[1].cause == "out of memory"


def test_too_few_unseen_records_leave_the_null_unassessed_and_the_trial_whole(
    spec: StudySpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = trial_module._members

    def one_sided(prepared: Any, part: str, key: Any) -> Any:
        members = drawn(prepared, part, key)
        if part == "unseen":
            members[0], members[1] = True, False
        return members

    monkeypatch.setattr(trial_module, "_members", one_sided)
    result = run_study(dataclasses.replace(spec, name="small"), n_trials=1, folder=tmp_path)
    assert result.trials[0].state == "complete"
    assert "too few for two sides" in result.trials[0].extras["null_auc"].note
    assert result.null_aucs == []
    result.save(tmp_path)
    assert load_result(tmp_path).null_aucs == []


@pytest.mark.parametrize(
    ("model", "space", "training", "says"),
    [
        ("gpt2", {"n_queries": (0, 2)}, {}, "learned queries need an encoder"),
        ("bert", {"n_queries": (0, 2)}, {"head": "stock"}, "layers_dropped and n_queries must be 0 with head"),
        ("bert", {"layers_dropped": (0, 1)}, {"head": "stock"}, "layers_dropped and n_queries must be 0 with head"),
        ("bert", {"layers_dropped": (0, 4)}, {}, r"adapted_layers \+ layers_dropped must be <= 4"),
        ("bert", {"n_queries": (0, 2)}, {"engine": "opacus"}, r"space\.n_queries = \[0, 0\]"),
        ("electra", {"layers_dropped": (0, 1)}, {}, r"space\.layers_dropped = \[0, 0\]"),
        ("bert", {"adapted_layers": (0, 5)}, {"engine": "opacus"}, "adapted_layers must be <= 4"),
        ("electra", {"adapted_layers": (0, 5)}, {}, "adapted_layers must be <= 4"),
        ("electra", {"adapted_layers": (0, 0)}, {"engine": "bank"}, "use adapted_layers=0 or engine='opacus'"),
        ("distilbert", {}, {"adaptation": "prefix"}, "which PEFT does not offer for it"),
        ("bert", {}, {"max_length": 65}, r"max_length must be <= 64, got 65: .*bert\d+ was trained for 64 positions"),
        ("roberta", {}, {"max_length": 63}, "max_length must be <= 62, got 63"),
        ("qwen2", {}, {"max_length": 65}, "max_length must be <= 64, got 65"),
        (
            "bert",
            {},
            {"max_length": 57, "adaptation": "prefix"},
            "must be <= 56, got 57: .* of which the largest prefix takes 8",
        ),
    ],
)
def test_a_depth_that_the_engine_cannot_train_is_refused_before_anything_is_spent(
    spec: StudySpec,
    family: Callable[[str], BaseModel],
    tmp_path: Path,
    model: str,
    space: Any,
    training: Any,
    says: str,
) -> None:
    unfit = dataclasses.replace(
        spec,
        name="unfit",
        model=family(model).name,
        space=dataclasses.replace(spec.space, **space),
        training=dataclasses.replace(TINY, **training),
    )
    before = ledger_of(spec.data).entries()
    with pytest.raises(InputError, match=says):
        run_study(unfit, n_trials=2, folder=tmp_path / "a")
    if "max_length" in training:
        with pytest.raises(InputError, match=says):
            plan_study(unfit, n_trials=2)
    assert ledger_of(spec.data).entries() == before
    assert not (tmp_path / "a" / "study.db").exists()


def test_the_head_alone_of_a_model_of_an_unknown_family_is_searched_on_the_reference_path(
    spec: StudySpec, family: Callable[[str], BaseModel], tmp_path: Path
) -> None:
    alone = dataclasses.replace(
        spec,
        name="head",
        model=family("electra").name,
        training=dataclasses.replace(TINY, steps=4),
        space=dataclasses.replace(spec.space, adapted_layers=(0, 0)),
    )
    result = run_study(alone, n_trials=1, folder=tmp_path / "a")
    assert result.about["engine"] == "opacus"
    assert [t.state for t in result.trials] == ["complete"]


def test_a_model_of_an_unknown_family_falls_back_to_the_reference_path_and_says_so(
    spec: StudySpec, tmp_path: Path, family: Callable[[str], BaseModel]
) -> None:
    unknown = dataclasses.replace(
        spec, name="electra", model=family("electra").name, training=dataclasses.replace(TINY, steps=4)
    )
    result = run_study(unknown, n_trials=2, folder=tmp_path / "a")
    assert result.about["engine"] == "opacus"
    assert [t.state for t in result.trials] == ["complete", "complete"]
    assert result.reference is not None
    assert result.reference.params.adapted_layers == 1  # one layer adapted, by PEFT
    assert all(t.claim == "holds" for t in result.trials)
    strict = dataclasses.replace(unknown, training=dataclasses.replace(unknown.training, engine="bank"))
    with pytest.raises(InputError, match="known family"):
        run_study(strict, n_trials=1, folder=tmp_path / "b")


def test_a_search_over_depth_and_learned_queries_completes(
    spec: StudySpec, tmp_path: Path, family: Callable[[str], BaseModel]
) -> None:
    space = SpaceSpec(
        target_epsilon=(4.0, 4.0),
        masking_level=(1, 1),
        adapted_layers=(1, 3),
        layers_dropped=(0, 1),
        n_queries=(0, 3),
        lora_rank_log2=(1, 2),
    )
    deep = dataclasses.replace(spec, name="deep", model=family("bert").name, space=space)
    result = run_study(deep, n_trials=6, folder=tmp_path)
    assert [t.state for t in result.trials] == ["complete"] * 6
    assert len({t.params.adapted_layers for t in result.trials}) > 1
    assert any(t.params.layers_dropped for t in result.trials)
    assert all(t.params.n_queries == 0 for t in result.trials if t.params.adapted_layers > 1)
    assert result.about["engine"] == "bank"


def test_a_plan_spends_nothing(spec: StudySpec) -> None:
    planned = plan_study(spec, n_trials=10)
    assert planned.seconds > planned.trunk_seconds > 0
    assert planned.composed_high.private_part > planned.composed_low.private_part > spec.space.target_epsilon[0]
    assert math.isinf(planned.composed_low.value)  # the status quo trains without DP
    assert sum(planned.records.values()) == 480


def test_a_plan_counts_depth_and_engine(spec: StudySpec, family: Callable[[str], BaseModel]) -> None:
    def trainings(layers: int, engine: str) -> tuple[float, float]:
        """Seconds, and the trunk's, in whose terms the machine's mood cancels."""
        space = dataclasses.replace(spec.space, adapted_layers=(layers, layers))
        training = dataclasses.replace(spec.training, engine=engine)
        deep = dataclasses.replace(spec, model=family("bert").name, space=space, training=training)
        planned = plan_study(deep, n_trials=10)
        return planned.seconds - planned.trunk_seconds, planned.trunk_seconds

    steps, _ = trainings(0, "bank")
    assert steps == pytest.approx(10 * spec.training.steps * 0.007)  # what a step costs whatever its batch
    one, two, loop = (
        (seconds - own) / trunk
        for seconds, trunk, own in (
            (*trainings(1, "bank"), steps),
            (*trainings(2, "bank"), steps),
            (*trainings(1, "opacus"), 0.0),
        )
    )
    assert 30 < two / one < 40
    assert 30 < loop / one < 180


def test_a_trial_that_memory_was_too_small_for_fails_and_the_study_goes_on(
    spec: StudySpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trial_module.run_trial

    def small(plan: Any, prepared: Any, *, number: int, **options: Any) -> Any:
        if number == 1:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes.")
        return run(plan, prepared, number=number, **options)

    monkeypatch.setattr("moo.studies.trial.evaluator.run_trial", small)
    result = run_study(dataclasses.replace(spec, name="cramped"), n_trials=3, folder=tmp_path)
    assert [t.state for t in result.trials] == ["complete", "failed", "complete"]
    assert result.trials[1].cause == "out of memory"


def test_every_training_stands_in_the_ledger_of_its_data(spec: StudySpec, tmp_path: Path) -> None:
    result = run_study(dataclasses.replace(spec, name="booked"), n_trials=2, folder=tmp_path)
    entries = [e for e in ledger_of(spec.data).entries() if e.study.startswith("booked ")]
    assert [e.kind for e in entries] == ["gate", "reserve", "commit", "reserve", "reserve", "commit", "commit"]
    noise = [t.extras["noise_multiplier"].value for t in result.trials]
    assert [e.body["run"]["noise_multiplier"] for e in entries if e.kind == "reserve"] == [0, *noise]
    assert all(e.body["run"]["shadows_per_unit"] == 2 for e in entries if e.kind == "reserve")
    assert verify(ledger_of(spec.data).path, dict([parse_anchor(result.cost.anchor)])).intact
    assert "non-private reference: no guarantee" in result.cost.label
    assert known(result.cost.data_epsilon).private_part >= known(result.cost.composed_epsilon).private_part
    assert math.isinf(known(result.cost.data_epsilon).value)


def test_an_interrupted_training_is_charged_in_full(spec: StudySpec, tmp_path: Path) -> None:
    cut = dataclasses.replace(spec, name="cut")

    def interrupt(progress: StudyProgress) -> None:
        if progress.newest is not None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_study(cut, n_trials=3, folder=tmp_path, callbacks=[interrupt])
    before = len(charged_to("cut ", spec))
    result = run_study(cut, n_trials=3, folder=tmp_path)
    undisturbed = run_study(dataclasses.replace(spec, name="whole"), n_trials=3, folder=tmp_path / "whole")
    assert before == 4  # the reference and a generation of three, of which one came to an end
    assert len(charged_to("cut ", spec)) == before + 2
    assert known(result.cost.composed_epsilon).private_part > known(undisturbed.cost.composed_epsilon).private_part


def charged_to(prefix: str, spec: StudySpec) -> list[Event]:
    entries = ledger_of(spec.data).entries()
    return charged([e for e in entries if e.study.startswith(prefix)])


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_numbers_of_one_that_was_not(spec: StudySpec, tmp_path: Path) -> None:
    """The real thing: SIGKILL in the middle, then the same call, then the same study undisturbed under the same key."""
    script = textwrap.dedent("""
        import json, sys
        from moo.studies.spec.study import StudySpec
        from moo.studies.search.run_study import run_study
        spec = StudySpec.from_mapping(json.loads(sys.argv[1]))
        show = lambda p: p.newest and print(p.newest.number, flush=True)
        run_study(spec, n_trials=12, folder=sys.argv[2], callbacks=[show])
    """)
    command = [sys.executable, "-W", "ignore", "-c", script, json.dumps(spec.to_json())]
    with subprocess.Popen([*command, str(tmp_path / "a")], stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        for line in first.stdout:
            if line.strip() == "4":
                time.sleep(0.15)
                os.kill(first.pid, signal.SIGKILL)
                break
    resumed = run_study(spec, n_trials=12, folder=tmp_path / "a")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "study.key").write_bytes((tmp_path / "a" / "study.key").read_bytes())
    (tmp_path / "b" / "study.key").chmod(0o600)
    whole = run_study(spec, n_trials=12, folder=tmp_path / "b")
    assert numbers_of(resumed) == numbers_of(whole)


@pytest.mark.slow
def test_processes_give_the_numbers_of_one_process(spec: StudySpec, tmp_path: Path) -> None:
    one = run_study(spec, n_trials=4, folder=tmp_path / "a")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "study.key").write_bytes((tmp_path / "a" / "study.key").read_bytes())
    (tmp_path / "b" / "study.key").chmod(0o600)
    two = run_study(spec, n_trials=4, folder=tmp_path / "b", executor="processes", workers=2)
    assert numbers_of(two) == numbers_of(one)
