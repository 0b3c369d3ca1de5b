"""Fronts, volumes and probabilities against naive oracles."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from moo.core.errors import InputError
from moo.pareto import (
    hypervolume,
    knee,
    non_dominated,
    probability_feasible,
    probability_non_dominated,
    running_hypervolume,
)

Points = NDArray[np.float64]
clouds = st.lists(st.tuples(*[st.integers(0, 4)] * 3), min_size=1, max_size=12).map(lambda p: np.array(p, float) / 4)


def dominates(a: Points, b: Points) -> bool:
    return bool((a <= b).all() and (a < b).any())


@given(clouds)
def test_non_dominated_is_the_definition(points: Points) -> None:
    naive = [not any(dominates(other, p) for other in points) for p in points]
    assert non_dominated(points).tolist() == naive


@given(clouds)
def test_hypervolume_is_the_share_of_grid_cells_that_a_point_dominates(points: Points) -> None:
    centres = np.stack(np.meshgrid(*[(np.arange(5) + 0.5) / 4] * 3), -1).reshape(-1, 3)
    covered = (points[:, None] <= centres[None]).all(-1).any(0)
    assert hypervolume(points, (1.25, 1.25, 1.25)) == pytest.approx(covered.sum() / 64)


def test_hypervolume_never_falls_and_ignores_what_is_infeasible() -> None:
    rng = np.random.default_rng(0)
    points, feasible = rng.random((20, 3)), rng.random(20) < 0.5
    running = running_hypervolume(points, feasible, (1, 1, 1))
    assert (np.diff(running) >= 0).all()
    assert running[-1] == pytest.approx(hypervolume(points[feasible], (1, 1, 1)))


def test_nan_is_refused_and_nothing_gives_nothing() -> None:
    with pytest.raises(InputError, match="NaN"):
        non_dominated(np.array([[math.nan, 0.0]]))
    assert non_dominated(np.zeros((0, 3))).tolist() == []
    assert hypervolume(np.zeros((0, 3)), (1, 1, 1)) == 0.0


def test_probability_non_dominated_of_two_points_is_the_closed_form() -> None:
    """In one dimension the smaller wins: P = Phi(gap / sqrt(s1^2 + s2^2))."""
    means, errors = np.array([[0.0], [0.1]]), np.array([[0.1], [0.1]])
    first, second = probability_non_dominated(means, errors, draws=4000, rng=np.random.default_rng(0))
    expected = 0.5 * (1 + math.erf(0.1 / math.sqrt(0.02) / math.sqrt(2)))
    assert first == pytest.approx(expected, abs=0.03)
    assert first + second == pytest.approx(1.0)


def test_without_error_probabilities_are_certain() -> None:
    points = np.array([[0.0, 0.0], [1.0, 1.0]])
    certain = probability_non_dominated(points, np.zeros_like(points), draws=5, rng=np.random.default_rng(0))
    assert certain.tolist() == [1.0, 0.0]
    assert probability_feasible(points, np.zeros_like(points), [0.5, 0.5]).tolist() == [1.0, 0.0]


def test_probability_feasible_is_the_product_of_normal_tails() -> None:
    found = probability_feasible(np.array([[0.1, 0.2]]), np.array([[0.05, 0.1]]), [0.1, 0.3])
    assert found[0] == pytest.approx(0.5 * 0.5 * (1 + math.erf(1 / math.sqrt(2))))


def test_knee_takes_the_balanced_point_and_does_not_depend_on_units() -> None:
    points = np.array([[0.0, 1.0], [0.3, 0.3], [1.0, 0.0]])
    assert knee(points, ("a", "b")).index == 1
    assert knee(points * [1000, 0.001], ("a", "b")).index == 1
    assert "only feasible" in knee(points[:1], ("a", "b")).reason
    with pytest.raises(InputError, match="at least one point"):
        knee(points[:0], ("a", "b"))


def test_a_range_within_the_noise_decides_nothing() -> None:
    """In b the points differ by .01 with errors of .02: without them b costs the first point a whole range."""
    points = np.array([[0.0, 0.31], [0.6, 0.30], [1.0, 0.305]])
    exact, errors = np.zeros_like(points), np.full_like(points, 0.02)
    assert knee(points, ("a", "b")).index == knee(points, ("a", "b"), (), exact).index == 1
    noisy = knee(points, ("a", "b"), (), errors)
    assert noisy.index == 0
    assert noisy.reason.endswith(
        "a 0 %, b 18 %; b: twice the error of a difference stands for the range, which is less"
    )
    assert "stands for" not in knee(points, ("a", "b"), (), errors / 10).reason
    assert "stands for" not in knee(points[:, :1].repeat(2, 1), ("a", "b"), (1, 2), errors).reason
    missing = np.where(points == points, np.nan, errors)  # errors that were not assessed
    assert knee(points, ("a", "b"), (), missing).index == 1


@given(clouds, st.tuples(*[st.integers(0, 5)] * 3).filter(any))
def test_a_weighed_knee_is_the_nearest_of_the_stretched_points(points: Points, weights: tuple[int, int, int]) -> None:
    low, high = points.min(0), points.max(0)
    unit = [[(v - a) / (b - a) if b > a else 0.0 for v, a, b in zip(p, low, high, strict=True)] for p in points]
    naive = [math.dist([w * u for w, u in zip(weights, p, strict=True)], (0, 0, 0)) for p in unit]
    index = knee(points, ("a", "b", "c"), weights).index
    assert naive[index] == pytest.approx(min(naive))
    assert knee(points, ("a", "b", "c"), [3 * w for w in weights]).index == index
    assert knee(points, ("a", "b", "c"), (2, 2, 2)).index == knee(points, ("a", "b", "c")).index


def test_weights_move_the_knee_and_are_said() -> None:
    points = np.array([[0.0, 1.0], [0.3, 0.3], [1.0, 0.0]])
    assert knee(points, ("a", "b"), (9, 1)).index == 0
    assert knee(points, ("a", "b"), (0, 1)).index == 2
    assert (
        "weighed a 0, b 1; it gives up, of the front's range: a 100 %, b 0 %" in knee(points, ("a", "b"), (0, 1)).reason
    )
    assert "weighed" not in knee(points, ("a", "b")).reason
    for unfit in ((1.0,), (1.0, -1.0), (0.0, 0.0), (math.nan, 1.0), (math.inf, 1.0)):
        with pytest.raises(InputError, match="weights must be 2 numbers >= 0"):
            knee(points, ("a", "b"), unfit)
