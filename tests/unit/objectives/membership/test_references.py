"""LiRA, RMIA, BASE, one-run audit and exposure against naive oracles written from the papers, and what
each does at no leak.
"""

import math

import numpy as np
import pytest
from scipy.stats import binom, norm

from moo.core.errors import InputError
from moo.core.evidence import Bools, Floats
from moo.objectives.auditing.audit import one_run_epsilon, one_run_p_value
from moo.objectives.membership.attacks.references import base, lira_offline, lira_online, logit_confidence, rmia_offline
from moo.objectives.membership.uncertainty import shadow_aucs
from moo.objectives.memorisation.exposure import exposure


def drawn(k: int, n: int, seed: int, effect: float = 0.0) -> tuple[Floats, Bools]:
    """Losses with a mean and a skewed noise of each text's own, and complementary pairs."""
    rng = np.random.default_rng(seed)
    members = np.stack([side for row in rng.random((k // 2, n)) < 0.5 for side in (row, ~row)])
    hard, wide = rng.gamma(2.0, 0.5, n), rng.gamma(2.0, 0.2, n)
    losses = hard + wide * rng.gamma(2.0, 1.0, (k, n)) - effect * wide * members
    return np.maximum(losses, 1e-3), members


def others(k: int, shadow: int) -> list[int]:
    return [i for i in range(k) if i // 2 != shadow // 2]


def logit(loss: float) -> float:
    p = math.exp(-loss)
    return math.log(p / (1 - p))


def naive_pooled(values: Floats, members: Bools, side: bool) -> float:
    k, n = values.shape
    squares = spare = 0.0
    for pair in range(k // 2):
        for x in range(n):
            refs = [values[i, x] for i in others(k, 2 * pair) if members[i, x] == side]
            squares += sum((r - np.mean(refs)) ** 2 for r in refs)
            spare += len(refs) - 1
    return math.sqrt(squares / spare)


@pytest.mark.parametrize(("k", "fixed"), [(6, True), (8, True), (8, False), (12, False)])
def test_lira_agrees_with_the_paper_written_out(k: int, fixed: bool) -> None:
    losses, members = drawn(k, 30, 0, effect=1.0)
    values = np.vectorize(logit)(losses)
    offline, online = (f(losses, members, fixed_variance=fixed) for f in (lira_offline, lira_online))
    pooled = {side: naive_pooled(values, members, side) for side in (True, False)}
    for shadow in range(k):
        for x in range(30):
            refs = {s: [values[i, x] for i in others(k, shadow) if members[i, x] == s] for s in (True, False)}
            sd = {s: pooled[s] if fixed else float(np.std(refs[s], ddof=1)) for s in (True, False)}
            mean = {s: float(np.mean(refs[s])) for s in (True, False)}
            z = (values[shadow, x] - mean[False]) / sd[False]
            ratio = norm.logpdf(values[shadow, x], mean[True], sd[True])
            ratio -= norm.logpdf(values[shadow, x], mean[False], sd[False])
            assert offline[shadow, x] == pytest.approx(z, rel=1e-9, abs=1e-9)
            assert online[shadow, x] == pytest.approx(ratio, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize(("scale", "gamma"), [(0.3, 1.0), (1.0, 2.0)])
def test_rmia_agrees_with_the_paper_written_out(scale: float, gamma: float) -> None:
    losses, members = drawn(6, 25, 1, effect=1.0)
    population, _ = drawn(6, 40, 2)
    found = rmia_offline(losses, members, population, scale=scale, gamma=gamma)

    def ratio(row: Floats, shadow: int, refs: list[int]) -> float:
        out = np.mean([math.exp(-row[i]) for i in refs])
        return float(math.exp(-row[shadow]) / (0.5 * ((1 + scale) * out + (1 - scale))))

    for shadow in range(6):
        unseen = [ratio(population[:, z], shadow, others(6, shadow)) for z in range(40)]
        for x in range(25):
            mine = ratio(losses[:, x], shadow, [i for i in others(6, shadow) if not members[i, x]])
            assert found[shadow, x] == pytest.approx(np.mean([mine / z >= gamma for z in unseen]), abs=1e-9)


def test_base_agrees_with_the_paper_written_out() -> None:
    losses, members = drawn(6, 25, 3, effect=1.0)
    found = base(losses, members)
    for shadow in range(6):
        for x in range(25):
            mean = np.mean([math.exp(-losses[i, x]) for i in others(6, shadow)])
            assert found[shadow, x] == pytest.approx(-losses[shadow, x] - math.log(mean), rel=1e-9)


ATTACKS = {
    "lira offline": lira_offline,
    "lira online": lira_online,
    "base": base,
    "rmia": lambda losses, members: rmia_offline(losses, members, drawn(len(losses), 300, 99)[0]),
}


@pytest.mark.parametrize("name", sorted(ATTACKS))
@pytest.mark.parametrize("k", [4, 8])
def test_nothing_is_found_where_nothing_leaks_and_something_where_it_does(name: str, k: int) -> None:
    """Skewed, text-specific noise: what made plain leave-one-out score .514 to .520 without any leak."""
    null = [float(shadow_aucs(ATTACKS[name](*m), m[1]).mean()) for m in (drawn(k, 400, s) for s in range(60))]
    assert abs(np.mean(null) - 0.5) < 3.5 * np.std(null) / math.sqrt(len(null))
    losses, members = drawn(k, 2000, 7, effect=1.5)
    assert shadow_aucs(ATTACKS[name](losses, members), members).mean() > 0.56


def test_confidence_of_nearly_no_loss_stays_finite() -> None:
    values = logit_confidence(np.array([0.0, 1e-300, 1.0, 700.0]))
    assert np.isfinite(values).all()
    assert values[2] == pytest.approx(logit(1.0))


def test_bad_input_names_its_argument() -> None:
    losses, members = drawn(4, 20, 0)
    with pytest.raises(InputError, match="K >= 8"):
        lira_offline(losses, members, fixed_variance=False)
    with pytest.raises(InputError, match="losses must have no NaN"):
        base(np.where(members, np.nan, losses), members)
    with pytest.raises(InputError, match="population"):
        rmia_offline(losses, members, losses[:, :0])
    with pytest.raises(InputError, match="scale"):
        rmia_offline(losses, members, losses, scale=2.0)
    with pytest.raises(InputError, match="members"):
        lira_online(losses, np.ones_like(members))


@pytest.mark.parametrize(
    ("canaries", "guesses", "correct", "delta", "bound"),
    [(1000, 100, 75, 1e-4, 0.673), (100, 100, 75, 1e-4, 0.699), (100_000, 1510, 1439, 1e-5, 2.675)],
)
def test_the_one_run_audit_gives_the_published_bounds(
    canaries: int, guesses: int, correct: int, delta: float, bound: float
) -> None:
    found = one_run_epsilon(canaries=canaries, guesses=guesses, correct=correct, delta=delta)
    assert found == pytest.approx(bound, abs=1e-3)


def naive_p_value(m: int, r: int, v: int, epsilon: float, delta: float) -> float:
    """Theorem 5.2: the binomial tail, and delta's part of it by the largest mean over the counts just below."""
    right = 1 / (1 + math.exp(-epsilon))
    beta = sum(math.comb(r, i) * right**i * (1 - right) ** (r - i) for i in range(v, r + 1))
    pmf = binom.pmf(np.arange(v), r, right).tolist()
    alpha = max((sum(pmf[v - j] for j in range(1, i + 1)) / i for i in range(1, v + 1)), default=0.0)
    return float(min(1.0, beta + 2 * m * delta * alpha))


def test_the_one_run_p_value_agrees_with_a_loop() -> None:
    for epsilon, m, r, v in [(0.5, 200, 80, 60), (2.0, 50, 50, 47), (0.0, 30, 10, 0)]:
        found = one_run_p_value(canaries=m, guesses=r, correct=v, epsilon=epsilon, delta=1e-3)
        assert found == pytest.approx(naive_p_value(m, r, v, epsilon, 1e-3), abs=1e-9)


def test_an_audit_of_guessing_refutes_nothing_and_one_of_certainty_is_bounded_by_its_canaries() -> None:
    assert one_run_epsilon(canaries=1000, guesses=1000, correct=500, delta=1e-5) == 0.0
    assert one_run_epsilon(canaries=1000, guesses=1000, correct=1000, delta=0.0) == pytest.approx(5.8, abs=0.03)
    with pytest.raises(InputError, match="correct <= guesses"):
        one_run_epsilon(canaries=10, guesses=5, correct=6, delta=0.0)


def naive_bound(m: int, r: int, v: int, delta: float) -> float:
    """Where the loop's p-value is .05, by halving."""
    low, high = 0.0, 100.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if naive_p_value(m, r, v, middle, delta) < 0.05 else (low, middle)
    return low


@pytest.mark.parametrize(("m", "r", "v", "delta"), [(200, 80, 60, 1e-3), (50, 50, 47, 0.0), (300, 100, 80, 1e-5)])
def test_the_one_run_bound_agrees_with_a_loop(m: int, r: int, v: int, delta: float) -> None:
    found = one_run_epsilon(canaries=m, guesses=r, correct=v, delta=delta)
    assert found == pytest.approx(naive_bound(m, r, v, delta), abs=2e-9)


@pytest.mark.parametrize("seed", range(4))
def test_exposure_agrees_with_the_paper_written_out(seed: int) -> None:
    """Definition 4 and section 4.2.

    Log2 of the candidates less log2 of the canary's rank, itself a candidate; with ties.
    """
    rng = np.random.default_rng(seed)
    canaries, rest = np.round(rng.gamma(2.0, 3.0, 30), 1), np.round(rng.gamma(2.0, 3.0, 700), 1)
    found = exposure(canaries, rest)
    for mine, bits in zip(canaries, found, strict=True):
        candidates = [mine, *rest]
        rank = sum(other <= mine for other in candidates)
        assert bits == pytest.approx(math.log2(len(candidates)) - math.log2(rank), abs=1e-9)


def test_exposure_is_the_lost_rank_in_bits() -> None:
    rest = np.arange(1, 1024, dtype=float)
    assert exposure(np.array([0.0]), rest)[0] == pytest.approx(10.0)
    assert exposure(np.array([5000.0]), rest)[0] == pytest.approx(0.0)
    assert exposure(np.array([1.0]), rest)[0] == pytest.approx(9.0)  # tied: behind
    rng = np.random.default_rng(0)
    untrained = exposure(rng.normal(size=4000), rng.normal(size=1023))
    assert untrained.mean() == pytest.approx(1 / math.log(2), abs=0.1)  # 1.44 bits where nothing was learnt
    with pytest.raises(InputError, match="other_losses"):
        exposure(np.array([1.0]), np.array([]))
