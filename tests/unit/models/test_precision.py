"""The bank in bf16: the clip holds exactly, all else to bf16's rounding."""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pytest
import torch

from moo.models.bank.bank import Bank, BankConfig, Depth, Frozen, unit_factors
from moo.models.bank.feature_scaling import constants
from moo.models.bank.lightning_module import OptimizerSettings, log_probs
from moo.models.dp.clipping import ClippedSums, clip_and_sum
from moo.models.dp.optimizer import DPSettings
from moo.models.pretrained.architectures import cut_of
from moo.models.pretrained.loading import BaseModel
from moo.models.train import TrainingData, TrainingSettings, train
from moo.models.trunk.cache import TrunkCache
from moo.models.trunk.packed import Packed
from tests.fixtures.banks import RANK, TEXTS, C, K, frozen_at, make_bank, packed_at

CLIP = 0.05
SHAPES = [
    ("bert", Depth(adapted_layers=1)),
    ("bert", Depth(adapted_layers=1, targets="all_linear")),
    ("bert", Depth(adapted_layers=1, layers_dropped=1, n_queries=3, targets="query_key_value")),
    ("bert", Depth(adapted_layers=2)),
    ("llama", Depth(adapted_layers=2, targets="all_linear")),
]
INDEX = torch.tensor([[0, 1, 2], [3, 3, 3], [4, 5, 4], [6, 7, 6]])  # padding repeats a unit's own record
WEIGHTS = torch.tensor([[1 / 3, 1 / 3, 1 / 3], [1.0, 0, 0], [0.5, 0.5, 0], [0.5, 0.5, 0]])


def at_precision(base: BaseModel, depth: Depth, *, low: bool) -> tuple[Frozen, Packed]:
    frozen = frozen_at(dataclasses.replace(base, low_precision=low), depth)
    packed = packed_at(frozen)
    return frozen, dataclasses.replace(packed, tokens=packed.tokens.bfloat16() if low else packed.tokens)


def sums_of(bank: Bank, packed: Packed, units: slice = slice(None), *, clip: float = CLIP) -> ClippedSums:
    index, weights = (t[units].expand(bank.n_shadows, -1, -1) for t in (INDEX, WEIGHTS))
    flat = index.flatten(1)
    factors, _ = bank.record_factors(packed.gather(flat, tokens=True), flat % C)
    present = torch.ones(index.shape[:2], dtype=torch.bool)
    return clip_and_sum(unit_factors(factors, weights), max_grad_norm=clip, present=present)


def flat(sums: ClippedSums) -> torch.Tensor:
    """Shape (K, parameters)."""
    return torch.cat([s.flatten(1) for s in sums.sums.values()], dim=1).double()


def apart(ours: torch.Tensor, other: torch.Tensor) -> float:
    """Return the largest distance of a shadow's vectors, over their size."""
    return float(((ours - other).norm(dim=1) / other.norm(dim=1)).max())


@dataclasses.dataclass
class Run:
    """Whole training: parameters, answers (K, n, C), share right, norms of sums (steps, K)."""

    parameters: dict[str, torch.Tensor]
    told: torch.Tensor
    right: float
    norms: torch.Tensor


class Moves(lightning.Callback):
    """Norm of each shadow's clipped sum, noise included, at every step."""

    def __init__(self) -> None:
        self.norms: list[torch.Tensor] = []

    def on_train_batch_end(
        self,
        trainer: Any,  # noqa: ARG002
        pl_module: Any,
        outputs: Any,  # noqa: ARG002
        batch: Any,  # noqa: ARG002
        batch_idx: int,  # noqa: ARG002
    ) -> None:
        optimizer = pl_module.dp_optimizer
        whole = torch.cat([p.grad.flatten(1) for p in optimizer.params], dim=1).double()
        self.norms.append(whole.norm(dim=1) * optimizer.expected_batch_size)


