"""The bank against the unmodified model, a batch-of-one loop, and Opacus' gradients."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from opacus import GradSampleModule
from torch import nn

from moo.core.errors import InputError
from moo.models.bank.bank import Bank, BankConfig, Depth, Frozen, unit_factors
from moo.models.dp.clipping import ClippedSums, Factors, clip_and_sum
from moo.models.dp.poisson_sampling import PoissonBatches
from moo.models.pretrained.architectures import blocks_of, cut_of, family_of, n_blocks
from moo.models.pretrained.loading import BaseModel
from moo.models.trunk.encode import encode
from moo.models.trunk.packed import Packed
from tests.conftest import KNOWN
from tests.fixtures.banks import TEXTS, C, K, frozen_at, make_bank, packed_at

DEPTHS = {
    "head": Depth(),
    "one layer": Depth(adapted_layers=1),
    "keys too": Depth(adapted_layers=1, targets="query_key_value"),
    "every linear layer": Depth(adapted_layers=1, targets="all_linear"),
    "queries": Depth(adapted_layers=1, layers_dropped=1, n_queries=3, targets="query_key_value"),
    "two layers": Depth(adapted_layers=2),
    "all layers, all linear": Depth(adapted_layers=4, targets="all_linear"),
    "two layers below the top": Depth(adapted_layers=2, layers_dropped=1),
}


def own_pooled(frozen: Frozen, text: str) -> np.ndarray:
    """Return the unmodified model's pooled token, layers above the cut left out."""
    base, stop = frozen.base, frozen.cut.stop
    ids = base.tokenizer(text, return_tensors="pt")["input_ids"]
    seen: list[torch.Tensor] = []
    with torch.no_grad():
        states = base.model(input_ids=ids, output_hidden_states=True)
        top = states.last_hidden_state if stop == n_blocks(base.model) else states.hidden_states[stop]
        seen.append(top)
    causal = family_of(base.model).causal  # type: ignore[union-attr]
    return seen[0][0, -1 if causal else 0].numpy()


@pytest.mark.parametrize("kind", KNOWN)
@pytest.mark.parametrize("layers", [1, 2, 4])
def test_at_zero_adapters_the_features_are_the_unmodified_models_own(
    family: Callable[[str], BaseModel], kind: str, layers: int
) -> None:
    depth = Depth(adapted_layers=layers)
    frozen = frozen_at(family(kind), depth)
    bank = make_bank(frozen, depth, zero=True)
    x = packed_at(frozen).gather(torch.arange(len(TEXTS))[None], tokens=True)
    with torch.no_grad():
        ours = bank.features(x)[:, :, frozen.base.hidden :]
    own = np.stack([own_pooled(frozen, t) for t in TEXTS])
    expected = (own - frozen.constants.pooled_shift) * frozen.constants.pooled_scale
    for k in range(K):
        np.testing.assert_allclose(ours[k], expected, atol=1e-5)


@pytest.mark.parametrize("kind", ["bert", "roberta", "xlm-roberta"])
def test_the_first_learned_query_starts_as_the_models_own_answer_to_the_mean_token(
    family: Callable[[str], BaseModel], kind: str
) -> None:
    depth = Depth(adapted_layers=1, layers_dropped=2, n_queries=2)
    frozen, d = frozen_at(family(kind), depth), family(kind).hidden
    bank, packed = make_bank(frozen, depth, zero=True), packed_at(frozen)
    with torch.no_grad():
        out = bank.features(packed.gather(torch.arange(len(TEXTS))[None], tokens=True))
        for i, (start, stop) in enumerate(zip(packed.offsets[:-1], packed.offsets[1:], strict=True)):
            tokens = packed.tokens[start:stop]
            beside = torch.cat([tokens, tokens.mean(0, keepdim=True)])[None]  # one more token, which no other reads
            hidden = torch.zeros(1, 1, len(tokens) + 1, len(tokens) + 1)
            hidden[..., -1] = -torch.inf
            answer = blocks_of(frozen.base.model)[frozen.cut.start](beside, attention_mask=hidden)
            own = (answer[0] if isinstance(answer, tuple) else answer).reshape(-1, d)[-1]
            expected = (own.numpy() - frozen.constants.query_shift) * frozen.constants.query_scale
            np.testing.assert_allclose(out[0, i, d : 2 * d], expected, atol=1e-5)
    assert float((out[0, :, 2 * d :] - out[0, :, d : 2 * d]).abs().max()) > 1e-3  # the second one starts elsewhere


