"""Batches halved and steps doubled, trial by trial.

What trains, what the ledger is told, and what a guarantee over all of them is.
"""

import dataclasses
import itertools
import json
import math
from functools import cache
from pathlib import Path

import dp_accounting
import pytest
from dp_accounting import rdp
from dp_accounting.dp_event import RepeatAndSelectDpEvent
from rich.console import Console

from moo.cli.tables import print_result
from moo.core.errors import InputError
from moo.core.trial_record import TrialParams
from moo.privacy.composition import (
    ORDERS,
    compose_epsilon,
    compose_worst,
    epsilon_of_all,
    epsilon_of_any,
    epsilon_of_selected,
    epsilon_pld,
)
from moo.privacy.events import PrivateAnswer, TrainingRun
from moo.privacy.keys import StudyKey
from moo.privacy.release_policy import Policy
from moo.report.html import render
from moo.studies.accounting.account import ledger_of
from moo.studies.accounting.cost import budget_filter, guarantee, runs_at
from moo.studies.results.result import StudyResult, load_result
from moo.studies.search.estimate import plan_study
from moo.studies.search.progress import StudyProgress
from moo.studies.search.run_study import run_study
from moo.studies.setup.prepared import PreparedStudy, prepare_study
from moo.studies.spec.schedule import training_schedule
from moo.studies.spec.search_space import STATUS_QUO, depths, initial_trials, params_of, space_of
from moo.studies.spec.study import StudySpec
from moo.studies.spec.training import TrainingSpec
from moo.studies.trial.noised_record import expected_floors, planned_answers
from moo.studies.trial.plan import planned_run, training_settings
from moo.studies.workflows.retrain import retrain
from tests.fixtures.letters import known, letters_spec

PARAMS = TrialParams(target_epsilon=8.0, masking_level=0, lora_rank=2, learning_rate=1e-3, adapted_layers=0)


def halved(times: int, **changes: object) -> TrialParams:
    return dataclasses.replace(PARAMS, batch_halvings=times, **changes)  # type: ignore[arg-type]


@cache
def run_of(times: int, epsilon: float) -> TrainingRun:
    """As the default recipe plans it."""
    return planned_run(halved(times, target_epsilon=epsilon), StudySpec(), 330, "user")


def with_halvings(spec: StudySpec, name: str, bounds: tuple[int, int] = (0, 2)) -> StudySpec:
    return dataclasses.replace(spec, name=name, space=dataclasses.replace(spec.space, batch_halvings=bounds))


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> StudySpec:
    return letters_spec(tmp_path_factory.mktemp("table"), tiny_folder)


@pytest.fixture(scope="module")
def done(spec: StudySpec, tmp_path_factory: pytest.TempPathFactory) -> tuple[StudyResult, Path]:
    folder = keyed(tmp_path_factory.mktemp("study"))
    result = run_study(with_halvings(spec, "halved"), n_trials=6, folder=folder)
    result.save(folder)
    return result, folder


@pytest.fixture(scope="module")
def prepared(spec: StudySpec, tmp_path_factory: pytest.TempPathFactory) -> PreparedStudy:
    return prepare_study(
        spec, StudyKey(b"\x5a" * 32), tmp_path_factory.mktemp("prepared"), policy=Policy.parse("proxy_then_retrain(1)")
    )


def keyed(folder: Path) -> Path:
    """A study's folder whose splits are the same in every run of these tests."""
    folder.mkdir(exist_ok=True)
    (folder / "study.key").write_bytes(b"5a" * 32)
    (folder / "study.key").chmod(0o600)
    return folder


def reserved(spec: StudySpec, name: str) -> dict[int, TrainingRun]:
    entries = [e for e in ledger_of(spec.data).entries() if e.study.startswith(f"{name} ") and e.kind == "reserve"]
    return {e.body["trial"]: TrainingRun.from_json(e.body["run"]) for e in entries}


def test_a_halving_keeps_passes_and_the_heads_reach() -> None:
    base = TrainingSpec()
    schedule = training_schedule(halved(4), base)
    assert (schedule.steps, schedule.sample_rate) == (400, 0.03125)
    assert schedule.steps * schedule.sample_rate == base.steps * base.sample_rate
    assert schedule.steps * schedule.head_learning_rate == base.steps * base.head_learning_rate
    assert training_schedule(STATUS_QUO, base).steps == base.steps


