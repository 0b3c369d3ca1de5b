"""Samplers of a search: each is what its name says, sees constraints once, and goes on where it was cut off."""

from typing import Any

import numpy as np
import optuna
import pytest
from optuna.samplers._gp.sampler import _get_constraint_vals_and_feasibility
from optuna.storages import InMemoryStorage

from moo.core.errors import InputError
from moo.core.measurement import Measurement
from moo.search import Candidate, Goal, Outcome, Progress, Real, Space, search

SPACE = Space({"x": Real(0.0, 1.0), "y": Real(0.0, 1.0)})
GOALS = (
    Goal(name="near", direction="minimize", reference=2.0),
    Goal(name="far", direction="minimize", reference=2.0),
)


def evaluate(candidate: Candidate) -> Outcome:
    """A ridge of which a quarter is feasible."""
    x, y = candidate.params["x"], candidate.params["y"]
    values = {"near": Measurement(value=x + abs(y - 0.5)), "far": Measurement(value=1 - x + abs(y - 0.5))}
    return Outcome(values=values, constraints={"limit": abs(y - 0.3) - 0.125})


def run(**changes: Any) -> Any:
    given = {"evaluate": evaluate, "space": SPACE, "goals": GOALS, "n_trials": 40, "population": 10}
    return search(**(given | changes))


def settings(result: Any) -> list[dict[str, Any]]:
    return [dict(t.candidate.params) for t in result.trials]


def told(result: Any) -> list[Any]:
    return [(t.candidate, t.outcome) for t in result.trials]


@pytest.mark.parametrize("sampler", ["nsga2", "nsga3", "tpe", pytest.param("gp", marks=pytest.mark.slow)])
def test_a_named_sampler_differs_from_random_and_keeps_to_the_constraints(sampler: str) -> None:
    shares = []
    for seed in (0, 1):
        drawn, random = run(sampler=sampler, seed=seed), run(sampler="random", seed=seed)
        later = [a != b for a, b in zip(settings(drawn)[10:], settings(random)[10:], strict=True)]
        assert np.mean(later) > 0.5
        shares.append([np.mean([t.outcome.feasible for t in r.trials[20:]]) for r in (drawn, random)])
    named, chance = np.mean(shares, axis=0)
    assert chance < 0.4
    assert named > 1.5 * chance


def test_a_gaussian_process_draws_from_what_it_was_told() -> None:
    drawn, random = (settings(run(sampler=s, n_trials=11)) for s in ("gp", "random"))
    assert drawn[:10] == random[:10]
    assert drawn[10] != random[10]


def test_constraints_are_told_once() -> None:
    storage = InMemoryStorage()
    run(storage=storage, n_trials=10)
    study = optuna.load_study(study_name="search", storage=storage)
    assert study.user_attrs["moo:constraints"] == ["limit", "failed"]
    assert {len(t.constraints) for t in study.trials} == {2}
    fitted, _ = _get_constraint_vals_and_feasibility(study, study.trials)
    assert fitted.shape == (10, 2)


@pytest.mark.parametrize("sampler", ["nsga2", "nsga3", "tpe", "random"])
@pytest.mark.parametrize("first", [3, 14, 27])
def test_a_longer_search_goes_on_where_a_shorter_one_ended(sampler: str, first: int) -> None:
    storage = InMemoryStorage()
    run(sampler=sampler, n_trials=first, storage=storage)
    assert told(run(sampler=sampler, storage=storage)) == told(run(sampler=sampler))


class Stops(InMemoryStorage):
    """A storage of a process that is interrupted while it writes."""

    left = 10_000

    def set_trial_param(self, *args: Any, **named: Any) -> None:
        if not self.left:
            raise KeyboardInterrupt
        self.left -= 1
        super().set_trial_param(*args, **named)


@pytest.mark.parametrize("sampler", ["nsga2", "nsga3", "tpe", "random"])
@pytest.mark.parametrize("writes", [0, 5, 31, 44, 45])
def test_a_search_that_was_cut_off_between_two_settings_goes_on_with_the_same(sampler: str, writes: int) -> None:
    storage = Stops()
    storage.left = writes
    with pytest.raises(KeyboardInterrupt):
        run(sampler=sampler, n_trials=30, storage=storage)
    storage.left = 10_000
    assert told(run(sampler=sampler, n_trials=30, storage=storage)) == told(run(sampler=sampler, n_trials=30))


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize(
    "made",
    [
        lambda: optuna.samplers.TPESampler(seed=3),
        lambda: optuna.samplers.NSGAIISampler(population_size=10, seed=3),
        lambda: optuna.samplers.QMCSampler(seed=3),
        lambda: optuna.samplers.GridSampler({"x": [0.1, 0.5, 0.9], "y": [0.2, 0.3]}, seed=3),
    ],
)
def test_a_sampler_object_is_used_as_it_is(made: Any) -> None:
    first = run(sampler=made(), n_trials=20)
    assert told(first) == told(run(sampler=made(), n_trials=20))
    assert settings(first) != settings(run(sampler="random", n_trials=20))


def test_a_grid_is_drawn_from_the_grid() -> None:
    drawn = settings(run(sampler=optuna.samplers.GridSampler({"x": [0.1, 0.5, 0.9], "y": [0.2, 0.3]}), n_trials=6))
    assert {(d["x"], d["y"]) for d in drawn} == {(x, y) for x in (0.1, 0.5, 0.9) for y in (0.2, 0.3)}


def test_a_sampler_that_cannot_do_the_task_is_refused_in_one_line() -> None:
    with pytest.raises(InputError, match="must fit 2 goals"):
        run(sampler=OneGoal())
    for unfit in ("best", 3, optuna.samplers.TPESampler):
        with pytest.raises(InputError, match="sampler"):
            run(sampler=unfit)


class OneGoal(optuna.samplers.RandomSampler):
    """A sampler for one goal, as Optuna's own CMA-ES is."""

    def sample_independent(self, study: Any, *rest: Any, **named: Any) -> Any:
        self._raise_error_if_multi_objective(study)
        return super().sample_independent(study, *rest, **named)


@pytest.mark.parametrize("stop_at", [3, 9, 15])
def test_a_sampler_object_never_goes_on_from_a_state_that_is_lost(stop_at: int) -> None:
    def interrupt(progress: Progress) -> None:
        if progress.newest.candidate.number == stop_at:
            raise KeyboardInterrupt

    def sampler() -> optuna.samplers.BaseSampler:
        return optuna.samplers.TPESampler(seed=3)

    storage = InMemoryStorage()
    with pytest.raises(KeyboardInterrupt):
        run(sampler=sampler(), n_trials=20, storage=storage, callbacks=[interrupt])
    evaluated: list[int] = []
    with pytest.raises(InputError, match="TPESampler object, whose state is lost") as caught:
        run(sampler=sampler(), n_trials=30, storage=storage, before=lambda c: evaluated.extend(c) or {})
    assert "\n" not in str(caught.value)
    assert not evaluated
    if stop_at > 10:  # all of 20 were drawn before: nothing is left to draw
        assert told(run(sampler=sampler(), n_trials=20, storage=storage)) == told(run(sampler=sampler(), n_trials=20))


def test_a_trial_costs_no_look_at_each_trial_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    looked = 0
    infer = optuna.search_space.IntersectionSearchSpace.calculate

    def counted(self: Any, study: Any, *rest: Any) -> Any:
        nonlocal looked
        looked += 1
        return infer(self, study, *rest)

    monkeypatch.setattr(optuna.search_space.IntersectionSearchSpace, "calculate", counted)
    run(n_trials=40)
    assert looked == 0
