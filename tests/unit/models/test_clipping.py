"""Clipped contributions within the clip, also where a unit's gradients nearly cancel."""

from typing import Any

import pytest
import torch
from opacus.optimizers import DPOptimizer
from torch import Tensor

from moo.models.dp.clipping import Factors, Gradients, clip_and_sum
from moo.models.dp.optimizer import DPSettings
from moo.models.reference.optimizer import ReferenceOptimizer

CLIP = 0.3
ONE = torch.ones(1, 1, dtype=torch.bool)
# records m, a, b, leading axes of the parameter; all but the last two are kept as factors
SHAPES: list[tuple[int, int, int, tuple[int, ...]]] = [
    (1, 8, 384, ()),
    (2, 8, 384, ()),
    (2, 384, 16, ()),
    (3, 384, 384, ()),
    (12, 64, 384, ()),
    (2, 32, 8, (12,)),
    (40, 64, 384, ()),
    (2, 2, 3, ()),
    (30, 8, 384, ()),
]


def opposite(shape: tuple[int, int, int, tuple[int, ...]], scale: float, seed: int) -> Factors:
    """Return records of one unit; the second half is the negated first, plus a little."""
    m, a, b, lead = shape
    g = torch.Generator().manual_seed(seed)
    rest = 10 ** (-5 * torch.rand(1, generator=g))
    half = -(-m // 2)

    def side(width: int, sign: int, share: Tensor) -> Tensor:
        first, other = torch.randn(2, 1, *lead, 1, half, width, generator=g)
        return torch.cat([first, sign * first + share * other], dim=-2)[..., :m, :]

    apart = rest * (torch.rand(2, generator=g) < 0.7)
    return Factors(scale * side(a, -1, apart[0]), side(b, 1, apart[1]))


def gradient(factors: Factors) -> Tensor:
    """Return the gradient of one unit in float64: shape (K, *lead, U, a, b)."""
    return factors.left.double().mT @ factors.right.double()


@pytest.mark.parametrize("scale", [1.0, 10.0, 1e3, 1e5])
@pytest.mark.parametrize("shape", SHAPES)
def test_no_contribution_passes_the_clip_where_records_all_but_cancel(
    shape: tuple[int, int, int, tuple[int, ...]], scale: float
) -> None:
    for seed in range(60):
        factors = opposite(shape, scale, seed)
        out = clip_and_sum({"w": factors}, max_grad_norm=CLIP, present=ONE)
        assert out.non_finite == 0
        assert float(out.sums["w"].double().norm()) <= CLIP * (1 + 1e-5)
        if isinstance(factors.reduced(), Factors):  # what is summed is the gradient itself, rounded on the way
            coefficient = min(1.0, CLIP / float(out.norms))
            assert coefficient * float(gradient(factors).norm()) <= CLIP * (1 + 1e-5)


def test_no_contribution_passes_the_clip_over_several_parameters() -> None:
    for seed in range(60):
        factors = {str(s): opposite(s, 1e3, seed + i) for i, s in enumerate(SHAPES)}
        out = clip_and_sum(factors, max_grad_norm=CLIP, present=ONE)
        assert float(torch.cat([s.double().flatten() for s in out.sums.values()]).norm()) <= CLIP * (1 + 1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_norms_are_exact_where_nothing_cancels(shape: tuple[int, int, int, tuple[int, ...]]) -> None:
    m, a, b, lead = shape
    for seed in range(20):
        g = torch.Generator().manual_seed(seed)
        factors = Factors(torch.randn(2, *lead, 3, m, a, generator=g), torch.randn(2, *lead, 3, m, b, generator=g))
        exact = gradient(factors).square().sum((-2, -1)).sqrt()
        exact = exact.square().sum(1).sqrt() if lead else exact
        out = clip_and_sum({"w": factors}, max_grad_norm=CLIP, present=torch.ones(2, 3, dtype=torch.bool))
        torch.testing.assert_close(out.norms.double(), exact, rtol=1e-5, atol=0)


def test_norms_of_large_gradients_lose_nothing_to_the_length_of_their_sum() -> None:
    """A running sum of many equal squares in fp32 falls behind."""
    value = torch.full((1, 1, 1536, 1536), 0.1)
    out = Gradients(value).squared_norms().double().sqrt()
    torch.testing.assert_close(out, value.double().flatten(1).norm()[None, None], rtol=1e-6, atol=0)


def precisions() -> list[str]:
    backends: list[Any] = [torch.backends.cuda, torch.backends.mkldnn]
    return [backend.matmul.fp32_precision for backend in backends]


@pytest.mark.parametrize("engine", ["bank", "opacus"])
@pytest.mark.parametrize("precision", ["high", "medium"])
def test_sums_stay_in_fp32_where_products_may_be_rounded(
    precision: str, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TF32 and bf16 keep three digits: sums made in them would pass the clip by one part in a thousand."""
    seen: list[list[str]] = []
    owner: Any = Factors if engine == "bank" else DPOptimizer
    name = "clipped_sum" if engine == "bank" else "clip_and_accumulate"
    sums = getattr(owner, name)
    monkeypatch.setattr(owner, name, lambda *args: (seen.append(precisions()), sums(*args))[1])
    before, product = torch.get_float32_matmul_precision(), opposite(SHAPES[1], 1.0, 0)
    torch.set_float32_matmul_precision(precision)
    allowed = precisions()
    try:
        if engine == "bank":
            clip_and_sum({"w": product}, max_grad_norm=CLIP, present=ONE)
        else:
            weight: Any = torch.nn.Parameter(torch.zeros(8, 384))
            weight.grad_sample = gradient(product).float()[0]
            dp = DPSettings(noise_multiplier=1.0, max_grad_norm=CLIP, expected_batch_size=1.0)
            ReferenceOptimizer(torch.optim.SGD([weight], lr=1.0), dp, 1.0, torch.zeros).clip_and_accumulate()
        assert seen == [["ieee", "ieee"]]
        assert precisions() == allowed != seen[0]
    finally:
        torch.set_float32_matmul_precision(before)
