"""Studies on the reference path: every adaptation from the specification, and models retrained for release."""

import dataclasses
import json
from pathlib import Path

import pytest

from moo.models.export.peft import load_exported
from moo.studies.search.run_study import run_study
from moo.studies.spec.study import StudySpec
from moo.studies.workflows.retrain import retrain
from tests.fixtures.letters import TINY, letters_spec


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> StudySpec:
    return letters_spec(tmp_path_factory.mktemp("table"), tiny_folder)


def test_a_lora_of_the_reference_path_is_retrained_for_release_in_pefts_format(spec: StudySpec, tmp_path: Path) -> None:
    deep = dataclasses.replace(
        spec,
        name="released",
        space=dataclasses.replace(spec.space, adapted_layers=(1, 1)),
        training=dataclasses.replace(TINY, steps=3, engine="opacus"),
    )
    run_study(deep, n_trials=1, policy="proxy_then_retrain(1)", folder=tmp_path / "run").save(tmp_path / "run")
    (out,) = retrain(tmp_path / "run", [0], to=tmp_path / "out")
    card = json.loads((out / "card.json").read_text())
    assert card["claim"] == "holds"
    assert (out / "model.safetensors").is_file()
    model = load_exported(out / "peft")
    assert model.model.active_peft_config.peft_type == "LORA"


@pytest.mark.slow
@pytest.mark.parametrize("adaptation", ["prefix", "bottleneck", "full"])
def test_every_adaptation_is_reached_from_a_study(spec: StudySpec, tmp_path: Path, adaptation: str) -> None:
    other = dataclasses.replace(
        spec,
        name=adaptation,
        space=dataclasses.replace(spec.space, adapted_layers=(1, 1)),  # at 0 each is the head alone
        training=dataclasses.replace(TINY, steps=3, adaptation=adaptation),
    )
    result = run_study(other, n_trials=1, folder=tmp_path)
    assert result.about["engine"] == "opacus"
    assert [t.state for t in result.trials] == ["complete"]
    assert result.trials[0].claim == "holds"
