"""Whether batches look drawn by Poisson sampling.

Right in as many cases as allowed, and not fooled by what is simpler to write.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from moo.core.errors import InputError
from moo.core.evidence import Ints
from moo.objectives.auditing.sampling import poisson_p_value

UNITS, STEPS = 200, 40
Sampler = Callable[[np.random.Generator, float], Sequence[Ints]]


def poisson(rng: np.random.Generator, q: float) -> Sequence[Ints]:
    return [np.flatnonzero(rng.random(UNITS) < q) for _ in range(STEPS)]


def fixed_size(rng: np.random.Generator, q: float) -> Sequence[Ints]:
    return [rng.choice(UNITS, round(q * UNITS), replace=False) for _ in range(STEPS)]


def shuffled(rng: np.random.Generator, q: float) -> Sequence[Ints]:
    """Epochs over a fresh order, cut into batches of one size."""
    epochs = math.ceil(STEPS * q)
    return [b for _ in range(epochs) for b in np.split(rng.permutation(UNITS), round(1 / q))][:STEPS]


def shuffled_in_uneven_batches(rng: np.random.Generator, q: float) -> Sequence[Ints]:
    """Sizes as Poisson sampling has them, units as an epoch has them: only their coming and their repeats tell."""
    stream = np.concatenate([rng.permutation(UNITS) for _ in range(math.ceil(2 * STEPS * q) + 1)])
    ends = np.cumsum(rng.binomial(UNITS, q, STEPS))
    return [np.unique(b) for b in np.split(stream, ends)[:STEPS]]


def always_the_same(rng: np.random.Generator, q: float) -> Sequence[Ints]:
    """Half of the units come twice as often, half never."""
    return [np.flatnonzero(rng.random(UNITS // 2) < 2 * q) for _ in range(STEPS)]


@pytest.mark.parametrize("q", [0.05, 0.25, 0.5])
def test_poisson_batches_are_doubted_no_more_often_than_the_p_value_says_and_about_as_often(q: float) -> None:
    """Three looks, the worst times three.

    P(p <= a) is at most a, and 1 - (1 - a / 3)^3 were they independent; 4 standard errors.
    """
    runs = 1500
    found = np.array(
        [poisson_p_value(poisson(np.random.default_rng(s), q), n_units=UNITS, sample_rate=q) for s in range(runs)]
    )
    for a in (0.05, 0.2, 0.5):
        independent = 1 - (1 - a / 3) ** 3
        slack = 4 * math.sqrt(a * (1 - a) / runs)
        assert 0.6 * independent - slack < (found <= a).mean() < a + slack


@pytest.mark.parametrize("sampler", [fixed_size, shuffled, shuffled_in_uneven_batches, always_the_same])
@pytest.mark.parametrize("q", [0.25, 0.5])
def test_batches_of_another_kind_are_refuted(sampler: Sampler, q: float) -> None:
    for seed in range(20):
        batches = sampler(np.random.default_rng(seed), q)
        assert poisson_p_value(batches, n_units=UNITS, sample_rate=q) < 1e-4


def test_another_rate_than_the_one_claimed_is_refuted() -> None:
    batches = poisson(np.random.default_rng(0), 0.3)
    assert poisson_p_value(batches, n_units=UNITS, sample_rate=0.25) < 1e-4


def test_everybody_in_every_batch_is_what_a_rate_of_one_says() -> None:
    whole = [np.arange(UNITS)] * 3
    assert poisson_p_value(whole, n_units=UNITS, sample_rate=1.0) == 1.0
    assert poisson_p_value([*whole, np.arange(UNITS - 1)], n_units=UNITS, sample_rate=1.0) == 0.0


def test_unfit_batches_are_refused_by_name() -> None:
    with pytest.raises(InputError, match="batches must have at least one step"):
        poisson_p_value([], n_units=3, sample_rate=0.5)
    with pytest.raises(InputError, match="n_units=2"):
        poisson_p_value([np.arange(3)], n_units=2, sample_rate=0.5)
    with pytest.raises(InputError, match="sample_rate"):
        poisson_p_value([np.arange(3)], n_units=3, sample_rate=1.5)
