"""Each record's gradient by implementations that share nothing with the bank's factors.

In fp32 to 1e-5: torch.func through plain operations, and Opacus' ghost clipping with its norms and
its clipped sums at zero noise.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import peft
import pytest
import torch
from opacus import GradSampleModule
from opacus.grad_sample import GradSampleModuleFastGradientClipping
from opacus.optimizers import DPOptimizerFastGradientClipping
from opacus.utils.fast_gradient_clipping_utils import DPLossFastGradientClipping
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional

from moo.models.bank import fast_lane, lora
from moo.models.bank.bank import Bank, BankConfig, Depth, Frozen, unit_factors
from moo.models.bank.lightning_module import OptimizerSettings
from moo.models.dp.clipping import clip_and_sum
from moo.models.dp.optimizer import DPSettings
from moo.models.pretrained.architectures import blocks_of, copy_of, cut_of
from moo.models.pretrained.hf_folder import silence_transformers
from moo.models.pretrained.loading import BaseModel
from moo.models.reference import train as reference_train
from moo.models.reference.adapters import adapter_spec, build_classifier
from moo.models.reference.shadows import pad_token_ids
from moo.models.train import TrainingData, TrainingSettings, train
from moo.models.trunk.packed import Activations, Workspace
from tests.fixtures.settings import Sums
from tests.fixtures.trainings import N, data_at, in_bank, stream

K, RANK, ALPHA, QUERIES = 2, 2, 4.0, 3
ROWS = torch.arange(0, N, 4)
QUERIED = Depth(adapted_layers=1, layers_dropped=1, n_queries=QUERIES, targets="query_key_value")
CASES = [
    pytest.param("bert", Depth(), id="head"),
    pytest.param("bert", Depth(adapted_layers=1, targets="all_linear"), id="fast lane"),
    pytest.param("distilbert", Depth(adapted_layers=1), id="fast lane, another family"),
    pytest.param("bert", QUERIED, id="learned queries"),
    pytest.param("bert", Depth(adapted_layers=2, targets="all_linear"), id="deep lane under a fast one"),
    pytest.param("gpt2", Depth(adapted_layers=2, targets="all_linear"), id="deep lane, fused"),
    pytest.param("llama", Depth(adapted_layers=2), id="deep lane"),
]
Gradients = dict[str, Tensor]
At = Callable[[str, Depth], tuple[TrainingData, Frozen, Bank]]

pytestmark = pytest.mark.filterwarnings("ignore:.*Full backward hook is firing")


@pytest.fixture
def at(family: Callable[[str], BaseModel]) -> At:
    """Texts of unlike length, and a bank no parameter of which is zero."""

    def made(kind: str, depth: Depth) -> tuple[TrainingData, Frozen, Bank]:
        base = family(kind)
        cut = cut_of(base.model, adapted_layers=depth.adapted_layers, layers_dropped=depth.layers_dropped)
        data, frozen = data_at(base, cut)
        bank = bank_of(data, frozen, depth, K)
        for p in bank.trainable().values():
            p.data.copy_(torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())) * 0.2)
        return data, frozen, bank

    return made


def bank_of(data: TrainingData, frozen: Frozen, depth: Depth, k: int) -> Bank:
    config = BankConfig(ranks=(RANK,) * k, n_classes=2, depth=depth, lora_alpha=ALPHA)
    return Bank(config, frozen, data.packed.features.shape[1], [torch.Generator() for _ in range(k)])


def factors_of(bank: Bank, data: TrainingData) -> dict[str, tuple[Tensor, Tensor]]:
    index = ROWS.expand(K, -1)
    labels = torch.from_numpy(data.labels)[index]
    return bank.record_factors(bank.materialise(data.packed, index, Workspace()), labels)[0]


def gradients_of(bank: Bank, data: TrainingData) -> Gradients:
    """Return the bank's gradients, each (K, records, *shape of the parameter)."""
    whole = {n: torch.einsum("kp...ma,kp...mb->kp...ab", *pair) for n, pair in factors_of(bank, data).items()}
    return {n: whole[n].reshape(K, len(ROWS), *p.shape[1:]) for n, p in bank.trainable().items()}


def assert_same(ours: Gradients, theirs: Gradients) -> None:
    """Assert equality of every record and tensor; leading axes are records.

    To 1e-5 of its own norm, and to 1e-7 of the record's whole one.
    """
    assert set(ours) == set(theirs)
    whole = torch.stack([g.flatten(1).norm(dim=1) for g in theirs.values()]).norm(dim=0)
    for name, g in theirs.items():
        own = g.flatten(1).norm(dim=1)
        assert bool((own > 1e-6 * whole).all()), name
        off = (ours[name].reshape(g.shape) - g).flatten(1).norm(dim=1)
        assert bool((off <= 1e-5 * own + 1e-7 * whole).all()), (name, float((off / own).max()))


