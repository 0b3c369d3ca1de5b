"""Outcomes of a search: refused where one is no number, kept whole where it is."""

import json
import math
from typing import Any, cast

import numpy as np
import optuna
import pytest
from optuna.storages import InMemoryStorage

from moo.core.errors import InputError, TrialError
from moo.core.measurement import Measurement
from moo.core.trial_record import TrialParams, TrialRecord
from moo.search import Candidate, Goal, Outcome, Real, Space, search
from moo.search.study_config import OUTCOME

SPACE = Space({"x": Real(0.0, 1.0)})
GOALS = (
    Goal(name="speed", direction="maximize", reference=0.0),
    Goal(name="size", direction="minimize", reference=2.0),
)


def good(candidate: Candidate) -> Outcome:
    x = candidate.params["x"]
    return Outcome(
        values={"speed": Measurement(value=x), "size": Measurement(value=x * x)}, constraints={"heat": x - 0.9}
    )


def run(evaluate: Any, **changes: Any) -> Any:
    options: dict[str, Any] = {"n_trials": 8, "population": 4} | changes
    return search(evaluate, SPACE, GOALS, **options)


def at_third(**changes: Any) -> Any:
    """An evaluation whose third trial has another outcome."""

    def evaluate(candidate: Candidate) -> Any:
        found = good(candidate)
        if candidate.number != 3:
            return found
        parts = {"values": dict(found.values), "constraints": dict(found.constraints), "payload": {}, "cause": ""}
        for key, change in changes.items():
            parts[key] = (
                change
                if key in ("cause", "payload")
                else {k: v for k, v in (parts[key] | change).items() if v != "gone"}
            )
        return Outcome(**parts)

    return evaluate


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"constraints": {"heat": math.nan}}, "constraint 'heat' of trial 3 must be a finite number, got nan"),
        ({"constraints": {"heat": None}}, "constraint 'heat' of trial 3 must be a finite number, got None"),
        ({"constraints": {"heat": math.inf}}, "constraint 'heat' of trial 3 must be a finite number, got inf"),
        ({"constraints": {"heat": "gone"}}, "constraint 'heat' of trial 3 must be given"),
        ({"constraints": {"noise": 0.0}}, "got 'noise' besides"),
        ({"values": {"size": Measurement(value=math.nan)}}, "objective 'size' of trial 3 must be a number, got nan"),
        (
            {"values": {"size": Measurement(value=cast(float, None))}},
            "objective 'size' of trial 3 must be a number, got None",
        ),
        ({"values": {"size": None}}, "objective 'size' of trial 3 must be a Measurement, got None"),
        ({"values": {"size": 0.5}}, "objective 'size' of trial 3 must be a Measurement, got 0.5"),
        ({"values": {"size": "gone"}}, "objective 'size' of trial 3 must be given"),
        ({"payload": {"x": {1}}}, "payload of trial 3 must be JSON"),
        ({"cause": "hot", "constraints": {"heat": math.nan}}, "constraint 'heat' of trial 3"),
    ],
)
def test_what_is_no_number_is_refused_where_it_arises_and_never_kept(changes: dict[str, Any], message: str) -> None:
    storage = InMemoryStorage()
    with pytest.raises(InputError, match=message) as caught:
        run(at_third(**changes), storage=storage)
    assert "\n" not in str(caught.value)
    study = optuna.load_study(study_name="search", storage=storage)
    assert OUTCOME not in study.trials[3].user_attrs
    resumed = run(good, storage=storage)
    assert [(t.candidate, t.outcome) for t in resumed.trials] == [(t.candidate, t.outcome) for t in run(good).trials]


def test_no_outcome_at_all_is_refused() -> None:
    with pytest.raises(InputError, match="must return an Outcome, got None"):
        run(lambda _: None)


def test_a_required_constraint_is_asked_of_the_first_trial_too() -> None:
    with pytest.raises(InputError, match="constraint 'weight' of trial 0 must be given"):
        run(good, constraint_names=("weight",))


def test_numbers_of_other_libraries_are_kept_as_plain_ones() -> None:
    def evaluate(candidate: Candidate) -> Outcome:
        x, heat = cast(float, np.float32(candidate.params["x"])), cast(float, np.float32(-1))
        values = {"speed": Measurement(value=x), "size": Measurement(value=np.float64(x))}
        return Outcome(values=values, constraints={"heat": heat})

    assert len(run(evaluate).trials) == 8


def test_an_objective_that_was_not_assessed_says_so_and_is_kept() -> None:
    missing = Measurement(value=math.nan, note="not assessed: too few")
    kept = run(at_third(values={"size": missing})).trials[3].outcome.values["size"]
    assert math.isnan(kept.value)
    assert kept.note == missing.note


def test_objectives_of_a_failed_trial_are_kept_across_a_resume() -> None:
    storage = InMemoryStorage()
    half = at_third(cause="too hot", values={"size": "gone", "price": Measurement(value=3.0)})
    run(half, storage=storage)
    outcome = run(half, storage=storage).trials[3].outcome
    assert set(outcome.values) == {"speed", "price"}
    assert outcome.cause == "too hot"
    assert outcome.constraints == {**good(run(half).trials[3].candidate).constraints, "failed": 1.0}


def test_samplers_get_as_many_constraints_of_every_trial() -> None:
    def late(candidate: Candidate) -> Outcome:
        if candidate.number < 4:
            raise TrialError("no luck", cause="luck")
        return good(candidate)

    storage = InMemoryStorage()
    result = run(late, storage=storage, n_trials=40)
    study = optuna.load_study(study_name="search", storage=storage)
    assert {len(t.constraints) for t in study.trials} == {1}
    seen = [all(v <= 0 for v in t.constraints.values()) for t in study.trials]
    assert seen == [t.outcome.feasible for t in result.trials]
    assert len(set(seen[4:])) == 2


def test_a_record_keeps_every_objective_that_was_judged() -> None:
    params = TrialParams(target_epsilon=1.0, masking_level=0, lora_rank=1, learning_rate=1e-3, adapted_layers=0)
    record = TrialRecord(
        number=0,
        params=params,
        state="failed",
        objectives={"accuracy": Measurement(value=0.5), "latency": Measurement(value=2.0, stderr=0.1)},
        constraints={},
    )
    assert TrialRecord.from_json(json.loads(json.dumps(record.to_json()))) == record
