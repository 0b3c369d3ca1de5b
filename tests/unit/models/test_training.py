"""Training through Lightning's own fit: added noise, moved parameters, refusals."""

import ctypes
import dataclasses
import functools
import gc
import math
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import moo.models.train as training
from moo.core.errors import InputError, TrialError
from moo.models.bank.bank import Bank, Depth, Frozen
from moo.models.bank.feature_scaling import constants
from moo.models.bank.lightning_module import OptimizerSettings, _equal_runs, log_probs
from moo.models.dp.optimizer import BankOptimizer, DPSettings, ShadowNoise
from moo.models.pretrained.architectures import cut_of
from moo.models.pretrained.loading import BaseModel
from moo.models.train import TrainingData, TrainingSettings, train
from moo.models.training.memory import release_free_memory
from moo.models.trunk.cache import TrunkCache
from moo.models.trunk.packed import Packed

N, K = 60, 4
DataAt = Callable[[Depth], tuple[TrainingData, Frozen]]
DEPTHS = [
    pytest.param(Depth(adapted_layers=1), id="one layer"),
    pytest.param(Depth(adapted_layers=1, layers_dropped=1, n_queries=2, targets="query_key_value"), id="queries"),
    pytest.param(Depth(adapted_layers=2), id="two layers"),
]


@pytest.fixture(scope="module")
def frozen(data_at: DataAt) -> Frozen:
    return data_at(Depth(adapted_layers=1))[1]