@pytest.mark.parametrize(("kind", "depth"), SHAPES)
def test_one_unit_moves_the_sum_by_at_most_the_clip_whatever_bf16_rounds(
    family: Callable[[str], BaseModel], kind: str, depth: Depth
) -> None:
    frozen, packed = at_precision(family(kind), depth, low=True)
    bank = make_bank(frozen, depth)
    whole = sums_of(bank, packed)
    assert float(whole.norms.min()) > CLIP  # all are clipped
    for unit in range(len(INDEX)):
        moved = flat(sums_of(bank, packed, slice(unit, unit + 1))).norm(dim=1)
        torch.testing.assert_close(moved, torch.full_like(moved, CLIP), atol=0, rtol=1e-6)


@pytest.mark.parametrize(("kind", "depth"), SHAPES)
def test_gradients_in_bf16_agree_with_those_in_fp32(
    family: Callable[[str], BaseModel], kind: str, depth: Depth
) -> None:
    told = []
    for low in (True, False):
        frozen, packed = at_precision(family(kind), depth, low=low)
        told.append(flat(sums_of(make_bank(frozen, depth), packed, clip=1e9)))
    assert 1e-6 < apart(*told) < 0.08


@pytest.mark.parametrize(("kind", "depth"), SHAPES)
def test_the_width_of_the_bank_and_the_stretch_of_units_change_bf16_within_rounding(
    family: Callable[[str], BaseModel], kind: str, depth: Depth
) -> None:
    frozen, packed = at_precision(family(kind), depth, low=True)
    wide = make_bank(frozen, depth)
    whole = flat(sums_of(wide, packed))
    parts = torch.stack([flat(sums_of(wide, packed, slice(u, u + 1))) for u in range(len(INDEX))])
    assert apart(parts.sum(0), whole) < 0.01
    for shadow in range(K):
        config = BankConfig(ranks=(RANK,), n_classes=C, depth=depth, lora_alpha=4.0)
        alone = Bank(config, frozen, frozen.base.hidden, [torch.Generator()])
        for name, own in alone.shadow_parameters(0).items():
            own.copy_(wide.shadow_parameters(shadow)[name])
        assert apart(flat(sums_of(alone, packed)), whole[shadow : shadow + 1]) < 0.01


@pytest.mark.parametrize(("kind", "depth"), SHAPES)
def test_cached_activations_give_what_fresh_ones_give(
    family: Callable[[str], BaseModel], kind: str, depth: Depth, tmp_path: Path
) -> None:
    frozen, _ = at_precision(family(kind), depth, low=True)
    bank, told = make_bank(frozen, depth), []
    for limit in (0.0, 1.0, 1.0):
        cache = TrunkCache(
            tmp_path / str(limit), b"k" * 32, frozen.base, max_length=24, cut=frozen.cut, limit_gib=limit
        )
        packed = cache.packed(TEXTS, frozen.constants)
        assert packed.tokens.dtype == torch.bfloat16
        told.append(flat(sums_of(bank, packed)).numpy())
    np.testing.assert_array_equal(told[0], told[1])
    np.testing.assert_array_equal(told[1], told[2])


N, STEPS = 60, 10
SHADOWS = 2


