"""Resumed runs end in the parameters of an uninterrupted run, bit for bit."""

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pytest
import torch
from safetensors import safe_open

from moo.models.bank.bank import Depth, Frozen
from moo.models.bank.lightning_module import OptimizerSettings
from moo.models.dp.optimizer import DPSettings
from moo.models.pretrained.architectures import cut_of
from moo.models.pretrained.loading import BaseModel
from moo.models.train import Trained, TrainingData, TrainingSettings, train
from moo.models.training.checkpoints import CheckpointSettings, checkpoint_files, reach_of, remove_checkpoints
from tests.fixtures.limits import files_of_at_most
from tests.fixtures.trainings import K, data_at, stream

STEPS, EVERY = 9, 3


class Killed(BaseException):
    """Stands for a kill: nothing of ours catches it."""


class KillAt(lightning.Callback):
    """Ends the process's work right after a step, before anything is written for it."""

    def __init__(self, step: int, shadow: str = "") -> None:
        self.step, self.shadow = step, shadow

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:  # noqa: ARG002
        if pl_module.dp_optimizer.steps_taken == self.step:
            raise Killed


@pytest.fixture(scope="module", params=["bank", "bank deep", "opacus"])
def run(
    request: pytest.FixtureRequest, family: Callable[[str], BaseModel]
) -> tuple[TrainingData, Frozen, TrainingSettings]:
    depth = Depth(adapted_layers=2 if "deep" in request.param else 1)
    base = family("bert")
    data, frozen = data_at(base, cut_of(base.model, adapted_layers=depth.adapted_layers), per_unit=2)
    settings = TrainingSettings(
        depth=depth,
        lora_rank=2,
        lora_alpha=4.0,
        sample_rate=0.5,
        steps=STEPS,
        engine=request.param.split()[0],
        dp=DPSettings(noise_multiplier=0.7, max_grad_norm=0.2, expected_batch_size=4.5),
        accelerator="cpu",
        optimizer=OptimizerSettings(learning_rate=1e-3, head_learning_rate=0.05, chunk=6),
    )
    return data, frozen, settings


@pytest.fixture(scope="module")
def whole(run: tuple[TrainingData, Frozen, TrainingSettings]) -> Trained:
    """Return the uninterrupted run, trained once."""
    data, frozen, settings = run
    return train(data, settings, frozen, stream)


def parameters(trained: Trained, settings: TrainingSettings) -> list[torch.Tensor]:
    if settings.engine == "opacus":
        return [p for state in trained.bank.states for p in state.values()]
    return list(trained.bank.trainable().values())


