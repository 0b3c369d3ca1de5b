"""Observed noise and batches: faults that withdraw the claim, and those that do not."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from moo.models.bank.bank import Depth, Frozen
from moo.models.bank.lightning_module import OptimizerSettings
from moo.models.dp.observed import StepObserver
from moo.models.dp.optimizer import BankOptimizer, DPSettings
from moo.models.dp.poisson_sampling import PoissonBatches
from moo.models.pretrained.architectures import cut_of
from moo.models.pretrained.loading import BaseModel
from moo.models.reference.optimizer import ReferenceOptimizer
from moo.models.train import TrainingData, TrainingSettings, train
from moo.privacy.claims import HOLDS, claim
from moo.privacy.events import TrainingRun
from moo.privacy.observed_sampling import POISSON, Drawn, _spread
from moo.studies.trial.plan import observed_run
from tests.fixtures.trainings import data_at, stream

RATE, STEPS, NOISE, CLIP = 0.5, 12, 0.7, 0.2
Claimed = Callable[..., str]


@pytest.fixture(params=["bank", "opacus"])
def claimed(request: pytest.FixtureRequest, family: Callable[[str], BaseModel]) -> Claimed:
    """Train two shadows at one adapted layer, and return the claim of what was seen."""
    base = family("bert")
    data, frozen = data_at(base, cut_of(base.model, adapted_layers=1), per_unit=2)
    return lambda **changes: _claim(data, frozen, engine=request.param, **changes)


def _claim(data: TrainingData, frozen: Frozen, *, engine: Any, noise: float = NOISE, steps: int = STEPS) -> str:
    n_units = int(data.units.max() + 1) // 2
    run = TrainingRun(
        sample_rate=RATE,
        steps=steps,
        noise_multiplier=NOISE,
        max_grad_norm=CLIP,
        delta=1e-3,
        n_units=n_units,
        unit="user",
    )
    settings = TrainingSettings(
        depth=Depth(adapted_layers=1),
        lora_rank=2,
        lora_alpha=4.0,
        sample_rate=RATE,
        steps=steps,
        engine=engine,
        dp=DPSettings(noise_multiplier=noise, max_grad_norm=CLIP, expected_batch_size=RATE * n_units),
        accelerator="cpu",
        optimizer=OptimizerSettings(learning_rate=1e-3, head_learning_rate=0.05),
    )
    trained = train(data, settings, frozen, stream)
    done = observed_run(run, trained)
    assert done.zero_noise_steps == trained.steps - trained.noisy_steps or noise < NOISE
    return claim(done)


def test_the_claim_of_an_untouched_run_holds(claimed: Claimed) -> None:
    assert claimed() == HOLDS


@pytest.mark.parametrize("tensor", ["head.weight", "head.bias", "lora_A", "lora_B"])
@pytest.mark.parametrize("left", [0.0, 0.1])
def test_a_tensor_without_its_noise_withdraws_the_claim_by_name(
    claimed: Claimed, monkeypatch: pytest.MonkeyPatch, tensor: str, left: float
) -> None:
    found = re.compile(tensor.replace(".", "[._]"), re.IGNORECASE)
    for optimizer in (BankOptimizer, ReferenceOptimizer):

        def quieter(self: Any, add: Any = optimizer.add_noise) -> None:
            add(self)
            for name, p in zip(self._names, self.params, strict=True):
                if found.search(name):
                    p.grad = p.summed_grad.view_as(p) + left * (p.grad - p.summed_grad.view_as(p))

        monkeypatch.setattr(optimizer, "add_noise", quieter)
    told = claimed()
    assert re.search(rf"^withdrawn because {STEPS} steps ran without noise or with less than claimed on ", told)
    named = told.split(" on ")[1].split(", ")
    assert named
    assert all(found.search(name) for name in named)


def test_less_noise_than_the_event_claims_withdraws_the_claim_though_the_engine_did_as_asked(claimed: Claimed) -> None:
    assert "on every tensor" in claimed(noise=0.99 * NOISE)


def of_one_size(self: PoissonBatches, shadow: int) -> NDArray[np.int64]:
    half = self._halves[shadow]
    return self._generators[shadow].permutation(half)[: len(half) // 2]


def by_turns(self: PoissonBatches, shadow: int) -> NDArray[np.int64]:
    """Epochs over one order, in two batches of about half."""
    turns = vars(self).setdefault("turns", {})
    turns[shadow] = turns.get(shadow, 0) + 1
    return self._halves[shadow][turns[shadow] % 2 :: 2]


@pytest.mark.parametrize("drawn", [of_one_size, by_turns])
def test_batches_that_are_not_poisson_withdraw_the_claim(
    claimed: Claimed, monkeypatch: pytest.MonkeyPatch, drawn: Any
) -> None:
    monkeypatch.setattr(PoissonBatches, "_chosen", drawn)
    told = claimed(steps=2 * STEPS)
    assert re.search("batches were (of nearly one size|shuffled), not drawn by Poisson sampling", told)


def drawn_by(rng: np.random.Generator, batches: Callable[[np.random.Generator], NDArray[np.bool_]], k: int) -> Drawn:
    came = [batches(rng) for _ in range(k)]
    return Drawn(sizes=tuple(c.sum(1) for c in came), times=tuple(c.sum(0) for c in came))


@pytest.mark.parametrize(
    ("n", "steps", "rate"), [(150, 8, 0.5), (12, 25, 0.05), (400, 3, 0.9), (1, 1, 0.5), (60, 25, 1.0)]
)
def test_poisson_sampling_is_never_taken_for_another(n: int, steps: int, rate: float) -> None:
    rng = np.random.default_rng(0)
    for _ in range(60):
        assert drawn_by(rng, lambda r: r.random((steps, n)) < rate, 4).sampler(rate) == POISSON


def test_bounds_of_the_spread_are_no_smaller_than_how_often_they_are_reached() -> None:
    rng = np.random.default_rng(1)
    found = np.array([_spread([(30, rng.binomial(30, 0.3, 40))], 0.3) for _ in range(2000)])
    for side in (0, 1):
        for p in (0.5, 0.1, 0.02):
            assert (found[:, side] <= np.log(p)).mean() <= p


@pytest.mark.parametrize(
    ("batches", "says"),
    [
        (lambda r: r.random((25, 200)).argsort(1) < 100, "of nearly one size"),
        (lambda r: (r.random((25, 200)) < 0.5) & (np.arange(25) % 4 > 0)[:, None], "at a rate of 0."),
        (
            lambda r: r.random((25, 200)) < np.where(np.arange(25) % 2, 0.9, 0.1)[:, None],
            "of sizes that differ too much",
        ),
        (lambda r: r.random((25, 200)) < np.where(np.arange(200) % 2, 0.9, 0.1), "drawn unevenly among the units"),
        (lambda r: shuffled_in_uneven_batches(r, 200), "shuffled"),
    ],
)
def test_other_ways_of_drawing_are_named(batches: Any, says: str) -> None:
    for seed in range(5):
        assert says in drawn_by(np.random.default_rng(seed), batches, 4).sampler(0.5)


def shuffled_in_uneven_batches(rng: np.random.Generator, n: int) -> NDArray[np.bool_]:
    """Sizes as Poisson sampling has them, units as epochs over a shuffled order have them."""
    ends = np.cumsum(rng.binomial(n, 0.5, 25))
    stream_of = np.concatenate([rng.permutation(n) for _ in range(20)])
    came = np.zeros((25, n), bool)
    for step, units in enumerate(np.split(stream_of, ends)[:25]):
        came[step, units] = True
    return came


def test_units_of_the_other_half_are_seen() -> None:
    dp = DPSettings(noise_multiplier=1.0, max_grad_norm=1.0, expected_batch_size=1.0)
    units = np.arange(6)
    observer = StepObserver(units, (units < 3)[None], dp)
    batches = PoissonBatches(
        units=units,
        lengths=np.ones(6, np.int64),
        members=np.ones((1, 6), bool),
        sample_rate=1.0,
        steps=2,
        generators=[np.random.default_rng(0)],
    )
    for batch in batches:
        observer.count_batch(batch)
        observer.check_noise([("weight", slice(0, 1), torch.randn(1, 50), torch.zeros(1, 50))])
    assert observer.observed().drawn.outside == 6
    assert "not trained on" in observer.observed().drawn.sampler(1.0)


def test_counts_go_on_from_a_checkpoint_as_if_it_had_not_been() -> None:
    dp = DPSettings(noise_multiplier=(1.0, 0.5), max_grad_norm=2.0, expected_batch_size=1.0)
    units, members = np.arange(6), np.array([[True] * 3 + [False] * 3, [False] * 3 + [True] * 3])
    batches = PoissonBatches(
        units=units,
        lengths=np.ones(6, np.int64),
        members=members,
        sample_rate=0.5,
        steps=4,
        generators=[np.random.default_rng(i) for i in range(2)],
    )
    whole, first, then = (StepObserver(units, members, dp) for _ in range(3))
    noise = torch.randn(2, 5, 3) * torch.tensor([2.0, 0.0])[:, None, None]
    for step, batch in enumerate(batches):
        if step == 2:
            then.resume(first.state())
        for observer in (whole, first if step < 2 else then):
            observer.count_batch(batch)
            observer.check_noise([("lora_a", slice(0, 2), noise, torch.zeros_like(noise))])
    one, other = whole.observed(), then.observed()
    assert (one.steps, one.noisy_steps, one.bare) == (other.steps, other.noisy_steps, other.bare) == (4, 0, "lora_a")
    for a, b in zip((*one.drawn.sizes, *one.drawn.times), (*other.drawn.sizes, *other.drawn.times), strict=True):
        assert np.array_equal(a, b)