@pytest.mark.parametrize("name", [n for n in DEPTHS if n != "head"])
def test_shared_records_give_the_same_logits_as_records_laid_out_for_each_shadow(
    family: Callable[[str], BaseModel], name: str
) -> None:
    frozen = frozen_at(family("bert"), DEPTHS[name])
    bank, packed = make_bank(frozen, DEPTHS[name]), packed_at(frozen)
    rows = torch.arange(len(TEXTS))[None]
    with torch.no_grad():
        shared = bank(packed.gather(rows, tokens=True))
        apart = bank(packed.gather(rows.expand(K, -1), tokens=True))
    torch.testing.assert_close(shared, apart, atol=1e-5, rtol=1e-5)


def loop_gradients(bank: Bank, packed: Packed, labels: torch.Tensor, index: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return the oracle by autograd, one shadow and one record at a time: name -> (K, P, ...)."""
    parameters = bank.trainable()
    out = {n: torch.zeros(*index.shape, *p.shape[1:]) for n, p in parameters.items()}
    for k, i in np.ndindex(*index.shape):
        x = packed.gather(index[:, i : i + 1], tokens=bank.lane is not None)
        loss = nn.functional.cross_entropy(bank(x)[k], labels[index[k, i : i + 1]])
        grads = torch.autograd.grad(loss, list(parameters.values()))
        for name, grad in zip(parameters, grads, strict=True):
            out[name][k, i] = grad[k]
    return out


@pytest.mark.parametrize("name", ["one layer", "keys too", "queries"])
@pytest.mark.parametrize("room", [1, 20, 10**6])
def test_tokens_laid_out_in_stretches_give_the_factors_of_tokens_laid_out_at_once(
    family: Callable[[str], BaseModel], monkeypatch: pytest.MonkeyPatch, name: str, room: int
) -> None:
    monkeypatch.setattr("moo.models.trunk.packed.CHUNK_TOKENS", K * room)
    frozen = frozen_at(family("bert"), DEPTHS[name])
    bank, packed = make_bank(frozen, DEPTHS[name]), packed_at(frozen)
    index = torch.stack([torch.randperm(len(TEXTS), generator=torch.Generator().manual_seed(k)) for k in range(K)])
    drawn = packed.sampled_rows(index)
    assert (len(list(drawn.token_chunks())) == 1) == (room == 10**6)
    in_stretches, losses = bank.record_factors(drawn, index % C)
    at_once, losses_at_once = bank.record_factors(packed.gather(index, tokens=True), index % C)
    torch.testing.assert_close(losses, losses_at_once)
    for parameter, pair in at_once.items():
        torch.testing.assert_close(in_stretches[parameter], pair, atol=1e-6, rtol=1e-5)
    rows = torch.arange(len(TEXTS))[None]
    with torch.no_grad():
        torch.testing.assert_close(
            bank(packed.sampled_rows(rows)), bank(packed.gather(rows, tokens=True)), atol=1e-6, rtol=1e-5
        )


CASES = [("bert", name) for name in DEPTHS] + [
    ("distilbert", "keys too"),
    ("distilbert", "two layers"),
    ("roberta", "two layers"),
    ("gpt2", "one layer"),
    ("gpt2", "all layers, all linear"),
    ("llama", "one layer"),
    ("llama", "all layers, all linear"),
    ("qwen3", "two layers"),
]


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_record_gradients_equal_a_batch_of_one_loop(family: Callable[[str], BaseModel], kind: str, name: str) -> None:
    frozen = frozen_at(family(kind), DEPTHS[name])
    bank, packed = make_bank(frozen, DEPTHS[name]), packed_at(frozen)
    labels = torch.arange(len(TEXTS)) % C
    index = torch.stack([torch.randperm(len(TEXTS), generator=torch.Generator().manual_seed(k))[:4] for k in range(K)])
    factors, _ = bank.record_factors(packed.gather(index, tokens=bank.lane is not None), labels[index])
    assert set(factors) == set(bank.trainable())
    units = unit_factors(factors, torch.ones(K, 4, 1))
    oracle = loop_gradients(bank, packed, labels, index)
    for i in range(4):
        alone = torch.zeros(K, 4)
        alone[:, i] = 1
        for parameter, expected in oracle.items():
            ours = units[parameter].clipped_sum(alone).reshape(expected[:, i].shape)
            size = float(expected[:, i].norm())
            assert size > 0
            assert float((ours - expected[:, i]).norm()) <= 1e-5 * size


@pytest.mark.parametrize("name", ["one layer", "queries", "two layers"])
def test_unit_norms_and_clipped_sums_equal_the_loop(family: Callable[[str], BaseModel], name: str) -> None:
    frozen = frozen_at(family("bert"), DEPTHS[name])
    bank, packed = make_bank(frozen, DEPTHS[name]), packed_at(frozen)
    labels = torch.arange(len(TEXTS)) % C
    index = torch.tensor([[0, 1, 2], [3, 0, 0], [4, 5, 0]])[None].expand(K, -1, -1)  # 0 fills empty places
    weights = torch.tensor([[1 / 3, 1 / 3, 1 / 3], [1.0, 0, 0], [0.5, 0.5, 0]]).expand(K, -1, -1)
    flat = index.flatten(1)
    factors, _ = bank.record_factors(packed.gather(flat, tokens=True), labels[flat])
    out = clip_and_sum(unit_factors(factors, weights), max_grad_norm=0.05, present=torch.ones(K, 3, dtype=torch.bool))
    oracle = loop_gradients(bank, packed, labels, torch.arange(6)[None].expand(K, -1))
    members = [[0, 1, 2], [3], [4, 5]]
    sums = {n: torch.zeros_like(p) for n, p in bank.trainable().items()}
    for k in range(K):
        for u, rows in enumerate(members):
            unit = {n: g[k, rows].mean(0) for n, g in oracle.items()}
            norm = math.sqrt(sum(float(g.square().sum()) for g in unit.values()))
            assert float(out.norms[k, u]) == pytest.approx(norm, rel=1e-4)
            for n, g in unit.items():
                sums[n][k] += g * min(1.0, 0.05 / norm)
    for parameter, expected in sums.items():
        torch.testing.assert_close(out.sums[parameter].reshape(expected.shape), expected, atol=1e-6, rtol=1e-4)


def test_head_gradients_equal_opacus_per_sample_gradients(family: Callable[[str], BaseModel]) -> None:
    frozen = frozen_at(family("bert"), DEPTHS["head"])
    bank, packed = make_bank(frozen, DEPTHS["head"]), packed_at(frozen)
    labels = torch.arange(len(TEXTS)) % C
    index = torch.arange(len(TEXTS))[None].expand(K, -1)
    factors, _ = bank.record_factors(packed.gather(index, tokens=False), labels[index])
    for k in range(K):
        head = nn.Linear(frozen.base.hidden, C)
        head.weight.data, head.bias.data = bank.head_weight.data[k].clone(), bank.head_bias.data[k, :, 0].clone()
        wrapped = GradSampleModule(head, loss_reduction="sum")
        nn.functional.cross_entropy(
            wrapped(packed.features.clone().requires_grad_()), labels, reduction="sum"
        ).backward()
        left, right = factors["head_weight"]
        ours = left[k].mT @ right[k]
        torch.testing.assert_close(ours, head.weight.grad_sample, atol=1e-6, rtol=1e-5)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["one layer", "two layers"])
def test_a_shadow_of_smaller_rank_is_what_it_would_be_alone(family: Callable[[str], BaseModel], name: str) -> None:
    frozen = frozen_at(family("bert"), DEPTHS[name])
    mixed = make_bank(frozen, DEPTHS[name], zero=True, ranks=(1, 3))
    alone = Bank(
        BankConfig(ranks=(1,), n_classes=C, depth=DEPTHS[name], lora_alpha=4.0),
        frozen,
        frozen.base.hidden,
        [torch.Generator().manual_seed(0)],
    )
    for mine, own in zip(mixed.shadow_parameters(0).values(), alone.shadow_parameters(0).values(), strict=True):
        torch.testing.assert_close(mine, own)
        mine += 0.1  # views: this is the bank's own memory
        own += 0.1
    x = packed_at(frozen).gather(torch.arange(len(TEXTS))[None], tokens=True)
    with torch.no_grad():
        torch.testing.assert_close(mixed(x)[0], alone(x)[0], atol=1e-6, rtol=1e-5)


def test_a_model_of_an_unknown_family_adapts_nothing_and_says_what_would(family: Callable[[str], BaseModel]) -> None:
    base = family("electra")
    assert encode(base, ["abc"], max_length=24).mean.shape == (1, base.hidden)  # the head alone still works
    with pytest.raises(InputError, match=r"known family .*engine='opacus'"):
        cut_of(base.model, adapted_layers=1)
    with pytest.raises(InputError, match="learned queries need an encoder"):
        make_bank(frozen_at(family("gpt2"), Depth(adapted_layers=1)), Depth(adapted_layers=1, n_queries=2))
    with pytest.raises(InputError, match="must be <= 4"):
        cut_of(family("bert").model, adapted_layers=4, layers_dropped=1)


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
        for k, u in np.argwhere(batch.present.numpy()):
            there = batch.weights[k, u] > 0
            assert len({int(units[i]) for i in batch.index[k, u][there]}) == 1
            assert float(batch.weights[k, u].sum()) == pytest.approx(1.0)


@pytest.mark.parametrize("name", ["head", "one layer", "keys too", "queries", "two layers"])
def test_a_record_that_is_not_finite_takes_its_own_user_out_and_nobody_else(
    family: Callable[[str], BaseModel], name: str
) -> None:
    """Users of one to three records; what is padded stands for record 0, which is the bad one."""
    frozen = frozen_at(family("bert"), DEPTHS[name])
    bank, packed, users = make_bank(frozen, DEPTHS[name]), packed_at(frozen), np.array([0, 1, 1, 2, 2, 2, 3, 3])
    rng = np.random.default_rng(0)
    (batch,) = PoissonBatches(
        units=users,
        lengths=packed.lengths,
        members=np.ones((K, len(users)), bool),
        sample_rate=1.0,
        steps=1,
        generators=[rng] * K,
    )
    index = batch.index.flatten(1)
    bad = (batch.weights[..., 0] > 0) & (batch.index[..., 0] == 0)

    def summed(packed: Packed, present: torch.Tensor) -> ClippedSums:
        records, _ = bank.record_factors(packed.gather(index, tokens=bank.lane is not None), index % C)
        return clip_and_sum(unit_factors(records, batch.weights), max_grad_norm=0.3, present=present)

    clean = summed(packed, batch.present & ~bad)
    packed.features[0], packed.tokens[0] = math.nan, math.inf
    poisoned = summed(packed, batch.present)
    assert (clean.non_finite, poisoned.non_finite) == (0, K)
    for parameter, total in clean.sums.items():
        assert float(total.norm()) > 0
        torch.testing.assert_close(poisoned.sums[parameter], total)


@pytest.mark.parametrize(("longest", "shapes"), [(64, 20), (7, 12), (500, 70)])
def test_batches_and_stretches_have_few_shapes(longest: int, shapes: int) -> None:
    rng, n = np.random.default_rng(0), 1200
    lengths = rng.integers(1, longest + 1, n)
    offsets = torch.from_numpy(np.cumsum([0, *lengths]))
    packed = Packed(
        features=torch.zeros(n, 2), tokens=torch.arange(int(lengths.sum()))[:, None].float(), offsets=offsets
    )
    batches = PoissonBatches(
        units=np.arange(n),
        lengths=lengths,
        members=np.ones((4, n), bool),
        sample_rate=0.25,
        steps=100,
        generators=[rng] * 4,
    )
    seen = set()
    for batch in batches:
        drawn, end = packed.sampled_rows(batch.index.flatten(1)), 0
        for part, tokens, mask in drawn.token_chunks():
            assert part.start == end
            assert torch.equal(mask.sum(-1), drawn.lengths[:, part])
            assert torch.equal(tokens[..., 0, 0], drawn.starts[:, part].float())
            seen.add(tokens.shape)
            end = part.stop
        assert end == batch.present.shape[1]
    assert len(seen) <= shapes


@pytest.mark.parametrize("places", [1, 4, 1000])
def test_chunks_of_a_batch_hold_every_unit_once(places: int) -> None:
    rng = np.random.default_rng(0)
    units = np.repeat(np.arange(40), rng.integers(1, 6, 40))
    batches = PoissonBatches(
        units=units,
        lengths=rng.integers(1, 9, len(units)),
        members=np.ones((2, len(units)), bool),
        sample_rate=0.5,
        steps=5,
        generators=[rng, rng],
    )
    for batch in batches:
        parts = list(batch.chunks(places))
        left_out = batch.present.shape[1] - sum(p.present.shape[1] for p in parts)
        assert 0 <= left_out <= batch.absent  # nobody's
        assert not batch.present[:, :left_out].any()
        assert [p.absent for p in parts] == [batch.absent - left_out] + [0] * (len(parts) - 1)
        assert all(p.index.shape[1] == 1 or p.index[0].numel() <= places for p in parts)
        for k in range(2):
            whole = sorted(batch.index[k][batch.weights[k] > 0].tolist())
            assert whole == sorted(i for p in parts for i in p.index[k][p.weights[k] > 0].tolist())


def test_chunks_of_users_with_several_records_have_few_shapes() -> None:
    rng = np.random.default_rng(0)
    units = np.repeat(np.arange(1200), rng.integers(1, 6, 1200))
    batches = PoissonBatches(
        units=units,
        lengths=np.ones(len(units), int),
        members=np.ones((4, len(units)), bool),
        sample_rate=0.5,
        steps=100,
        generators=[rng] * 4,
    )
    shapes = {chunk.index.shape[1:] for batch in batches for chunk in batch.chunks(384)}
    assert len(shapes) <= 20


def test_places_without_a_unit_stand_first_and_hold_the_shortest_text() -> None:
    rng = np.random.default_rng(0)
    units = np.repeat(np.arange(40), rng.integers(1, 6, 40))
    lengths = rng.permutation(len(units)) + 3
    batches = PoissonBatches(
        units=units,
        lengths=lengths,
        members=np.ones((3, len(units)), bool),
        sample_rate=0.3,
        steps=20,
        generators=[rng] * 3,
    )
    for batch in batches:
        there = batch.present.numpy()
        assert (np.diff(there.astype(int), axis=1) >= 0).all()
        assert batch.absent == int((~there.any(0)).sum())
        assert (lengths[batch.index.numpy()[~there]] == 3).all()
        assert (batch.weights.numpy()[~there] == 0).all()


def test_a_unit_with_many_records_is_thinned_at_random_and_others_stay_whole() -> None:
    units = np.repeat([0, 1, 2, 3], [3, 40, 2, 25])
    batches = PoissonBatches(
        units=units,
        lengths=np.arange(len(units)) + 1,
        members=np.ones((1, len(units)), bool),
        sample_rate=1.0,
        steps=300,
        generators=[np.random.default_rng(0)],
        max_records=16,
    )
    seen = np.zeros(len(units))
    for batch in batches:
        there = batch.weights[0] > 0
        assert not there[~batch.present[0]].any()
        assert sorted(there[batch.present[0]].sum(1).tolist()) == [2, 3, 16, 16]
        drawn = batch.index[0][there].numpy()
        assert len(set(drawn.tolist())) == len(drawn)
        seen[drawn] += 1
    wanted = np.select([units == 1, units == 3], [16 / 40, 16 / 25], 1.0)
    assert (np.abs(seen / 300 - wanted) <= 5 * np.sqrt(wanted * (1 - wanted) / 300)).all()


def test_empty_batches_are_still_batches() -> None:
    empty = list(batches_of(q=1e-6, steps=5))
    assert len(empty) == 5
    assert not any(b.present.any() for b in empty)
    assert [len(list(b.chunks(4))) for b in empty] == [1] * 5


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