def test_training_and_event_read_one_recipe() -> None:
    spec, run = StudySpec(), run_of(3, 8.0)
    settings = training_settings(halved(3), spec, run, engine="bank")
    assert (settings.steps, settings.sample_rate) == (run.steps, run.sample_rate) == (200, 0.0625)
    assert settings.optimizer.head_learning_rate == 1.5 / 8
    assert settings.dp.expected_batch_size == 330 / 16


def test_parameters_of_before_still_load_and_bounds_hold() -> None:
    old = PARAMS.to_json()
    del old["batch_halvings"]
    assert TrialParams.from_json(old) == PARAMS
    assert TrialParams.from_json(halved(3).to_json()) == halved(3)
    for bad in (-1, 13):
        with pytest.raises(InputError, match="batch_halvings"):
            halved(bad)
    values = StudySpec().to_json()
    del values["space"]["batch_halvings"]
    assert StudySpec.from_mapping(values) == StudySpec()
    with pytest.raises(InputError, match="batch_halvings"):
        StudySpec.from_mapping({"space": {"batch_halvings": [0, 13]}})


def test_the_dimension_is_searched_only_where_it_is_open_and_at_every_depth() -> None:
    closed, opened = StudySpec(), with_halvings(StudySpec(), "open", (1, 4))
    assert "batch_halvings" not in space_of(closed.space)
    assert space_of(opened.space)["batch_halvings"].high == 4
    assert [a["batch_halvings"] for a in initial_trials(opened.space)] == [1, 1]
    assert all(p.batch_halvings == 1 for p in depths(opened.space))
    assert len(depths(opened.space)) == len(depths(closed.space))
    assert params_of({**initial_trials(opened.space)[0], "adapted_layers": 0, "batch_halvings": 3}).batch_halvings == 3


@pytest.mark.parametrize("epsilon", [0.5, 8.0, 32.0])
def test_noise_is_calibrated_at_every_number_of_halvings(epsilon: float) -> None:
    for times in (0, 2, 4):
        assert 0.98 * epsilon < epsilon_pld(run_of(times, epsilon)) <= epsilon


def test_selecting_among_recipes_costs_their_maximum_at_every_order() -> None:
    """More than each alone: at epsilon 32 the base recipe is not the dearest."""
    kinds = [[dataclasses.replace(run_of(k, 32.0), shadows_per_unit=2)] for k in range(3)]
    each = [epsilon_of_selected(kind, mean=30, delta=1e-5) for kind in kinds]
    together = epsilon_of_selected(*kinds, mean=30, delta=1e-5)
    assert together >= max(each) > 1.03 * each[0]
    bare = [dataclasses.replace(run_of(0, 32.0), noise_multiplier=0.0)]
    assert epsilon_of_selected(*kinds, bare, mean=30, delta=1e-5) == math.inf


def test_selecting_costs_no_more_than_dp_accounting_says() -> None:
    """Where its series converges at every order, as much; where not, it leaves orders out that higher ones bound."""
    for times, epsilon, share in ((2, 2.0, 1.0), (0, 32.0, 0.8)):
        run = dataclasses.replace(run_of(times, epsilon), shadows_per_unit=2)
        accountant = rdp.RdpAccountant(ORDERS)
        event = dp_accounting.ComposedDpEvent([run.to_dp_event(runs=2)])
        accountant.compose(RepeatAndSelectDpEvent(event, 30, 1.0))
        found, theirs = epsilon_of_selected([run], mean=30, delta=1e-5), accountant.get_epsilon(1e-5)
        assert found <= theirs * (1 + 1e-9)
        assert (found == pytest.approx(theirs, rel=1e-9)) == (share == 1.0)


def test_retraining_any_mixture_of_recipes_stays_within_the_envelope() -> None:
    kinds = [run_of(k, 8.0) for k in (4, 0)]
    dearest = max(epsilon_of_all(chosen, delta=1e-5) for chosen in itertools.combinations_with_replacement(kinds, 2))
    found = epsilon_of_any(kinds, times=2, delta=1e-5)
    assert dearest <= found < 1.01 * dearest
    alone = epsilon_of_all(kinds[:1] * 2, delta=1e-5)
    assert found > 1.03 * alone  # which would be broken by the other
    assert epsilon_of_any(kinds[:1], times=2, delta=1e-5) == pytest.approx(alone)
    assert epsilon_of_any([kinds[0]] * 2, times=2, delta=1e-5) == pytest.approx(alone, abs=2e-3)
    bare = dataclasses.replace(kinds[0], noise_multiplier=0.0)
    assert epsilon_of_any([kinds[0], bare], times=2, delta=1e-5) == math.inf


