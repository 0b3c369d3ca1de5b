"""The audit against a trade-off curve: published values, a linear program as oracle, and how often it is wrong."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from moo.core.errors import InputError
from moo.objectives.auditing.audit import one_run_epsilon
from moo.objectives.auditing.one_run import LADDER, Guessed, curve_epsilon, curve_p_value, guess, ladder, refutes
from moo.privacy.tradeoff import GaussianCurve, approximate_dp, gaussian_dp


def program(m: int, r: int, v: int, epsilon: float, delta: float) -> float:
    """The oracle.

    The largest P(at least v right) among all laws of the count that Theorem 8 allows, by linear
    programming.
    """
    j = np.arange(r + 1)
    rows, bounds = [], []
    for i in range(r):
        above, left = np.where(j >= i + 1, j / m, 0.0), np.where(j >= i, (r - j) / m, 0.0)
        rows += [above - math.exp(epsilon) * left, above - math.exp(-epsilon) * left]
        bounds += [delta, 1 - math.exp(-epsilon) * (1 - delta)]
    tail = (j >= v).astype(float)
    return float(tail @ linprog(-tail, A_ub=np.array(rows), b_ub=bounds, A_eq=[np.ones(r + 1)], b_eq=[1]).x)


@pytest.mark.parametrize(
    ("m", "r", "v", "epsilon", "delta"),
    [
        (100, 100, 75, 0.5, 1e-3),
        (100, 100, 60, 0.2, 1e-5),
        (50, 20, 16, 0.5, 1e-2),
        (50, 20, 20, 1.0, 0.0),
        (200, 40, 33, 1.0, 1e-4),
        (30, 30, 16, 0.0, 0.0),
        (60, 24, 13, 2.0, 0.1),
    ],
)
def test_the_p_value_is_the_optimum_of_a_linear_program(m: int, r: int, v: int, epsilon: float, delta: float) -> None:
    found = curve_p_value(Guessed(canaries=m, guesses=r, correct=v), approximate_dp(epsilon, delta))
    assert found == pytest.approx(program(m, r, v, epsilon, delta), rel=1e-7, abs=1e-9)


@pytest.mark.parametrize(
    ("guesses", "correct", "tried", "bound"), [(406, 379, 386, 2.164749), (938, 934, 374, 4.7218075)]
)
def test_the_bound_is_the_one_published_with_jax_privacy(guesses: int, correct: int, tried: int, bound: float) -> None:
    """Its test of Gaussian scores, 10,000 in and as many out, delta 1e-6, 5 % shared among the
    thresholds that it tries.
    """
    found = Guessed(canaries=20_000, guesses=guesses, correct=correct)
    assert curve_epsilon(found, delta=1e-6, confidence=1 - 0.05 / tried) == pytest.approx(bound, abs=2e-4)


def gaussian_scores(rng: np.random.Generator, m: int, mu: float) -> tuple[np.ndarray, np.ndarray]:
    included = rng.random(m) < 0.5
    return mu * included + rng.standard_normal(m), included


@pytest.mark.parametrize("mu", [0.5, 2.0])
def test_the_true_curve_is_refuted_in_no_more_runs_than_allowed(mu: float) -> None:
    """Every canary a Gaussian mechanism of its own: the curve cannot be worse than true, whatever the share guessed."""
    rng, runs, beta = np.random.default_rng(0), 1500, 0.1
    wrong = 0
    for _ in range(runs):
        tried = ladder(*gaussian_scores(rng, 300, mu))
        wrong += any(refutes(g, GaussianCurve(mu=mu), beta=beta / len(LADDER)) for g in tried)
    assert wrong <= beta * runs


def test_at_the_gaussian_it_is_tighter_than_the_audit_of_epsilon_and_delta() -> None:
    rng, delta, ours, theirs = np.random.default_rng(1), 1e-5, [], []
    true = 4.3772  # of mu = 1 at that delta
    assert gaussian_dp(true, delta).mu == pytest.approx(1.0, abs=2e-4)
    for _ in range(20):
        found = guess(*gaussian_scores(rng, 2000, 1.0), 600)
        ours.append(curve_epsilon(found, delta=delta))
        theirs.append(one_run_epsilon(canaries=2000, guesses=found.guesses, correct=found.correct, delta=delta))
    assert sum(o > true for o in ours) <= 2
    assert all(o > 1.4 * t for o, t in zip(ours, theirs, strict=True))
    assert np.mean(ours) > 0.5 * true


def test_with_epsilon_and_delta_alone_it_is_valid_at_randomised_response() -> None:
    """Each canary's coin is told rightly with probability e^epsilon / (1 + e^epsilon): the worst that
    pure epsilon allows.
    """
    rng, epsilon, runs = np.random.default_rng(2), 1.0, 2000
    right = rng.binomial(200, 1 / (1 + math.exp(-epsilon)), runs)
    curve = approximate_dp(epsilon, 0.0)
    counts = {v: refutes(Guessed(canaries=200, guesses=200, correct=v), curve, beta=0.1) for v in set(right.tolist())}
    assert 0.05 * runs < sum(counts[v] for v in right.tolist()) <= 0.125 * runs  # 10 %, less what counts round away


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 60), st.integers(0, 59), st.floats(0.1, 3.0))
def test_more_right_guesses_refute_more_and_a_worse_curve_is_refuted_less(r: int, wrong: int, mu: float) -> None:
    v = max(0, r - wrong)
    found = Guessed(canaries=100, guesses=r, correct=v)
    p = curve_p_value(found, GaussianCurve(mu=mu))
    assert curve_p_value(found, GaussianCurve(mu=1.5 * mu)) >= p * (1 - 1e-9)
    if v < r:
        assert curve_p_value(Guessed(canaries=100, guesses=r, correct=v + 1), GaussianCurve(mu=mu)) <= p * (1 + 1e-9)


def test_guessing_at_random_refutes_nothing() -> None:
    half = Guessed(canaries=1000, guesses=1000, correct=500)
    assert curve_epsilon(half, delta=1e-5) == 0.0
    assert curve_p_value(half, GaussianCurve(mu=0.1)) == 1.0


def test_the_highest_scores_are_guessed_in_and_the_lowest_out() -> None:
    scores = np.array([5.0, 4.0, 3.0, 2.0, 1.0, 0.0])
    included = np.array([True, False, True, False, True, False])
    assert guess(scores, included, 2) == Guessed(canaries=6, guesses=2, correct=2)
    assert guess(scores, included, 5) == Guessed(canaries=6, guesses=4, correct=2)  # made even
    assert [g.guesses for g in ladder(np.arange(100.0), np.arange(100) % 2 == 0)] == [10, 34, 100]


COINS = np.array([True, False, True, False])


@pytest.mark.parametrize(
    ("scores", "included", "n", "message"),
    [
        (np.array([1.0, np.nan, 0.0, 2.0]), COINS, 2, "scores must have no NaN"),
        (np.arange(4.0), np.ones(4, bool), 2, "included must have canaries on both sides"),
        (np.arange(4.0), np.zeros(4, bool), 2, "included must have canaries on both sides"),
        (np.arange(3.0), COINS, 2, "scores must have shape"),
        (np.arange(4.0), COINS, 6, "n_guesses"),
        (np.arange(4.0), COINS, 0, "n_guesses"),
        (np.arange(0.0), np.zeros(0, bool), 2, "included"),
    ],
)
def test_unfit_guesses_are_refused_by_name(scores: np.ndarray, included: np.ndarray, n: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        guess(scores, included, n)


def test_unfit_counts_and_levels_are_refused_by_name() -> None:
    with pytest.raises(InputError, match="correct <= guesses"):
        refutes(Guessed(canaries=10, guesses=5, correct=6), GaussianCurve(mu=1.0), beta=0.05)
    with pytest.raises(InputError, match="canaries >= 1"):
        curve_p_value(Guessed(canaries=0, guesses=0, correct=0), GaussianCurve(mu=1.0))
    with pytest.raises(InputError, match="beta"):
        refutes(Guessed(canaries=10, guesses=5, correct=5), GaussianCurve(mu=1.0), beta=1.0)
    with pytest.raises(InputError, match="confidence"):
        curve_epsilon(Guessed(canaries=10, guesses=5, correct=5), delta=1e-5, confidence=1.0)
