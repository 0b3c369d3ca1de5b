"""Properties of a trusted engine, through Lightning's own fit, on both engines."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, cast

import lightning
import numpy as np
import pytest
import torch

import moo.models.train as training
from moo.core.errors import InputError, TrialError
from moo.models.bank.bank import Bank, Frozen
from moo.models.bank.feature_scaling import constants
from moo.models.bank.lightning_module import OptimizerSettings, log_probs
from moo.models.dp.optimizer import BankOptimizer, DPSettings
from moo.models.pretrained.architectures import cut_of
from moo.models.pretrained.loading import BaseModel
from moo.models.reference.optimizer import ReferenceOptimizer
from moo.models.train import Trained, TrainingData, TrainingSettings, train
from moo.models.training.canaries import BatchRecorder
from moo.models.trunk.encode import encode, token_ids
from moo.models.trunk.packed import Packed
from tests.fixtures.settings import BATCH, CLIP, N, Sums, noisy, settings_of

ENGINES = ("bank", "opacus")
DEPTHS = (0, 1, 2)
Made = Callable[[int], tuple[TrainingData, Frozen]]


@pytest.fixture(scope="module")
def made(family: Callable[[str], BaseModel]) -> Made:
    """Forty letters' records of as many units, and the frozen model, at a depth."""
    kept: dict[int, tuple[TrainingData, Frozen]] = {}

    def at(depth: int) -> tuple[TrainingData, Frozen]:
        if depth not in kept:
            base = family("bert")
            cut = cut_of(base.model, adapted_layers=depth)
            scaling = constants(base, max_length=24, cut=cut)
            rng = np.random.default_rng(0)
            labels = rng.integers(0, 2, N)
            texts = ["".join(rng.choice(list("abcxyz" if y else "mno123"), int(rng.integers(4, 12)))) for y in labels]
            out = encode(base, texts, max_length=24, cut=cut)
            packed = Packed(
                features=torch.from_numpy(scaling.features(out.mean)),
                tokens=torch.from_numpy(np.concatenate(out.tokens)),
                offsets=torch.from_numpy(np.cumsum([0, *map(len, out.tokens)])),
                ids=token_ids(base, texts, max_length=24)[0],
            )
            data = TrainingData(
                packed=packed, labels=labels, units=np.arange(N), members=np.ones((1, N), bool), n_classes=2
            )
            kept[depth] = data, Frozen(base=base, cut=cut, constants=scaling)
        return kept[depth]

    return at


def stream(purpose: str, shadow: int) -> np.random.Generator:
    return np.random.default_rng([len(purpose), shadow])


def trained_sums(data: TrainingData, settings: TrainingSettings, frozen: Frozen) -> tuple[Trained, list[torch.Tensor]]:
    sums = Sums()
    settings = dataclasses.replace(settings, trainer={"callbacks": [sums]})
    return train(data, settings, frozen, stream), sums.steps


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("depth", DEPTHS)
def test_removing_any_unit_moves_the_sum_by_at_most_the_clip_and_the_divisor_not_at_all(
    made: Made, engine: str, depth: int
) -> None:
    """All units in the batch and frozen noise: what is left of the difference is one clipped gradient."""
    data, frozen = made(depth)
    settings = settings_of(engine, depth, dp=noisy(1.0))
    whole, sums = trained_sums(data, settings, frozen)
    moved = []
    for unit in (0, 7, 39):
        without = dataclasses.replace(data, members=(data.units != unit)[None])
        other, less = trained_sums(without, settings, frozen)
        assert other.expected_batch_size == whole.expected_batch_size == BATCH
        moved.append(float((sums[0] - less[0]).norm()))
    assert max(moved) <= CLIP * (1 + 1e-3)
    assert min(moved) > 0.5 * CLIP  # gradients of these texts are above the clip or near it


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("depth", DEPTHS)
def test_one_units_gradient_is_clipped_and_a_non_finite_one_contributes_zero(
    made: Made, engine: str, depth: int
) -> None:
    data, frozen = made(depth)
    alone = dataclasses.replace(data, members=(data.units == 3)[None])
    _, sums = trained_sums(alone, settings_of(engine, depth, dp=noisy(1e-3, clip=0.01)), frozen)
    assert float(sums[0].norm()) == pytest.approx(0.01, rel=1e-2)
    features = data.packed.features.clone()
    features[3] = math.inf
    poisoned = dataclasses.replace(alone, packed=dataclasses.replace(data.packed, features=features))
    trained, sums = trained_sums(poisoned, settings_of(engine, depth, dp=noisy(1e-3)), frozen)
    clean, noise = trained_sums(
        dataclasses.replace(data, members=np.zeros((1, N), bool)), settings_of(engine, depth, dp=noisy(1e-3)), frozen
    )
    assert (trained.non_finite, clean.non_finite) == (1, 0)
    torch.testing.assert_close(sums[0], noise[0])  # as if the unit were not there


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("depth", DEPTHS)
def test_with_zero_gradients_the_sums_are_noise_of_the_accountants_standard_deviation(
    made: Made, engine: str, depth: int
) -> None:
    """Nobody in the batches, every adapted parameter: the squared sum is steps x parameters x (sigma C)^2."""
    data, frozen = made(depth)
    nobody = dataclasses.replace(data, members=np.zeros((1, N), bool))
    steps = 40 if depth == 0 else 12
    trained, sums = trained_sums(nobody, settings_of(engine, depth, dp=noisy(3.0), steps=steps), frozen)
    found = sum(float(s.square().sum()) for s in sums)
    assert found == pytest.approx(steps * len(sums[0]) * (3.0 * CLIP) ** 2, rel=0.15)
    assert trained.steps == trained.noisy_steps == len(sums) == steps
    assert abs(float(torch.corrcoef(torch.stack(sums[:2]))[0, 1])) < 4 / math.sqrt(len(sums[0]))  # fresh at each step


