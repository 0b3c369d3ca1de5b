"""How a study runs on a machine: settings that change no number, what is refused before anything is spent, what is said."""

import dataclasses
import inspect
from pathlib import Path
from typing import Any

import lightning
import pytest
from letters import letters_spec
from lightning.pytorch import callbacks as lightning_callbacks

from moo.errors import InputError
from moo.models.arguments import ALLOWED, REFUSED, REFUSED_CALLBACKS, check_trainer
from moo.records import TrialParams
from moo.studies.base import StudySpec, TrainingSpec
from moo.studies.machine import Machine
from moo.studies.result import StudyResult
from moo.studies.runner import run_study


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> StudySpec:
    return letters_spec(tmp_path_factory.mktemp("table"), tiny_folder, n=240)


def numbers_of(result: StudyResult) -> list[Any]:
    rows = [t.to_json() for t in (result.reference, *result.trials) if t is not None]
    return [{k: v for k, v in row.items() if k not in ("seconds", "notices")} for row in rows]


def beside(folder: Path, other: Path) -> Path:
    """A folder with the other study's key, so that both draw the same."""
    folder.mkdir()
    (folder / "study.key").write_bytes((other / "study.key").read_bytes())
    (folder / "study.key").chmod(0o600)
    return folder


def on(spec: StudySpec, **changes: Any) -> StudySpec:
    return dataclasses.replace(spec, machine=dataclasses.replace(spec.machine, **changes))


def test_every_argument_of_the_trainer_is_either_allowed_or_refused() -> None:
    known = set(inspect.signature(lightning.Trainer).parameters)
    assert set(ALLOWED) | set(REFUSED) == known
    assert not set(ALLOWED) & set(REFUSED)
    assert all(hasattr(lightning_callbacks, name) for name in REFUSED_CALLBACKS)


@pytest.mark.parametrize("name", [*REFUSED, "max_stepz"])
def test_a_trainer_argument_that_breaks_dp_is_refused_with_its_reason(name: str) -> None:
    with pytest.raises(InputError, match=name) as caught:
        StudySpec.from_mapping({"machine": {"trainer": {name: 1}}})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("callback", [
    lightning_callbacks.GradientAccumulationScheduler({0: 2}),
    lightning_callbacks.LearningRateFinder(),
    lightning_callbacks.StochasticWeightAveraging(1e-2),
    lightning_callbacks.ModelCheckpoint(),
])  # fmt: skip
def test_a_callback_that_breaks_dp_is_refused(callback: Any) -> None:
    for given in (callback, [lightning_callbacks.DeviceStatsMonitor(), callback]):
        with pytest.raises(InputError, match=type(callback).__name__):
            check_trainer({"callbacks": given})
    check_trainer({"callbacks": [lightning_callbacks.DeviceStatsMonitor()]})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"accelerator": "tpu"}, "accelerator in"),
        ({"chunk": 0}, "chunk"),
        ({"cache_gib": -1.0}, "cache_gib"),
        ({"trainer": 3}, "machine.trainer must be a table"),
        ({"speed": 1}, "speed"),
    ],
)
def test_an_unfit_machine_is_refused_by_name(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        StudySpec.from_mapping({"machine": values})


def test_the_machine_is_no_part_of_what_the_study_is(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(
        'name = "mine"\n[machine]\nchunk = 7\ncache_gib = 2\n[machine.trainer]\ndeterministic = true\n'
    )
    mine = StudySpec.from_toml(tmp_path / "mine.toml")
    assert mine.machine == Machine(chunk=7, cache_gib=2.0, trainer={"deterministic": True})
    assert mine.to_json() == dataclasses.replace(mine, machine=Machine()).to_json()


def test_a_study_on_another_machine_goes_on_to_the_same_numbers_beyond_rounding(
    spec: StudySpec, tmp_path: Path
) -> None:
    run_study(on(spec, chunk=5, cache_gib=0.0), n_trials=1, folder=tmp_path / "a")
    mixed = run_study(spec, n_trials=2, folder=tmp_path / "a")
    whole = run_study(spec, n_trials=2, folder=beside(tmp_path / "b", tmp_path / "a"))
    for one, other in zip(mixed.trials, whole.trials, strict=True):
        assert one.params == other.params
        for name, measured in one.objectives.items():
            assert measured.value == pytest.approx(other.objectives[name].value, abs=0.01)


def test_what_a_trial_ran_into_is_told_with_it(spec: StudySpec, tmp_path: Path) -> None:
    short = dataclasses.replace(
        on(spec, cache_gib=1e-5), name="short", training=TrainingSpec(steps=4, max_length=12, target_delta=1e-4)
    )
    result = run_study(short, n_trials=1, folder=tmp_path)
    told = result.notices
    assert any("texts were longer than 12 tokens" in notice for notice in told)
    assert any("trunk cache is full" in notice for notice in told)
    assert all(trials.startswith("status quo") for trials in told.values())
    assert TrialParams.from_json(result.trials[0].params.to_json()) == result.trials[0].params