@pytest.fixture
def trained(family: Callable[[str], BaseModel], tmp_path: Path) -> Callable[..., Run]:
    """Train users of two records each, with activations from a cache, through Lightning's fit."""

    def of(
        kind: str, depth: Depth, *, low: bool, noise: float, draw: int = 0, clip: float = 0.5, alone: int = 0
    ) -> Run:
        base = dataclasses.replace(family(kind), low_precision=low)
        cut = cut_of(base.model, adapted_layers=depth.adapted_layers, layers_dropped=depth.layers_dropped)
        scaling, rng = constants(base, max_length=24, cut=cut), np.random.default_rng(0)
        labels, units = np.repeat(rng.integers(0, 2, N // 2), 2), np.arange(N) // (alone or 2)
        texts = ["".join(rng.choice(list("abcxyz" if y else "mno123"), int(rng.integers(4, 16)))) for y in labels]
        _, packed = (  # computed, then read
            TrunkCache(tmp_path / str(low), b"k" * 32, base, max_length=24, cut=cut).packed(texts, scaling)
            for _ in range(2)
        )
        assert (packed.tokens.dtype == torch.bfloat16) == low
        coin = rng.random(N // 2) < 0.5
        members = np.stack([units == 3, units == 8]) if alone else np.stack([coin, ~coin])[:, units]
        data = TrainingData(packed=packed, labels=labels, units=units, members=members, n_classes=2)
        watch = Moves()
        settings = TrainingSettings(
            depth=depth,
            lora_rank=2,
            lora_alpha=4.0,
            sample_rate=1.0 if alone else 0.5,
            steps=STEPS,
            accelerator="cpu",
            dp=DPSettings(noise_multiplier=noise, max_grad_norm=clip, expected_batch_size=N / 8),
            optimizer=OptimizerSettings(learning_rate=3e-3, head_learning_rate=0.01 if alone else 0.1),
            trainer={"callbacks": [watch]},
        )

        def stream(purpose: str, shadow: int) -> np.random.Generator:
            return np.random.default_rng([len(purpose), shadow, draw if purpose == "noise" else 0])

        bank = train(data, settings, Frozen(base=base, cut=cut, constants=scaling), stream).bank
        told = log_probs(bank, packed)
        right = float((told.argmax(-1).numpy() == labels).mean())
        return Run({n: p.detach() for n, p in bank.trainable().items()}, told, right, torch.stack(watch.norms))

    return of


@pytest.mark.parametrize(("kind", "depth"), [SHAPES[1], SHAPES[2], SHAPES[3], SHAPES[4]])
def test_a_training_under_dp_in_bf16_ends_where_that_in_fp32_does(
    trained: Callable[..., Run], kind: str, depth: Depth
) -> None:
    """Rounding is at most a fiftieth of a noise draw's effect by tensor, a tenth by answer."""
    low, full = (trained(kind, depth, low=low, noise=1.0) for low in (True, False))
    other = trained(kind, depth, low=False, noise=1.0, draw=1)
    for name, p in full.parameters.items():
        assert float((low.parameters[name] - p).norm()) < 0.02 * float((other.parameters[name] - p).norm()), name
    assert 0 < float((low.told - full.told).norm()) < 0.1 * float((other.told - full.told).norm())
    assert abs(low.right - full.right) <= 2 / N
    assert min(low.right, full.right) > 0.7


@pytest.mark.parametrize(("kind", "depth"), [SHAPES[1], SHAPES[2], SHAPES[3], SHAPES[4]])
def test_with_little_noise_a_training_in_bf16_is_as_far_from_that_in_fp32_as_its_products_round(
    trained: Callable[..., Run], kind: str, depth: Depth
) -> None:
    """bf16 rounds by 2^-8 at a product.

    The bound is three times that for the movement of the answers, and twenty times that for a
    tensor.
    """
    low, full = (trained(kind, depth, low=low, noise=0.02) for low in (True, False))
    began = math.log(1 / 2)
    assert float((low.told - full.told).norm()) < 3 * 2**-8 * float((full.told - began).norm())
    for name, p in full.parameters.items():
        assert float((low.parameters[name] - p).norm()) < 20 * 2**-8 * float(p.norm()), name


@pytest.mark.parametrize(("kind", "depth"), SHAPES)
@pytest.mark.parametrize("records", [1, 2])
def test_through_a_whole_training_in_bf16_a_user_moves_the_sum_by_the_clip(
    trained: Callable[..., Run], kind: str, depth: Depth, records: int
) -> None:
    """At zero noise, one user in every batch of a shadow: all steps are clipped, each to the bound in fp32."""
    norms = trained(kind, depth, low=True, noise=0.0, clip=CLIP, alone=records).norms
    assert norms.shape == (STEPS, SHADOWS)
    torch.testing.assert_close(norms, torch.full_like(norms, CLIP), atol=0, rtol=1e-5)
