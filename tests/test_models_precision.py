"""The bank in bf16, as it runs where the processor multiplies it: the clip holds exactly, all else to bf16's rounding."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from moo.models.activations import Packed
from moo.models.bank import Bank, BankConfig, Depth, Frozen, unit_factors
from moo.models.base_models import BaseModel
from moo.models.cache import TrunkCache
from moo.models.clipping import ClippedSums, clip_and_sum
from tests.test_models_bank import RANK, TEXTS, C, K, frozen_at, make_bank, packed_at

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
    """The largest distance of a shadow's vectors, over their size."""
    return float(((ours - other).norm(dim=1) / other.norm(dim=1)).max())


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
        for name, own in alone.own(0).items():
            own.copy_(wide.own(shadow)[name])
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