def alike(mask: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Return records of one length and their mask, which must be one for all records of a call."""
    lengths = mask.sum(-1)
    for n in lengths.unique():
        rows = (lengths == n).nonzero()[:, 0]
        yield mask[rows[0]], rows


def plain_attention(looked_for: Tensor, _: Any, x: Activations) -> Tensor:
    scores = torch.einsum("khpqd,kpld->kpqhl", looked_for, x.tokens).masked_fill(~x.mask[:, :, None, None], -math.inf)
    return torch.einsum("kpqhl,kpld->kpqhd", scores.softmax(-1), x.tokens).flatten(2, 3)


def plain_lora(x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, _: Any) -> Tensor:
    return functional.linear(x, weight, bias) + x @ a.mT @ b.mT


@pytest.mark.parametrize(("kind", "depth"), CASES)
def test_record_gradients_of_the_bank_equal_those_of_torch_func_through_its_forward_path(
    at: At, monkeypatch: pytest.MonkeyPatch, kind: str, depth: Depth
) -> None:
    """The lanes' two operations that have a backward pass of their own are plain ones there."""
    data, frozen, bank = at(kind, depth)
    ours = gradients_of(bank, data)
    monkeypatch.setattr(fast_lane, "ChunkedAttention", SimpleNamespace(apply=plain_attention))
    monkeypatch.setattr(lora, "_Adapted", SimpleNamespace(apply=plain_lora))
    alone, labels = bank_of(data, frozen, depth, 1), torch.from_numpy(data.labels)[ROWS]
    x = data.packed.gather(ROWS[None], tokens=bank.lane is not None)
    theirs = {n: torch.zeros_like(g) for n, g in ours.items()}
    for mask, rows in alike(x.mask[0]):

        def loss(own: Gradients, features: Tensor, tokens: Tensor, label: Tensor, mask: Tensor = mask) -> Tensor:
            one = Activations(features[None, None], tokens[None, None], mask[None, None])
            return functional.cross_entropy(functional_call(alone, own, (one,))[0], label[None])

        by_record = vmap(grad(loss), in_dims=(None, 0, 0, 0))
        for k in range(K):
            own = {n: p.detach()[k : k + 1] for n, p in bank.trainable().items()}
            found = by_record(own, x.features[0, rows], x.tokens[0, rows], labels[rows])
            for name, g in found.items():
                theirs[name][k, rows] = g[:, 0]
    for k in range(K):
        assert_same({n: g[k] for n, g in ours.items()}, {n: g[k] for n, g in theirs.items()})


class Queried(nn.Module):
    """Learned queries in the model's own block under PEFT: tokens behind the text.

    Nothing else sees them, nor do they see each other.
    """

    def __init__(self, frozen: Frozen, n_frozen: int) -> None:
        super().__init__()
        config = peft.LoraConfig(
            r=RANK,
            lora_alpha=ALPHA,  # type: ignore[arg-type]
            target_modules=["query", "key", "value"],
        )
        with silence_transformers():
            self.encoder = peft.get_peft_model(copy_of(frozen.base.model, frozen.cut), config)
        d = frozen.base.hidden
        self.offsets = nn.Embedding(QUERIES, d)
        self.head = nn.Linear(n_frozen + QUERIES * d, 2)
        self.constants = frozen.constants

    def forward(self, tokens: Tensor, mask: Tensor, features: Tensor) -> Tensor:
        n, length, _ = tokens.shape
        mean = (tokens * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        asked = mean[:, None] + self.offsets(torch.arange(QUERIES).repeat(n, 1))
        hidden = torch.zeros(n, 1, length + QUERIES, length + QUERIES)
        hidden[..., :length].masked_fill_(~mask[:, None, None], -math.inf)
        hidden[..., length:] = -math.inf
        out = blocks_of(self.encoder.get_base_model())[0](torch.cat([tokens, asked], 1), attention_mask=hidden)
        states = (out[0] if isinstance(out, tuple) else out)[:, length:]
        answers = (states - torch.from_numpy(self.constants.query_shift)) * torch.from_numpy(self.constants.query_scale)
        logits: Tensor = self.head(torch.cat([features, answers.flatten(1)], 1))
        return logits


@dataclasses.dataclass
class Oracle:
    """Plain model of one shadow, with its inputs and the bank's names of its trained parameters."""

    model: nn.Module
    inputs: tuple[Tensor, ...]
    names: dict[str, str]


def oracle_of(data: TrainingData, frozen: Frozen, bank: Bank, depth: Depth, k: int) -> Oracle:
    own, features = bank.shadow_parameters(k), data.packed.features[ROWS]
    if depth.n_queries:
        model: nn.Module = Queried(frozen, features.shape[1]).eval()
        x = data.packed.gather(ROWS[None], tokens=True)
        inputs: tuple[Tensor, ...] = (x.tokens[0], x.mask[0], features)
    else:
        model = build_classifier(adapter_spec(data, settings_of(depth)), frozen).eval()
        inputs = (*pad_token_ids(data.packed, ROWS, 1), features)
    encoder: Any = getattr(model, "encoder", None)
    if encoder is not None:
        encoder.get_base_model().config._attn_implementation = "eager"  # vmap has no rule for the fused one
    names = {}
    for name, p in model.named_parameters():
        if p.requires_grad and name == "offsets.weight":
            names[name] = "lane.offsets"
        elif p.requires_grad and depth.n_queries and name.startswith("encoder"):
            layer, _, letter = name[name.index(".self.") + 6 :].partition(".lora_")
            names[name] = f"lane.{layer}.lora_{letter[0].lower()}"
        elif p.requires_grad:
            names[name] = in_bank(f".{name}", own, frozen)
        if p.requires_grad:
            p.data.copy_(own[names[name]].reshape(p.shape))
    assert sorted(names.values()) == sorted(own)
    return Oracle(model, inputs, names)


def in_double(oracle: Oracle) -> Oracle:
    """Return the oracle with parameters and real-valued inputs in float64."""
    inputs = tuple(x.double() if x.is_floating_point() else x for x in oracle.inputs)
    return dataclasses.replace(oracle, model=oracle.model.double(), inputs=inputs)


def settings_of(depth: Depth, clip: float = 1.0, **changes: Any) -> TrainingSettings:
    return TrainingSettings(
        depth=depth,
        lora_rank=RANK,
        lora_alpha=ALPHA,
        sample_rate=1.0,
        steps=1,
        engine="opacus",
        accelerator="cpu",
        dp=DPSettings(noise_multiplier=0.0, max_grad_norm=clip, expected_batch_size=9.0),
        optimizer=OptimizerSettings(chunk=5),
        **changes,
    )


@pytest.mark.parametrize(("kind", "depth"), CASES)
def test_torch_func_opacus_hooks_and_the_bank_give_the_same_record_gradients_of_the_whole_model(
    at: At, kind: str, depth: Depth
) -> None:
    """The Opacus engine's model from the tokens up; for learned queries, tokens behind the text.

    The oracles compute in float64, so that only the rounding of the bank is compared, on any number
    of threads.
    """
    data, frozen, bank = at(kind, depth)
    ours, labels = gradients_of(bank, data), torch.from_numpy(data.labels)[ROWS]
    oracle = in_double(oracle_of(data, frozen, bank, depth, 1))
    ids, mask, features = oracle.inputs
    trained = {n: p.detach() for n, p in oracle.model.named_parameters() if n in oracle.names}
    found = {n: torch.zeros(len(ROWS), *p.shape, dtype=torch.float64) for n, p in trained.items()}
    for shown, rows in alike(mask):

        def loss(own: Gradients, ids: Tensor, features: Tensor, label: Tensor, shown: Tensor = shown) -> Tensor:
            logits = functional_call(oracle.model, own, (ids[None], shown[None], features[None]))
            return functional.cross_entropy(logits, label[None])

        each = vmap(grad(loss), in_dims=(None, 0, 0, 0))(trained, ids[rows], features[rows], labels[rows])
        for name, g in each.items():
            found[name][rows] = g
    assert_same({n: ours[own][1] for n, own in oracle.names.items()}, found)
    hooked = awake(GradSampleModule(oracle.model, loss_reduction="sum"))
    functional.cross_entropy(hooked(*oracle.inputs), labels, reduction="sum").backward()
    named = oracle.model.named_parameters()
    by_hooks: Gradients = {n: p.grad_sample for n, p in named if n in oracle.names}  # type: ignore[misc]
    assert_same(by_hooks, found)


def awake(model: Any) -> Any:
    """With hooks that work, which they do in training mode alone, and no dropout."""
    for layer in model.eval().modules():
        layer.training = any(p.requires_grad for p in layer.parameters(recurse=False))
    return model


@pytest.mark.parametrize(("kind", "depth"), CASES)
def test_norms_and_clipped_sums_of_the_bank_equal_those_of_ghost_clipping(at: At, kind: str, depth: Depth) -> None:
    """Every trained layer of the oracles is one that Opacus has a sampler of norms for: `nn.Linear`, `nn.Embedding`."""
    data, frozen, bank = at(kind, depth)
    units = unit_factors(factors_of(bank, data), torch.ones(K, len(ROWS), 1))
    present = torch.ones(K, len(ROWS), dtype=torch.bool)
    clip = float(clip_and_sum(units, max_grad_norm=1.0, present=present).norms.median())
    ours = clip_and_sum(units, max_grad_norm=clip, present=present)
    by_tensor = {n: f.reduced().squared_norms().sqrt() for n, f in units.items()}
    for k in range(K):
        norms, sums, whole = by_ghost_clipping(oracle_of(data, frozen, bank, depth, k), data, clip)
        np.testing.assert_allclose(ours.norms[k], whole, rtol=1e-5)
        assert float(ours.norms[k].min()) < 0.95 * clip < clip < 0.95 * float(ours.norms[k].max())
        for name, norm in norms.items():
            np.testing.assert_allclose(by_tensor[name][k], norm, rtol=1e-5, atol=1e-7 * clip)
        for name, total in sums.items():
            off = float((ours.sums[name][k].reshape(total.shape) - total).norm())
            assert off <= 1e-5 * float(total.norm()) + 1e-6 * clip, name


def by_ghost_clipping(oracle: Oracle, data: TrainingData, clip: float) -> tuple[Gradients, Gradients, Tensor]:
    """Return norms by parameter, the clipped sums at zero noise, and each record's whole norm.

    Norms by parameter and sums have the bank's names.
    """
    model = awake(
        GradSampleModuleFastGradientClipping(oracle.model, loss_reduction="sum", max_grad_norm=cast(Any, clip))
    )
    trained: dict[str, Any] = {oracle.names[n]: p for n, p in oracle.model.named_parameters() if n in oracle.names}
    for layer in model.modules():
        if any(p.requires_grad for p in layer.parameters(recurse=False)):
            assert type(layer) in model.NORM_SAMPLERS
    optimizer = DPOptimizerFastGradientClipping(
        torch.optim.SGD(trained.values(), lr=1.0),
        noise_multiplier=0.0,
        max_grad_norm=clip,
        expected_batch_size=len(ROWS),
        loss_reduction="sum",
    )
    criterion = DPLossFastGradientClipping(model, optimizer, nn.CrossEntropyLoss(reduction="sum"), loss_reduction="sum")
    criterion(model(*oracle.inputs), torch.from_numpy(data.labels)[ROWS]).backward()
    optimizer.pre_step()
    whole: Tensor = model.per_sample_gradient_norms
    return {n: p._norm_sample for n, p in trained.items()}, {n: p.grad for n, p in trained.items()}, whole


@pytest.mark.parametrize(("kind", "depth"), [case for case in CASES if case.id != "learned queries"])
def test_a_step_of_the_reference_path_has_the_clipped_sums_of_ghost_clipping(
    at: At, monkeypatch: pytest.MonkeyPatch, kind: str, depth: Depth
) -> None:
    """Through Lightning's fit, in chunks of five records; learned queries are the bank's alone."""
    data, frozen, bank = at(kind, depth)
    oracle = oracle_of(data, frozen, bank, depth, 0)
    state = {n: p.detach().clone() for n, p in oracle.model.named_parameters() if n in oracle.names}
    monkeypatch.setattr(
        reference_train, "initialise", lambda model, *_: model._module.load_state_dict(state, strict=False)
    )
    units = unit_factors(factors_of(bank, data), torch.ones(K, len(ROWS), 1))
    present = torch.ones(K, len(ROWS), dtype=torch.bool)
    clip = float(clip_and_sum(units, max_grad_norm=1.0, present=present).norms[0].median())  # half are below
    watch, there = Sums(), np.isin(np.arange(N), ROWS)[None]
    settings = settings_of(depth, clip, trainer={"callbacks": [watch]})
    train(dataclasses.replace(data, members=there), settings, frozen, stream)
    _, sums, _ = by_ghost_clipping(oracle, data, clip)
    ordered = sorted(
        oracle.names.values(), key=lambda name: not name.startswith("head_")
    )  # head first, as it optimizes
    expected = torch.cat([sums[name].flatten() for name in ordered])
    assert float((watch.steps[0] - expected).norm()) <= 1e-5 * float(expected.norm())