def same(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return len(one) == len(other) and all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def keeping(
    settings: TrainingSettings, folder: Path, *, every: int = EVERY, attempt: str = "", **trainer: Any
) -> TrainingSettings:
    checkpoint = CheckpointSettings(path=folder / "trial-0001", every=every, attempt=attempt)
    return dataclasses.replace(settings, checkpoint=checkpoint, trainer=trainer)


@pytest.mark.parametrize("killed_at", [1, 3, 5, 8])
def test_a_killed_run_goes_on_to_the_same_parameters_bit_for_bit(
    run: tuple[TrainingData, Frozen, TrainingSettings], whole: Trained, tmp_path: Path, killed_at: int
) -> None:
    data, frozen, settings = run
    with pytest.raises(Killed):
        train(data, keeping(settings, tmp_path, callbacks=[KillAt(killed_at)]), frozen, stream)
    last = killed_at // EVERY * EVERY
    reach = reach_of(tmp_path / "trial-0001")
    if last == 0:
        assert reach is None
    else:
        assert reach is not None
        assert reach.at_most >= killed_at
        if settings.engine == "opacus":  # of shadows one after another, the next may have begun
            assert (reach.step, reach.at_most) == (0, STEPS)
        else:
            assert (reach.step, reach.at_most) == (last, min(last + EVERY, STEPS))
    resumed = train(data, keeping(settings, tmp_path), frozen, stream)
    assert same(parameters(resumed, settings), parameters(whole, settings))
    assert (resumed.steps, resumed.noisy_steps, resumed.non_finite) == (
        whole.steps,
        whole.noisy_steps,
        whole.non_finite,
    )
    assert resumed.resumed_at == (0 if settings.engine == "opacus" else last)
    again = train(data, keeping(settings, tmp_path), frozen, stream)  # nothing is left to train
    assert same(parameters(again, settings), parameters(whole, settings))
    assert (again.steps, again.noisy_steps, again.resumed_at) == (STEPS, STEPS, STEPS)
    remove_checkpoints(tmp_path / "trial-0001")
    assert list(tmp_path.iterdir()) == []


def test_checkpoints_change_nothing_are_private_and_leave_the_base_out(
    run: tuple[TrainingData, Frozen, TrainingSettings], whole: Trained, tmp_path: Path
) -> None:
    data, frozen, settings = run
    kept = train(data, keeping(settings, tmp_path / "c"), frozen, stream)
    assert same(parameters(kept, settings), parameters(whole, settings))
    files = checkpoint_files(tmp_path / "c" / "trial-0001")
    assert len(files) == (K if settings.engine == "opacus" else 1)
    trained = sum(p.numel() for p in parameters(kept, settings))
    held = 0
    for file in files:
        assert file.stat().st_mode & 0o777 == 0o600
        with safe_open(file, framework="pt") as opened:
            names = list(opened.keys())
            held += sum(opened.get_tensor(n).numel() for n in names if n.startswith("parameter."))
            assert any("momentum_buffer" in n for n in names)
            assert any("exp_avg_sq" in n for n in names)
            told = opened.metadata()["moo.checkpoint"]
        for word in ("noise_multiplier", "sample_rate", "steps", "sampling", "noise"):
            assert f'"{word}"' in told
    assert held == trained
    assert (tmp_path / "c").stat().st_mode & 0o777 == 0o700


def test_a_checkpoint_of_another_run_or_a_damaged_one_is_not_taken_up(
    run: tuple[TrainingData, Frozen, TrainingSettings], whole: Trained, tmp_path: Path
) -> None:
    data, frozen, settings = run
    expected = parameters(whole, settings)

    def kill() -> list[Path]:
        with pytest.raises(Killed):
            train(data, keeping(settings, tmp_path, callbacks=[KillAt(5)]), frozen, stream)
        return checkpoint_files(tmp_path / "trial-0001")

    kill()
    other = train(
        data, keeping(settings, tmp_path), frozen, lambda purpose, k: np.random.default_rng([9, len(purpose), k])
    )
    assert other.resumed_at == 0
    assert not same(parameters(other, settings), expected)
    remove_checkpoints(tmp_path / "trial-0001")
    for file in kill():
        file.write_bytes(file.read_bytes()[:40])
    assert reach_of(tmp_path / "trial-0001") is None
    assert same(parameters(train(data, keeping(settings, tmp_path), frozen, stream), settings), expected)


def test_where_a_checkpoint_cannot_be_written_the_older_one_goes_and_that_is_said(
    run: tuple[TrainingData, Frozen, TrainingSettings], whole: Trained, tmp_path: Path
) -> None:
    """Else it would say that fewer steps ran than did."""
    data, frozen, settings = run
    with pytest.raises(Killed):
        train(data, keeping(settings, tmp_path, callbacks=[KillAt(4)]), frozen, stream)
    assert reach_of(tmp_path / "trial-0001") is not None
    with files_of_at_most(1000):
        trained = train(data, keeping(settings, tmp_path), frozen, stream)
    assert "could not be written" in trained.notices[0]
    assert list(tmp_path.iterdir()) == []
    assert same(parameters(trained, settings), parameters(whole, settings))


def test_a_run_that_was_killed_twice_is_charged_for_what_each_attempt_ran(
    run: tuple[TrainingData, Frozen, TrainingSettings], tmp_path: Path
) -> None:
    data, frozen, settings = run
    if settings.engine == "opacus":
        pytest.skip("shadows one after another are charged in full")
    told = []
    for step in (4, 7):
        with pytest.raises(Killed):
            train(data, keeping(settings, tmp_path, callbacks=[KillAt(step)]), frozen, stream)
        reach = reach_of(tmp_path / "trial-0001")
        assert reach is not None
        told.append((reach.step, reach.at_most))
    assert told == [(3, 6), (6, 6)]  # the first ran 4 of at most 6; the second went from 3 to 7 of at most 9
    assert train(data, keeping(settings, tmp_path), frozen, stream).resumed_at == 6
    assert os.listdir(tmp_path) == ["trial-0001.safetensors"]


@pytest.mark.parametrize("every", [1, 2, 100])
def test_an_attempt_is_charged_by_its_own_interval_and_by_no_other_attempts_file(
    run: tuple[TrainingData, Frozen, TrainingSettings], whole: Trained, tmp_path: Path, every: int
) -> None:
    """The first attempt writes every 3 steps and is killed at 4.

    The second resumes at 3 with another interval and is killed at 8.
    """
    data, frozen, settings = run
    path = tmp_path / "trial-0001"
    with pytest.raises(Killed):
        train(data, keeping(settings, tmp_path, attempt="a", callbacks=[KillAt(4)]), frozen, stream)
    first = reach_of(path, "a")
    assert first is not None
    assert reach_of(path, "b") is None  # the second has not begun
    with pytest.raises(Killed):
        train(data, keeping(settings, tmp_path, every=every, attempt="b", callbacks=[KillAt(8)]), frozen, stream)
    assert reach_of(path, "a") is None
    second = reach_of(path, "b")
    assert second is not None
    in_full = settings.engine == "opacus"
    assert first.at_most == (STEPS if in_full else 6)
    assert second.at_most == (STEPS if in_full else 6) >= 8 - 3
    resumed = train(data, keeping(settings, tmp_path, attempt="c"), frozen, stream)
    assert same(parameters(resumed, settings), parameters(whole, settings))


class KillIn(lightning.Callback):
    """Ends the work of a fit, of several one after another, at a step."""

    def __init__(self, fit: int, step: int) -> None:
        self.fit, self.step, self.at = fit, step, -1

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002
        self.at += 1

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:  # noqa: ARG002
        if (self.at, pl_module.dp_optimizer.steps_taken) == (self.fit, self.step):
            raise Killed


def test_of_shadows_one_after_another_the_next_one_counts_before_it_has_a_file(
    run: tuple[TrainingData, Frozen, TrainingSettings], tmp_path: Path
) -> None:
    """The second attempt finishes shadow 0 from step 6 on, 3 steps, and then takes 5 of shadow 1."""
    data, frozen, settings = run
    if settings.engine != "opacus":
        pytest.skip("a bank trains its shadows at once")
    with pytest.raises(Killed):
        train(data, keeping(settings, tmp_path, attempt="a", callbacks=[KillIn(0, 8)]), frozen, stream)
    with pytest.raises(Killed):
        train(data, keeping(settings, tmp_path, every=100, attempt="b", callbacks=[KillIn(1, 5)]), frozen, stream)
    assert len(checkpoint_files(tmp_path / "trial-0001")) == 1
    reach = reach_of(tmp_path / "trial-0001", "b")
    assert reach is not None
    assert reach.at_most >= 5