@pytest.fixture(scope="module")
def data_at(tiny: BaseModel, tmp_path_factory: pytest.TempPathFactory) -> DataAt:
    """Records of users with two each, and the frozen model, at a depth."""
    folder = tmp_path_factory.mktemp("cache") / "trunk"

    def at(depth: Depth) -> tuple[TrainingData, Frozen]:
        rng = np.random.default_rng(0)
        labels = rng.integers(0, 2, N)
        texts = ["".join(rng.choice(list("abcxyz" if y else "mno123"), int(rng.integers(4, 16)))) for y in labels]
        units = np.arange(N) // 2
        coin = rng.random((2, N // 2)) < 0.5
        members = np.stack([coin[0], ~coin[0], coin[1], ~coin[1]])[:, units]
        cut = cut_of(tiny.model, adapted_layers=depth.adapted_layers, layers_dropped=depth.layers_dropped)
        scaling = constants(tiny, max_length=24, cut=cut)
        packed = TrunkCache(folder, b"k" * 32, tiny, max_length=24, cut=cut).packed(texts, scaling)
        data = TrainingData(packed=packed, labels=labels, units=units, members=members, n_classes=2)
        return data, Frozen(base=tiny, cut=cut, constants=scaling)

    return functools.cache(at)


@pytest.fixture(scope="module")
def data(data_at: DataAt) -> TrainingData:
    return data_at(Depth(adapted_layers=1))[0]


def stream(purpose: str, shadow: int) -> np.random.Generator:
    return np.random.default_rng([len(purpose), shadow])


def settings_of(
    depth: int = 1, *, noise: float = 0.0, steps: int = 12, depth_of: Depth | None = None, **changes: Any
) -> TrainingSettings:
    dp = DPSettings(noise_multiplier=noise, max_grad_norm=0.5 if noise else math.inf, expected_batch_size=N / 4 * 0.5)
    base = TrainingSettings(
        depth=depth_of or Depth(adapted_layers=depth),
        lora_rank=2,
        lora_alpha=4.0,
        sample_rate=0.5,
        steps=steps,
        dp=dp,
        optimizer=OptimizerSettings(learning_rate=1e-2, head_learning_rate=5e-2),
        accelerator="cpu",
    )
    return dataclasses.replace(base, **changes)


@pytest.mark.parametrize("depth", [0, 1])
def test_training_learns_and_takes_every_step(data: TrainingData, frozen: Frozen, depth: int) -> None:
    trained = train(data, settings_of(depth, steps=40), frozen if depth else None, stream)
    assert trained.steps == 40
    out = log_probs(trained.bank, data.packed)
    right = (out.argmax(-1).numpy() == data.labels)[data.members]
    assert right.mean() > 0.8  # letters of the two classes differ
    assert out.exp().sum(-1).allclose(torch.ones(K, N), atol=1e-5)


def test_adapters_change_the_logits(data: TrainingData, frozen: Frozen) -> None:
    trained = train(data, settings_of(1), frozen, stream)
    with_adapters = log_probs(trained.bank, data.packed)
    for name in ("lane.query.lora_b", "lane.value.lora_b"):
        trained.bank.trainable()[name].data.zero_()
    assert float((with_adapters - log_probs(trained.bank, data.packed)).abs().max()) > 1e-4


@pytest.fixture
def began(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, torch.Tensor]]:
    """Everything that each bank holds, as it is made."""
    make, kept = training._bank, []

    def noted(*arguments: Any) -> Bank:
        bank = make(*arguments)
        kept.append({n: t.clone() for n, t in bank.state_dict().items()})
        return bank

    monkeypatch.setattr(training, "_bank", noted)
    return kept


@pytest.mark.parametrize("depth", DEPTHS)
def test_one_noisy_step_moves_every_adapter_of_every_shadow_and_nothing_that_is_frozen(
    began: list[dict[str, torch.Tensor]], data_at: DataAt, depth: Depth
) -> None:
    """The bank's own copy of the blocks: the base model itself is never handed to an optimizer."""
    data, frozen = data_at(depth)
    base = {n: p.clone() for n, p in frozen.base.model.state_dict().items()}
    bank = train(data, settings_of(noise=1.0, steps=1, depth_of=depth), frozen, stream).bank
    adapted = bank.trainable()
    assert len(adapted) == {1: 6, 2: 10}[depth.adapted_layers] + 3 * bool(depth.n_queries)
    for name, tensor in bank.state_dict().items():
        same = (tensor == began[0][name]).flatten(1) if name in adapted else tensor == began[0][name]
        assert not same.all(1).any() if name in adapted else same.all(), name
    assert len(bank.state_dict()) > len(adapted) + 4
    assert all(torch.equal(p, base[n]) for n, p in frozen.base.model.state_dict().items())


def after_the_fit(monkeypatch: pytest.MonkeyPatch, bug: Callable[[Bank], object]) -> None:
    plain = training.fit

    def fit(module: Any, *arguments: Any, **options: Any) -> None:
        plain(module, *arguments, **options)
        bug(module.bank)

    monkeypatch.setattr(training, "fit", fit)


def test_an_adapter_that_stays_where_it_began_in_one_shadow_fails_the_trial(
    began: list[dict[str, torch.Tensor]], data: TrainingData, frozen: Frozen, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "lane.value.lora_a"
    after_the_fit(monkeypatch, lambda bank: bank.trainable()[name].data[2].copy_(began[0][name][2]))
    with pytest.raises(TrialError, match=rf"{name} did not in some shadow") as caught:
        train(data, settings_of(1, noise=1.0), frozen, stream)
    assert caught.value.cause == "adapter did not move"


@pytest.mark.parametrize("depth", DEPTHS)
def test_a_frozen_block_that_moves_fails_the_trial(
    data_at: DataAt, monkeypatch: pytest.MonkeyPatch, depth: Depth
) -> None:
    data, frozen = data_at(depth)

    def nudge(bank: Bank) -> None:
        weight = next(t for n, t in bank.frozen_state().items() if n.endswith("weight") and "norm" not in n.lower())
        weight.view(-1)[0] += 1e-3

    after_the_fit(monkeypatch, nudge)
    with pytest.raises(TrialError, match="The frozen blocks must not move") as caught:
        train(data, settings_of(noise=1.0, steps=1, depth_of=depth), frozen, stream)
    assert caught.value.cause == "base weights moved"


def test_same_streams_give_the_same_parameters_bit_for_bit(data: TrainingData, frozen: Frozen) -> None:
    first = train(data, settings_of(1, noise=1.0), frozen, stream).bank.trainable()
    second = train(data, settings_of(1, noise=1.0), frozen, stream).bank.trainable()
    assert all(torch.equal(p, second[n]) for n, p in first.items())


def test_speed_settings_leave_the_parameters_unchanged_beyond_rounding(data: TrainingData, frozen: Frozen) -> None:
    whole = train(data, settings_of(1, noise=1.0), frozen, stream).bank.trainable()
    chunked = OptimizerSettings(learning_rate=1e-2, head_learning_rate=5e-2, chunk=3)
    parts = train(data, settings_of(1, noise=1.0, optimizer=chunked), frozen, stream).bank.trainable()
    for name, parameter in whole.items():
        torch.testing.assert_close(parts[name], parameter, atol=1e-4, rtol=1e-3)


def test_where_memory_ends_the_chunk_is_halved_and_the_result_stays(
    data: TrainingData, frozen: Frozen, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(data, settings_of(1, noise=1.0), frozen, stream)
    drawn = Packed.sampled_rows

    def small_machine(self: Packed, index: torch.Tensor, **options: Any) -> Any:
        if index.shape[1] > 7:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes.")
        return drawn(self, index, **options)

    monkeypatch.setattr(Packed, "sampled_rows", small_machine)
    halved = train(data, settings_of(1, noise=1.0), frozen, stream)
    assert halved.chunk <= 7 < whole.chunk
    for name, parameter in whole.bank.trainable().items():
        torch.testing.assert_close(halved.bank.trainable()[name], parameter, atol=1e-4, rtol=1e-3)
    told = log_probs(halved.bank, data.packed, chunk=100)
    monkeypatch.setattr(Packed, "sampled_rows", drawn)
    torch.testing.assert_close(told, log_probs(halved.bank, data.packed, chunk=100), atol=1e-5, rtol=1e-5)
    monkeypatch.setattr(Packed, "sampled_rows", lambda *_, **__: (_ for _ in ()).throw(MemoryError("none left")))
    with pytest.raises(TrialError, match="must fit into memory"):
        train(data, settings_of(1), frozen, stream)


# of each shadow: rank, noise, rate, rate of the head; neighbours that agree in all but noise are updated together
MIXED = {
    "one run": [(2, 0.5, 1e-2, 0.1), (2, 2.0, 1e-2, 0.1), (2, 0.5, 1e-2, 0.1), (2, 1.0, 1e-2, 0.1)],
    "pairs": [(1, 0.5, 1e-2, 0.1), (1, 0.5, 1e-2, 0.1), (4, 2.0, 1e-3, 0.02), (4, 2.0, 1e-3, 0.02)],
    "alone": [(1, 0.5, 1e-2, 0.1), (4, 1.0, 1e-2, 0.1), (4, 1.0, 1e-3, 0.1), (4, 2.0, 1e-3, 0.02)],
    "a run apart": [(2, 0.5, 1e-2, 0.1), (3, 1.0, 1e-3, 0.02), (2, 0.5, 1e-2, 0.1), (2, 2.0, 1e-2, 0.1)],
}


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("mixture", MIXED)
def test_a_shadow_trains_the_same_whoever_else_is_in_its_bank(data_at: DataAt, depth: Depth, mixture: str) -> None:
    """Shadows of one bank, each with its own rate, noise and rank, against banks of their own."""
    data, frozen = data_at(depth)

    def trained(shadows: range) -> Bank:
        ranks, noise, rates, heads = zip(*(MIXED[mixture][k] for k in shadows), strict=True)
        dp = DPSettings(noise_multiplier=noise, max_grad_norm=0.5, expected_batch_size=N / 8)
        optimizer = OptimizerSettings(learning_rate=rates, head_learning_rate=heads)
        own = dataclasses.replace(data, members=data.members[shadows.start : shadows.stop])
        settings = settings_of(depth_of=depth, steps=6, lora_rank=ranks, dp=dp, optimizer=optimizer)
        bank: Bank = train(own, settings, frozen, lambda purpose, k: stream(purpose, k + shadows.start)).bank
        return bank

    mixed = trained(range(K))
    for shadow in range(K):
        alone = trained(range(shadow, shadow + 1)).shadow_parameters(0)
        for name, parameter in alone.items():
            torch.testing.assert_close(mixed.shadow_parameters(shadow)[name], parameter, atol=1e-4, rtol=1e-3)


def test_neighbours_that_share_rank_and_rates_are_one_run() -> None:
    assert list(_equal_runs((2, 2, 3, 3, 2), (1.0, 1.0, 1.0, 1.0, 1.0))) == [slice(0, 2), slice(2, 4), slice(4, 5)]
    assert list(_equal_runs((2, 2, 2), (1.0, 1.0, 0.5))) == [slice(0, 2), slice(2, 3)]
    assert list(_equal_runs((2,))) == [slice(0, 1)]


def test_noise_is_added_through_fit_with_the_accountants_standard_deviation(data: TrainingData) -> None:
    """Zero gradients and SGD: the squared update is steps x parameters x (sigma C lr / batch)^2."""
    blank = Packed(
        features=torch.zeros_like(data.packed.features), tokens=data.packed.tokens, offsets=data.packed.offsets
    )
    still = dataclasses.replace(data, packed=blank, members=np.repeat([[True], [False]] * 2, N, axis=1))
    steps, lr = 60, 0.1
    sgd = OptimizerSettings(head_learning_rate=0.5 * lr, head_momentum=0.0)  # over the clip of 0.5: lr
    trained = train(still, settings_of(0, noise=3.0, steps=steps, optimizer=sgd), None, stream)
    weight = trained.bank.head_weight.detach()  # features are zero, so its gradient is noise alone
    expected = steps * weight[0].numel() * (3.0 * 0.5 * lr / (N / 4 * 0.5)) ** 2
    for shadow in range(K):
        assert float(weight[shadow].square().sum()) == pytest.approx(expected, rel=0.35)
    assert float(weight.square().sum()) == pytest.approx(K * expected, rel=0.15)
    assert abs(float(torch.corrcoef(torch.stack([weight[0].flatten(), weight[1].flatten()]))[0, 1])) < 0.4


def test_huge_noise_ruins_accuracy(data: TrainingData) -> None:
    clean = log_probs(train(data, settings_of(0, steps=40), None, stream).bank, data.packed)
    noisy = log_probs(train(data, settings_of(0, steps=40, noise=1000.0), None, stream).bank, data.packed)
    hits = [(out.argmax(-1).numpy() == data.labels).mean() for out in (clean, noisy)]
    assert hits[1] < hits[0] - 0.15


def test_one_more_unit_moves_the_sum_by_at_most_the_clip_and_the_normaliser_not_at_all() -> None:
    parameter = torch.nn.Parameter(torch.zeros(1, 2, 3))
    dp = DPSettings(noise_multiplier=0.0, max_grad_norm=0.5, expected_batch_size=8.0)
    moved = []
    for total in (torch.full((1, 2, 3), 0.1), torch.full((1, 2, 3), 0.1) + 0.5 / math.sqrt(6)):
        parameter.data.zero_()
        optimizer = BankOptimizer(torch.optim.SGD([parameter], lr=1.0), dp, ShadowNoise([]), [slice(0, 1)])
        parameter.grad = total.clone()
        optimizer.step()
        moved.append(parameter.detach().clone())
    assert float((moved[0] - moved[1]).norm()) == pytest.approx(0.5 / 8.0, rel=1e-5)


def test_zero_trainable_parameters_are_refused() -> None:
    empty = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    empty.param_groups[0]["params"] = []
    dp = DPSettings(noise_multiplier=1.0, max_grad_norm=1.0, expected_batch_size=1.0)
    with pytest.raises(InputError, match="trainable_parameters must be > 0"):
        BankOptimizer(empty, dp, ShadowNoise([]), [slice(0, 1)])


@pytest.mark.parametrize("argument", ["gradient_clip_val", "accumulate_grad_batches", "overfit_batches", "precision"])
def test_trainer_arguments_that_break_dp_are_refused(data: TrainingData, argument: str) -> None:
    with pytest.raises(InputError, match=argument):
        train(data, settings_of(0, trainer={argument: 1}), None, stream)


def test_a_rank_above_the_hidden_size_is_refused(data: TrainingData, frozen: Frozen) -> None:
    with pytest.raises(InputError, match="lora_rank must be <= 32"):
        train(data, settings_of(1, lora_rank=64), frozen, stream)


def test_noise_without_clipping_is_refused() -> None:
    with pytest.raises(InputError, match="max_grad_norm must be finite"):
        DPSettings(noise_multiplier=1.0, max_grad_norm=math.inf, expected_batch_size=1.0)


def test_exploding_parameters_fail_the_trial_with_a_cause(data: TrainingData) -> None:
    explode = OptimizerSettings(head_learning_rate=1e38)
    with pytest.raises(TrialError, match="finite") as caught:
        train(data, settings_of(0, noise=1000.0, optimizer=explode), None, stream)
    assert caught.value.cause == "non-finite parameters"


@pytest.mark.parametrize("steps", [3, 0])
def test_a_training_leaves_nothing_behind_that_only_the_collector_would_find(
    data: TrainingData, frozen: Frozen, steps: int
) -> None:
    """Lightning's Trainer and its module hold one another: what every trial held, failed or not, would pile up."""
    own = dataclasses.replace(data, packed=data.packed.take(np.arange(N)))
    left = [weakref.ref(own.packed.tokens), weakref.ref(own.packed.features)]
    gc.collect()
    gc.disable()
    try:
        if steps:
            trained = train(own, settings_of(1, steps=steps), frozen, stream)
            left += [weakref.ref(trained.bank), weakref.ref(trained.bank.lane)]
            del trained
        else:
            rates = OptimizerSettings(learning_rate=math.inf)
            with pytest.raises(TrialError):
                train(own, settings_of(1, optimizer=rates), frozen, stream)
        del own
        assert [at() is None for at in left] == [True] * len(left)
    finally:
        gc.enable()


def test_the_factors_of_a_chunk_are_gone_before_those_of_the_next_are_made(
    data: TrainingData, frozen: Frozen, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a step would need the memory of two chunks."""
    before: list[weakref.ref[torch.Tensor]] = []
    alive: list[int] = []
    made = Bank.record_factors

    def spied(bank: Bank, *arguments: Any) -> Any:
        alive.append(sum(at() is not None for at in before))
        factors, losses = made(bank, *arguments)
        before[:] = [weakref.ref(side) for pair in factors.values() for side in pair]
        return factors, losses

    monkeypatch.setattr(Bank, "record_factors", spied)
    rates = OptimizerSettings(learning_rate=1e-2, head_learning_rate=5e-2, chunk=8)
    train(data, settings_of(1, steps=3, optimizer=rates), frozen, stream)
    assert len(alive) > 2
    assert not any(alive)


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="the C library has no such call")
def test_freed_memory_below_a_block_in_use_goes_back_to_the_system() -> None:
    def own() -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon:"))

    blocks = [bytearray(b"x" * 100_000) for _ in range(2000)]
    kept, before = blocks[-1], own()
    del blocks
    release_free_memory()
    assert len(kept) == 100_000
    assert own() < before - 100_000  # KiB, of the 195,000