@pytest.mark.parametrize("engine", ENGINES)
def test_a_noise_multiplier_of_a_thousand_ruins_accuracy(made: Made, engine: str) -> None:
    data, frozen = made(0)
    hits = []
    for noise in (0.0, 1000.0):
        settings = settings_of(
            engine, 0, dp=noisy(noise), steps=30, optimizer=OptimizerSettings(head_learning_rate=0.5)
        )
        told = log_probs(train(data, settings, frozen, stream).bank, data.packed)[0]
        hits.append(float((told.argmax(-1).numpy() == data.labels).mean()))
    assert hits[0] > 0.9
    assert hits[1] < hits[0] - 0.15


@pytest.mark.parametrize("engine", ENGINES)
def test_units_reach_the_training_step_at_the_sampling_rate_in_batches_of_varying_size(made: Made, engine: str) -> None:
    data, frozen = made(0)
    half = dataclasses.replace(data, members=(np.arange(N) < 30)[None])
    watch = BatchRecorder(half.units)
    trained = train(half, settings_of(engine, 0, watch, sample_rate=0.3, steps=300), frozen, stream)
    counts = np.bincount(np.concatenate(watch.batches), minlength=N)
    assert not counts[30:].any()
    assert abs(counts[:30].mean() / 300 - 0.3) < 5 * math.sqrt(0.21 / 9000)
    assert np.abs(counts[:30] / 300 - 0.3).max() < 5 * math.sqrt(0.21 / 300)
    sizes = np.array([len(b) for b in watch.batches])
    assert sizes.var() == pytest.approx(30 * 0.21, rel=0.4)
    assert trained.steps == len(watch.batches) == 300  # what the accountant is told
    assert trained.expected_batch_size == BATCH  # whoever came


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("depth", DEPTHS)
def test_empty_batches_the_first_one_too_take_noisy_steps(made: Made, engine: str, depth: int) -> None:
    data, frozen = made(depth)
    watch = BatchRecorder(data.units)
    trained = train(data, settings_of(engine, depth, watch, sample_rate=0.015, steps=8, dp=noisy(1.0)), frozen, stream)
    sizes = [len(b) for b in watch.batches]
    assert sizes[0] == 0
    assert max(sizes) > 0
    assert trained.steps == trained.noisy_steps == 8


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("depth", DEPTHS)
def test_chunks_of_a_batch_leave_the_noisy_parameters_unchanged_beyond_rounding(
    made: Made, engine: str, depth: int
) -> None:
    data, frozen = made(depth)
    told = []
    for chunk in (3, 1000):
        optimizer = OptimizerSettings(learning_rate=1e-3, head_learning_rate=0.05, chunk=chunk)
        settings = settings_of(engine, depth, dp=noisy(0.5), steps=4, sample_rate=0.5, optimizer=optimizer)
        told.append(log_probs(train(data, settings, frozen, stream).bank, data.packed))
    torch.testing.assert_close(told[0], told[1], atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize("engine", ENGINES)
def test_after_one_step_every_adapter_has_moved_and_the_base_is_bit_identical(made: Made, engine: str) -> None:
    """A of LoRA has no gradient while B is zero; under DP its noise moves it."""
    data, frozen = made(2)
    before = {n: p.clone() for n, p in frozen.base.model.state_dict().items()}
    first, _ = trained_sums(data, settings_of(engine, 2, dp=noisy(1.0), steps=1), frozen)
    again, _ = trained_sums(data, settings_of(engine, 2, dp=noisy(1.0), steps=2), frozen)
    assert all(torch.equal(p, before[n]) for n, p in frozen.base.model.state_dict().items())
    own = [t.bank.shadow_parameters(0) if engine == "bank" else t.bank.states[0] for t in (first, again)]
    assert len(own[0]) == 2 + 2 * 2 * 2  # head and bias; A and B of query and value in two layers
    assert all(not torch.equal(p, own[1][n]) for n, p in own[0].items())


@pytest.mark.parametrize("engine", ENGINES)
def test_settings_that_would_undo_the_accounting_are_refused(made: Made, engine: str) -> None:
    data, frozen = made(0)
    for refused in ({"gradient_clip_val": 1.0}, {"accumulate_grad_batches": 2}, {"limit_train_batches": 1}):
        with pytest.raises(InputError, match="DP accounting"):
            train(data, settings_of(engine, 0, trainer=refused), frozen, stream)


def users(data: TrainingData) -> TrainingData:
    """Return the same records as those of users with one, two and three each.

    Record 0 is one of a user's three.
    """
    sizes = np.resize([3, 1, 2], N // 2)
    units = np.repeat(np.arange(N // 2), sizes)
    return dataclasses.replace(data, units=units[:N])


AT_ONCE = OptimizerSettings(
    learning_rate=1e-3, head_learning_rate=0.05, chunk=2000
)  # so that users are padded together


@pytest.fixture
def stirred(monkeypatch: pytest.MonkeyPatch) -> None:
    """Banks that start away from zero: of a head of zeros no adapter gets a gradient."""
    make = training._bank

    def moved(*arguments: Any) -> Bank:
        bank, generator = make(*arguments), torch.Generator().manual_seed(3)
        for shadow in range(bank.n_shadows):
            for p in bank.shadow_parameters(shadow).values():
                p += 0.3 * torch.randn(p.shape, generator=generator)
        return bank

    monkeypatch.setattr(training, "_bank", moved)


@pytest.mark.usefixtures("stirred")
@pytest.mark.parametrize("depth", DEPTHS)
def test_removing_a_user_of_several_records_moves_the_sum_by_at_most_the_clip(made: Made, depth: int) -> None:
    data, frozen = made(depth)
    data, settings = users(data), settings_of("bank", depth, optimizer=AT_ONCE, dp=noisy(1e-3))
    _, sums = trained_sums(data, settings, frozen)
    for user in (0, 2, 5, 6):
        without = dataclasses.replace(data, members=(data.units != user)[None])
        _, less = trained_sums(without, settings, frozen)
        assert 0.5 * CLIP < float((sums[0] - less[0]).norm()) <= CLIP * (1 + 1e-4)


@pytest.mark.usefixtures("stirred")
@pytest.mark.parametrize(
    ("depth", "poison"), [(0, "features"), (1, "features"), (1, "tokens"), (2, "features"), (2, "tokens")]
)
def test_a_non_finite_record_costs_its_own_user_alone(made: Made, depth: int, poison: str) -> None:
    """Record 0 above all: whatever fills a padded place must not bring it into another user's gradient."""
    data, frozen = made(depth)
    data, settings = users(data), settings_of("bank", depth, optimizer=AT_ONCE, dp=noisy(1e-3))
    held = {"features": data.packed.features.clone(), "tokens": data.packed.tokens.clone()}
    held[poison][0] = math.nan if poison == "features" else math.inf
    poisoned = dataclasses.replace(data, packed=dataclasses.replace(data.packed, **held))
    others = (data.units != 0)[None]
    clean, expected = trained_sums(dataclasses.replace(data, members=others), settings, frozen)
    for members, lost in ((np.ones((1, N), bool), 1), (others, 0)):
        trained, sums = trained_sums(dataclasses.replace(poisoned, members=members), settings, frozen)
        assert (trained.non_finite, clean.non_finite) == (lost, 0)
        torch.testing.assert_close(sums[0], expected[0], atol=1e-5, rtol=1e-5)


RATES = OptimizerSettings(learning_rate=2e-3, head_learning_rate=0.05, head_momentum=0.0)
MULTIPLIERS = (3.0, 1.0, 2.0)


class Updates(lightning.Callback):
    """Squares of each step's update of each tensor, over the accounted ones.

    Nobody is in the batches and every rule is SGD.
    """

    def __init__(self) -> None:
        self._before: list[torch.Tensor] = []
        self.found: dict[tuple[int, int], list[float]] = {}  # by tensor and shadow
        self.sizes: dict[int, int] = {}

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:  # noqa: ARG002
        self._before = [p.detach().clone() for p in pl_module.dp_optimizer.params]

    def on_train_batch_end(
        self,
        trainer: Any,  # noqa: ARG002
        pl_module: Any,
        outputs: Any,  # noqa: ARG002
        batch: Any,  # noqa: ARG002
        batch_idx: int,  # noqa: ARG002
    ) -> None:
        one = getattr(pl_module, "_shadow", None)  # the reference path has one shadow a fit
        shadows = range(len(MULTIPLIERS)) if one is None else [one]
        for i, (p, before) in enumerate(zip(pl_module.dp_optimizer.params, self._before, strict=True)):
            rate = cast(float, RATES.learning_rate if i > 1 else RATES.head_learning_rate) / (1.0 if i > 1 else CLIP)
            moved = (p.detach() - before).reshape(len(shadows), -1)
            self.sizes[i] = moved.shape[1]
            for k, own in zip(shadows, moved, strict=True):
                accounted = moved.shape[1] * (MULTIPLIERS[k] * CLIP * rate / BATCH) ** 2
                self.found.setdefault((i, k), []).append(float(own.square().sum()) / accounted)

    def wrong(self) -> list[int]:
        """Return tensors with squared updates 15 % off the accounted ones in some shadow."""
        return sorted({i for (i, _), ratios in self.found.items() if abs(float(np.mean(ratios)) - 1) > 0.15})


def quiet_adapters(patch: pytest.MonkeyPatch, optimizer: type, factor: float) -> None:
    add = optimizer.add_noise  # type: ignore[attr-defined]

    def bug(self: Any) -> None:
        sums = [p.summed_grad.clone() for p in self.params]
        add(self)
        for p, before in list(zip(self.params, sums, strict=True))[2:]:  # behind head and bias
            p.grad.copy_(before + factor * (p.grad - before))

    patch.setattr(optimizer, "add_noise", bug)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("factor", [None, 0.0, 0.5])
def test_every_tensor_of_every_shadow_moves_by_the_noise_that_is_accounted(
    made: Made, monkeypatch: pytest.MonkeyPatch, engine: str, depth: int, factor: float | None
) -> None:
    """With a planted bug, that adapters get none or half: dirac canaries, which live in the head, cannot see it.

    So many classes that of every tensor, biases too, 15 % are five standard errors.
    """
    data, frozen = made(depth)
    nobody = dataclasses.replace(data, members=np.zeros((3, N), bool), n_classes=64)
    monkeypatch.setattr(torch.optim, "Adam", torch.optim.SGD)
    if factor is not None:
        quiet_adapters(monkeypatch, {"bank": BankOptimizer, "opacus": ReferenceOptimizer}[engine], factor)
    watch = Updates()
    dp = DPSettings(noise_multiplier=MULTIPLIERS, max_grad_norm=CLIP, expected_batch_size=BATCH)
    settings = settings_of(engine, depth, watch, dp=dp, steps=40, optimizer=RATES)
    if factor == 0.0 and depth:
        with pytest.raises(TrialError, match="Every adapter must move"):
            train(nobody, settings, frozen, stream)
    else:
        train(nobody, settings, frozen, stream)
        assert len(watch.found) == 3 * len(watch.sizes)
    assert all(len(ratios) == 40 for ratios in watch.found.values())
    tensors = {0: 2, 1: 6, 2: 10}[depth]
    assert len(watch.sizes) == tensors
    assert min(watch.sizes.values()) * 40 > 2 * (5 / 0.15) ** 2
    assert watch.wrong() == ([] if factor is None else list(range(2, tensors)))