def test_any_mixture_of_trials_composes_within_the_dearest() -> None:
    answer = PrivateAnswer(name="accuracy", sensitivity=0.01, noise_multiplier=5.0, part="test")
    kinds = [[run_of(k, 32.0), answer] for k in (0, 1, 2)]
    mixtures = itertools.combinations_with_replacement(kinds, 4)
    worst = max(compose_epsilon([e for kind in chosen for e in kind], delta=1e-5) for chosen in mixtures)
    assert worst <= compose_worst(kinds, trials=4, delta=1e-5) < 1.05 * worst
    assert compose_worst(kinds[:1], trials=4, delta=1e-5) == pytest.approx(compose_epsilon(kinds[0] * 4, delta=1e-5))


@pytest.mark.parametrize("policy", ["select_one", "proxy_then_retrain(3)"])
def test_a_guarantee_over_the_space_is_no_less_than_at_any_number_of_halvings(
    spec: StudySpec, prepared: PreparedStudy, policy: str
) -> None:
    chosen = Policy.parse(policy)

    def guaranteed(bounds: tuple[int, int]) -> float:
        opened = dataclasses.replace(prepared, spec=with_halvings(spec, "any", bounds))
        return guarantee(opened, chosen, planned_answers(chosen, expected_floors(spec, prepared.data.n_units)), 12)[0]

    each = [guaranteed((k, k)) for k in range(3)]
    assert max(each) <= guaranteed((0, 2)) < 1.1 * max(each)
    assert min(each) < 0.98 * max(each)  # so that one number of halvings in place of all would not do


def test_the_budget_of_a_publication_is_tuned_in_the_middle_and_charged_trial_by_trial(
    spec: StudySpec, prepared: PreparedStudy, tmp_path: Path
) -> None:
    opened = with_halvings(spec, "public")
    searched = dataclasses.replace(prepared, spec=opened)
    policy = Policy.parse("publish_all(40)")
    answers = planned_answers(policy, expected_floors(opened, prepared.data.n_units))
    limit = budget_filter(policy, searched, answers)
    middle = dataclasses.replace(prepared, spec=with_halvings(spec, "public", (1, 1)))
    assert limit == budget_filter(policy, middle, answers)
    result = run_study(opened, n_trials=8, policy=policy, folder=keyed(tmp_path))
    runs = reserved(spec, "public")
    assert len({run.steps for run in runs.values()}) > 1
    assert sorted(runs) == [t.number for t in result.complete]
    assert known(result.cost.composed_epsilon).value <= 40
    assert "admits at least" in plan_study(opened, n_trials=4, policy=policy).holds


def test_a_study_trains_and_charges_each_trial_by_its_own_recipe(
    spec: StudySpec, done: tuple[StudyResult, Path]
) -> None:
    result, folder = done
    runs = reserved(spec, "halved")
    assert len({t.params.batch_halvings for t in result.trials}) > 1
    assert runs[-1].steps == 8  # the status quo
    commits = {
        e.body["reservation"]: e.body["steps"]
        for e in ledger_of(spec.data).entries()
        if e.study.startswith("halved ") and e.kind == "commit"
    }
    assert sorted(commits.values()) == sorted(run.steps for run in runs.values())
    for trial in result.trials:
        times = 2**trial.params.batch_halvings
        assert (runs[trial.number].steps, runs[trial.number].sample_rate) == (8 * times, 0.5 / times)
        assert trial.claim == "holds"
        spent = trial.extras["epsilon_spent"].value
        assert 0.9 * trial.params.target_epsilon < spent <= trial.params.target_epsilon
        assert spent == pytest.approx(epsilon_pld(runs[trial.number]))
    loaded = load_result(folder)
    assert [t.params for t in loaded.trials] == [t.params for t in result.trials]
    assert list(loaded.table["batch_halvings"][1:]) == [t.params.batch_halvings for t in result.trials]


def test_an_interrupted_search_over_recipes_goes_on_to_the_same_numbers(
    spec: StudySpec, done: tuple[StudyResult, Path], tmp_path: Path
) -> None:
    result, _ = done
    keyed(tmp_path)

    def interrupt(progress: StudyProgress) -> None:
        if progress.newest is not None and progress.newest.number == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_study(with_halvings(spec, "halved"), n_trials=6, folder=tmp_path, callbacks=[interrupt])
    again = run_study(with_halvings(spec, "halved"), n_trials=6, folder=tmp_path)

    def told(found: StudyResult) -> list[dict[str, object]]:
        return [{k: v for k, v in t.to_json().items() if k != "seconds"} for t in found.trials]

    assert told(again) == told(result)


