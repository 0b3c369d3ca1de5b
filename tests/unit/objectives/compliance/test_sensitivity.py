"""The front under other weights against a loop over weightings, and the likeness of penalty and risk."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moo.core.errors import InputError
from moo.objectives.compliance import evaluate
from moo.objectives.compliance.sensitivity import alike, domain_scores, kept_on_front


def naive(
    scores: list[list[float]], others: list[list[float]], allowed: list[bool], limit: float, draws: int
) -> list[float]:
    kept = [0] * len(scores)
    for weights in np.random.default_rng(0).dirichlet(np.ones(len(scores[0])), draws):
        values = [[*o, float(np.dot(weights, s))] for o, s in zip(others, scores, strict=True)]
        inside = [i for i, v in enumerate(values) if allowed[i] and v[-1] <= limit]
        for i in inside:
            beaten = any(
                all(a <= b for a, b in zip(values[j], values[i], strict=True)) and values[j] != values[i]
                for j in inside
            )
            kept[i] += not beaten
    return [n / draws for n in kept]


@given(st.integers(1, 7), st.integers(1, 4), st.integers(0, 10_000))
@settings(deadline=None, max_examples=25)
def test_shares_are_those_of_a_loop_over_weightings(n: int, d: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores, others, allowed = rng.random((n, d)), rng.random((n, 2)), rng.random(n) < 0.8
    fast = kept_on_front(scores, others, allowed, max_penalty=0.6, draws=40)
    assert fast.tolist() == naive(scores.tolist(), others.tolist(), allowed.tolist(), 0.6, 40)


def test_a_point_that_weights_cannot_move_is_always_or_never_kept() -> None:
    scores = np.array([[0.1, 0.1], [0.2, 0.2], [0.9, 0.0], [0.1, 0.1]])
    others = np.array([[0.2, 0.1], [0.3, 0.2], [0.1, 0.3], [0.2, 0.1]])
    allowed = np.array([True, True, True, False])
    kept = kept_on_front(scores, others, allowed, max_penalty=0.45, draws=4000)
    assert kept[0] == 1.0  # the same penalty under any weights
    assert kept[1] == 0.0  # dominated under any weights
    assert kept[2] == pytest.approx(0.5, abs=0.03)  # within the limit where the first domain weighs less than a half
    assert kept[3] == 0.0  # breaks another limit


def test_domains_carry_their_largest_score() -> None:
    rows: list[tuple[Mapping[str, Any], ...]] = [
        evaluate({"masking.direct_misses_ucb_per_1000": 1.0, "masking.small_group_share": 0.02}).contributions,
        evaluate({}).contributions,
    ]
    names, scores = domain_scores(rows)
    assert names == ("behaviour", "dp_guarantee", "identifiability", "minimisation", "sensitive")
    assert scores[0, names.index("identifiability")] == pytest.approx(0.5)
    assert scores[1].tolist() == [1.0] * 5
    assert domain_scores([])[1].shape == (0, 0)


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InputError, match="scores"):
        kept_on_front(np.zeros((2, 0)), np.zeros((2, 2)), np.ones(2, dtype=bool), max_penalty=1.0)
    with pytest.raises(InputError, match="scores"):
        kept_on_front(np.zeros((2, 1)), np.zeros((3, 2)), np.ones(2, dtype=bool), max_penalty=1.0)


def test_likeness_is_pearsons_and_says_nothing_of_few_or_equal_trials() -> None:
    x = [0.1, 0.2, 0.3, 0.4, 0.6]
    assert alike(x, [2 * v + 1 for v in x]) == pytest.approx(1.0)
    assert alike(x, [-v for v in x]) == pytest.approx(-1.0)
    assert alike([1, 2, 3, 4, 5], [1, -1, 1, -1, 1]) == pytest.approx(0.0)
    assert math.isnan(alike(x[:4], x[:4]))
    assert math.isnan(alike(x, [0.5] * 5))
