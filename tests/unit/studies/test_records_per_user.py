"""Rules about users read users: the user column, what a table declares, and the whole data set behind delta."""

import dataclasses
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from moo.core.errors import InputError
from moo.core.trial_record import TrialParams
from moo.objectives.compliance.loader import load_rules
from moo.privacy.claims import HOLDS, claim
from moo.privacy.keys import StudyKey
from moo.studies.setup.prepared import PreparedStudy, prepare_study
from moo.studies.spec.study import StudySpec
from moo.studies.trial.plan import plan_trial
from moo.studies.trial.run import run_trial
from tests.fixtures.letters import TINY, letters_spec
from tests.fixtures.runs import RUN

KEY = StudyKey(b"\x21" * 32)


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> StudySpec:
    """Twelve people with twenty records each, whom no column is named for."""
    spec = letters_spec(tmp_path_factory.mktemp("users"), tiny_folder, n=240)
    frame = pd.read_csv(spec.data)
    frame.assign(user=frame.index // 20).to_csv(spec.data, index=False)
    return dataclasses.replace(spec, user="")


def prepared(spec: StudySpec, folder: Path, **changes: Any) -> PreparedStudy:
    return prepare_study(dataclasses.replace(spec, **changes), KEY, folder)


@pytest.mark.parametrize(
    ("declared", "most", "says"),
    [
        ({}, None, (1.0, "not assessed")),
        ({"max_records_per_user": 20}, 20, (1.0, "fail")),
        ({"one_record_per_user": True}, 1, (0.0, "pass")),
        ({"user": "user"}, 1, (0.0, "pass")),
    ],
)
def test_the_epsilon_of_a_user_is_never_that_of_a_record(
    spec: StudySpec, tmp_path: Path, declared: dict[str, Any], most: int | None, says: tuple[float, str]
) -> None:
    study = prepared(spec, tmp_path, **declared)
    assert study.data.records_per_user == most
    params = TrialParams(target_epsilon=1.0, masking_level=1, lora_rank=2, learning_rate=1e-3, adapted_layers=0)
    evidence = run_trial(plan_trial(params, study), study, number=0)
    assert load_rules()["S04"].judge(evidence.facts) == says
    assert evidence.privacy.n_units == study.data.loaded.n_units == (12 if "user" in declared else 240)
    if most == 20:
        assert evidence.facts["privacy.epsilon_user"] == pytest.approx(20 * evidence.privacy.epsilon_spent)


@pytest.mark.parametrize("declared", [{"one_record_per_user": True}, {"max_records_per_user": 19}])
def test_a_declared_maximum_that_the_user_column_contradicts_is_refused(
    spec: StudySpec, tmp_path: Path, declared: dict[str, Any]
) -> None:
    with pytest.raises(InputError, match="has 20 records"):
        prepared(spec, tmp_path, user="user", **declared)
    assert prepared(spec, tmp_path, user="user", max_records_per_user=20).data.records_per_user == 1


def test_two_declarations_that_differ_are_refused() -> None:
    with pytest.raises(InputError, match="max_records_per_user must be 0 or 1"):
        StudySpec(one_record_per_user=True, max_records_per_user=3)
    with pytest.raises(InputError, match="max_records_per_user"):
        StudySpec(max_records_per_user=-1)


def test_delta_is_held_against_all_units_of_the_data(spec: StudySpec, tmp_path: Path) -> None:
    """Of 240 records a shadow trains on some 77: a delta of 1/100 fits those, and gives two of the 240 away."""
    for delta in (1 / 100, 1 / 240):
        with pytest.raises(InputError, match="target_delta"):
            prepared(spec, tmp_path, training=dataclasses.replace(TINY, target_delta=delta))
    assert claim(RUN) == claim(RUN, n_units=99_999) == HOLDS
    assert "not below 1/100000" in claim(RUN, n_units=100_000)