def test_streams_differ_by_the_number_of_halvings(prepared: PreparedStudy) -> None:
    drawn = [prepared.streams.trial_key(halved(k), number=3).generator("noise").random(4).tolist() for k in (0, 1, 2)]
    assert len({json.dumps(d) for d in drawn}) == 3


def test_a_retrained_model_takes_the_recipe_of_its_trial(spec: StudySpec, tmp_path: Path) -> None:
    study = with_halvings(spec, "proxied", (2, 2))
    result = run_study(study, n_trials=1, policy="proxy_then_retrain(1)", folder=keyed(tmp_path / "s"))
    result.save(tmp_path / "s")
    (written,) = retrain(tmp_path / "s", [0], to=tmp_path / "leaves")
    run = reserved(spec, "proxied")[0]  # the latest of trial 0: its retraining
    assert (run.part, run.steps, run.sample_rate) == ("release", 32, 0.125)
    card = json.loads((written / "card.json").read_text())
    assert card["params"]["batch_halvings"] == 2
    assert card["epsilon"] == pytest.approx(epsilon_pld(run))
    assert card["claim"] == "holds"
    assert card["epsilon_of_all_retrained"] <= result.cost.guaranteed_epsilon


@pytest.mark.parametrize("policy", ["internal", "proxy_then_retrain(1)"])
def test_batches_of_less_than_one_unit_are_refused_before_anything_is_spent(
    spec: StudySpec, tmp_path: Path, policy: str
) -> None:
    before = ledger_of(spec.data).entries()
    empty = with_halvings(spec, "empty", (0, 7))
    most = {"internal": 5, "proxy_then_retrain(1)": 4}[policy]  # 77 or 38 units at rate .5
    with pytest.raises(InputError, match=rf"batch_halvings must be <= {most} .*lower space\.batch_halvings"):
        run_study(empty, n_trials=2, policy=policy, folder=keyed(tmp_path))
    with pytest.raises(InputError, match=f"batch_halvings must be <= {most}"):
        plan_study(empty, n_trials=2, policy=Policy.parse(policy))
    with pytest.raises(InputError, match="batch_halvings must be <= 3"):
        planned_run(halved(4), empty, 30, "user")
    assert ledger_of(spec.data).entries() == before
    assert not (tmp_path / "study.db").exists()


def test_a_plan_spans_every_number_of_halvings(spec: StudySpec) -> None:
    each = [plan_study(with_halvings(spec, "plan", (k, k)), n_trials=10) for k in range(3)]
    both = plan_study(with_halvings(spec, "plan"), n_trials=10)
    assert both.composed_low.private_part == min(p.composed_low.private_part for p in each)
    assert both.composed_high.private_part >= max(p.composed_high.private_part for p in each)


def test_a_plan_counts_twice_the_steps_for_every_halving(spec: StudySpec) -> None:
    """Of the head alone, whose batches are planned to cost nothing."""
    bare = dataclasses.replace(spec, space=dataclasses.replace(spec.space, adapted_layers=(0, 0)))
    plans = [plan_study(with_halvings(bare, "plan", bounds), n_trials=10) for bounds in ((0, 0), (2, 2), (0, 2))]
    steps = [p.seconds - p.trunk_seconds for p in plans]
    assert steps == pytest.approx([steps[0], 4 * steps[0], 7 / 3 * steps[0]])
    assert steps[0] > 0


def test_reports_and_terminal_tell_halvings_where_there_are_any(
    done: tuple[StudyResult, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    result, folder = done
    assert "<th>batch halvings</th>" in render(result)
    assert "<th>批量减半次数</th>" in render(result, "zh")
    plain = dataclasses.replace(result, trials=tuple(t for t in result.trials if not t.params.batch_halvings))
    assert "batch halvings" not in render(plain)
    print_result(Console(width=200), result)
    front = [t for t in result.complete if t.number in result.on_front]
    assert ("halvings" in capsys.readouterr().out) == any(t.params.batch_halvings for t in front)
    assert "batch_halvings" in (folder / "front.csv").read_text().splitlines()[0]


def test_runs_at_an_epsilon_are_one_a_number_of_halvings(spec: StudySpec, prepared: PreparedStudy) -> None:
    opened = dataclasses.replace(prepared, spec=with_halvings(spec, "any", (1, 3)))
    assert [run.steps for run in runs_at(opened, 4.0)] == [16, 32, 64]
