"""The bank against the unmodified model, against a batch-of-one loop, and against Opacus' own per-sample gradients."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from opacus import GradSampleModule
from torch import nn

from moo.errors import InputError
from moo.models.activations import Packed
from moo.models.bank import Bank, BankConfig, unit_factors
from moo.models.base_models import BaseModel
from moo.models.clipping import Factors, clip_and_sum
from moo.models.datamodule import PoissonBatches
from moo.models.fast_lane import FrozenLayer, frozen_layer
from moo.models.scaling import Constants, constants
from moo.models.trunk import encode

TEXTS = ["abc", "hello world 12", "zz", "the quick brown fox", "a1b2c3", "lorem ipsum", "qwerty", "0123456789"]
K, C, RANK = 4, 3, 2


@pytest.fixture(scope="module")
def scaling(tiny: BaseModel) -> Constants:
    return constants(tiny, max_length=24)


@pytest.fixture(scope="module")
def layer(tiny: BaseModel, scaling: Constants) -> FrozenLayer:
    return frozen_layer(tiny, scaling)


@pytest.fixture(scope="module")
def packed(tiny: BaseModel, scaling: Constants) -> Packed:
    out = encode(tiny, TEXTS, max_length=24)
    return Packed(
        features=torch.from_numpy(scaling.features(out.mean)),
        tokens=torch.from_numpy(np.concatenate(out.tokens)),
        offsets=torch.from_numpy(np.cumsum([0, *map(len, out.tokens)])),
    )


def make_bank(layer: FrozenLayer | None, hidden: int, *, zero: bool = False) -> Bank:
    depth = int(layer is not None)
    config = BankConfig(n_shadows=K, n_classes=C, adapted_layers=depth, lora_rank=RANK, lora_alpha=4.0)
    bank = Bank(config, layer, hidden * (1 + depth), [torch.Generator().manual_seed(i) for i in range(K)])
    if not zero:
        torch.manual_seed(5)
        for p in bank.trainable().values():
            p.data += 0.3 * torch.randn_like(p)
    return bank


def test_fast_lane_at_zero_adapters_is_the_models_own_first_token(
    tiny: BaseModel, layer: FrozenLayer, packed: Packed, scaling: Constants
) -> None:
    bank = make_bank(layer, tiny.hidden, zero=True)
    x = packed.gather(torch.arange(len(TEXTS))[None], tokens=True)
    ours = bank._fast_lane(x).features[0, :, tiny.hidden :].detach().numpy()
    expected = (encode(tiny, TEXTS, max_length=24).first - scaling.first_shift) * scaling.first_scale
    np.testing.assert_allclose(ours, expected, atol=2e-6)


def test_shared_records_give_the_same_logits_as_records_laid_out_for_each_shadow(
    tiny: BaseModel, layer: FrozenLayer, packed: Packed
) -> None:
    bank = make_bank(layer, tiny.hidden)
    rows = torch.arange(len(TEXTS))[None]
    with torch.no_grad():
        shared = bank(packed.gather(rows, tokens=True))
        apart = bank(packed.gather(rows.expand(K, -1), tokens=True))
    torch.testing.assert_close(shared, apart, atol=1e-5, rtol=1e-5)


def loop_gradients(bank: Bank, packed: Packed, labels: torch.Tensor, index: torch.Tensor) -> dict[str, torch.Tensor]:
    """The oracle: autograd, one shadow and one record at a time. Name -> (K, P, ...)."""
    parameters = bank.trainable()
    out = {n: torch.zeros(*index.shape, *p.shape[1:]) for n, p in parameters.items()}
    for k, i in np.ndindex(*index.shape):
        x = packed.gather(index[:, i : i + 1], tokens=bank.layer is not None)
        loss = nn.functional.cross_entropy(bank(x)[k], labels[index[k, i : i + 1]])
        grads = torch.autograd.grad(loss, list(parameters.values()))
        for name, grad in zip(parameters, grads, strict=True):
            out[name][k, i] = grad[k]
    return out


@pytest.mark.parametrize("depth", [0, 1])
def test_record_gradients_equal_a_batch_of_one_loop(
    tiny: BaseModel, layer: FrozenLayer, packed: Packed, depth: int
) -> None:
    bank = make_bank(layer if depth else None, tiny.hidden)
    labels = torch.arange(len(TEXTS)) % C
    index = torch.stack([torch.randperm(len(TEXTS), generator=torch.Generator().manual_seed(k))[:5] for k in range(K)])
    factors, _ = bank.record_factors(packed.gather(index, tokens=depth == 1), labels[index])
    slots = torch.arange(5)[None, :, None].expand(K, -1, -1)
    units = unit_factors(factors, slots, torch.ones(K, 5))
    oracle = loop_gradients(bank, packed, labels, index)
    for i in range(5):
        alone = torch.zeros(K, 5)
        alone[:, i] = 1
        for name, parameter in bank.trainable().items():
            ours = units[name].clipped_sum(alone).reshape(parameter.shape)
            scale = float(oracle[name].abs().max())  # float32 sums of terms of this size, in another order
            torch.testing.assert_close(ours, oracle[name][:, i], atol=1e-5 * scale, rtol=1e-5)


def test_unit_norms_and_clipped_sums_equal_the_loop(tiny: BaseModel, layer: FrozenLayer, packed: Packed) -> None:
    bank = make_bank(layer, tiny.hidden)
    labels = torch.arange(len(TEXTS)) % C
    index = torch.arange(6)[None].expand(K, -1)
    slots = torch.tensor([[0, 1, 2], [3, 6, 6], [4, 5, 6]])[None].expand(K, -1, -1)  # 6 marks an empty slot
    weights = torch.tensor([1 / 3, 1 / 3, 1 / 3, 1.0, 0.5, 0.5]).expand(K, -1)
    factors, _ = bank.record_factors(packed.gather(index, tokens=True), labels[index])
    out = clip_and_sum(
        unit_factors(factors, slots, weights), max_grad_norm=0.05, present=torch.ones(K, 3, dtype=torch.bool)
    )
    oracle = loop_gradients(bank, packed, labels, index)
    members = [[0, 1, 2], [3], [4, 5]]
    sums = {n: torch.zeros_like(p) for n, p in bank.trainable().items()}
    for k in range(K):
        for u, rows in enumerate(members):
            unit = {n: g[k, rows].mean(0) for n, g in oracle.items()}
            norm = math.sqrt(sum(float(g.square().sum()) for g in unit.values()))
            assert float(out.norms[k, u]) == pytest.approx(norm, rel=1e-4)
            for n, g in unit.items():
                sums[n][k] += g * min(1.0, 0.05 / norm)
    for name, expected in sums.items():
        torch.testing.assert_close(out.sums[name].reshape(expected.shape), expected, atol=1e-6, rtol=1e-4)


def test_head_gradients_equal_opacus_per_sample_gradients(tiny: BaseModel, packed: Packed) -> None:
    bank = make_bank(None, tiny.hidden)
    labels = torch.arange(len(TEXTS)) % C
    index = torch.arange(len(TEXTS))[None].expand(K, -1)
    factors, _ = bank.record_factors(packed.gather(index, tokens=False), labels[index])
    for k in range(K):
        head = nn.Linear(tiny.hidden, C)
        head.weight.data, head.bias.data = bank.head_weight.data[k].clone(), bank.head_bias.data[k, :, 0].clone()
        wrapped = GradSampleModule(head, loss_reduction="sum")
        nn.functional.cross_entropy(
            wrapped(packed.features.clone().requires_grad_()), labels, reduction="sum"
        ).backward()
        left, right = factors["head_weight"]
        ours = left[k].mT @ right[k]
        torch.testing.assert_close(ours, head.weight.grad_sample, atol=1e-6, rtol=1e-5)  # type: ignore[arg-type]


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**20), m=st.integers(1, 5), a=st.integers(1, 6), b=st.integers(1, 6), norm=st.floats(1e-3, 10)
)
def test_clipped_units_never_exceed_the_norm_whatever_the_data(seed: int, m: int, a: int, b: int, norm: float) -> None:
    g = torch.Generator().manual_seed(seed)
    left, right = torch.randn(2, 3, m, a, generator=g) * 50, torch.randn(2, 3, m, b, generator=g) * 50
    if seed % 3 == 0:
        left[0, 0] = math.nan
    if seed % 3 == 1:
        right[1, 2] = math.inf
    for unit in range(3):
        present = torch.zeros(2, 3, dtype=torch.bool)
        present[:, unit] = True
        out = clip_and_sum({"w": Factors(left, right)}, max_grad_norm=norm, present=present)
        assert bool(torch.isfinite(out.sums["w"]).all())
        assert float(out.sums["w"].flatten(1).norm(dim=1).max()) <= norm * (1 + 1e-4)


def test_non_finite_units_contribute_nothing_and_are_counted() -> None:
    left, right = torch.ones(2, 3, 1, 2), torch.ones(2, 3, 1, 2)
    left[0, 1] = math.nan
    out = clip_and_sum({"w": Factors(left, right)}, max_grad_norm=1e9, present=torch.ones(2, 3, dtype=torch.bool))
    assert out.non_finite == 1
    torch.testing.assert_close(out.sums["w"], torch.tensor([2.0, 3.0])[:, None, None].expand(2, 2, 2))


def batches_of(seed: int = 0, *, q: float = 0.3, steps: int = 400, n_units: int = 30) -> PoissonBatches:
    units = np.arange(90) // 3
    coin = np.random.default_rng(1).random(n_units) < 0.5
    members = np.stack([coin, ~coin])[:, units]
    return PoissonBatches(
        units=units,
        lengths=np.arange(90) % 7 + 1,
        members=members,
        sample_rate=q,
        steps=steps,
        generators=[np.random.default_rng([seed, k]) for k in range(2)],
    )


def test_poisson_inclusion_frequency_and_varying_sizes() -> None:
    units = np.arange(90) // 3
    counts, sizes = np.zeros((2, 30)), []
    for batch in batches_of():
        for k in range(2):
            seen = units[batch.index[k][batch.weights[k] > 0].numpy()]
            counts[k] += np.bincount(seen, minlength=30) / 3  # a unit's three records come together
            sizes.append(int(batch.present[k].sum()))
    rates = counts / 400
    inside = rates > 0
    assert inside.sum() == 30  # each unit in exactly one half of the pair
    assert not (inside[0] & inside[1]).any()
    assert abs(rates[inside].mean() - 0.3) < 0.02
    assert np.abs(rates[inside] - 0.3).max() < 5 * math.sqrt(0.3 * 0.7 / 400)
    assert len(set(sizes)) > 5


def test_layout_keeps_each_units_records_and_weights_together() -> None:
    units = np.arange(90) // 3
    for batch in batches_of(steps=20):
        places = batch.index.shape[1]
        for k, u in np.argwhere(batch.present.numpy()):
            slots = [int(s) for s in batch.slots[k, u] if s < places]
            owners = {int(units[batch.index[k, s]]) for s in slots}
            assert len(owners) == 1
            assert sum(float(batch.weights[k, s]) for s in slots) == pytest.approx(1.0)


def test_empty_batches_are_still_batches() -> None:
    shapes = [b.present.any() for b in batches_of(q=1e-6, steps=5)]
    assert len(shapes) == 5
    assert not any(shapes)


def test_a_unit_split_over_both_halves_is_refused() -> None:
    members = np.array([[True, False, True]])
    with pytest.raises(InputError, match="members together"):
        PoissonBatches(
            units=np.array([0, 0, 1]),
            lengths=np.ones(3, dtype=int),
            members=members,
            sample_rate=0.5,
            steps=1,
            generators=[np.random.default_rng(0)],
        )
