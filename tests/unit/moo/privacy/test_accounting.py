"""Accounting against closed forms and published values, keys that stay secret, claims that are withdrawn."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.stats import norm

from moo.core.errors import InputError
from moo.core.trial_record import Transformation
from moo.privacy.calibration import calibrate_noise, check_delta
from moo.privacy.claims import HOLDS, claim
from moo.privacy.composition import compose_epsilon, epsilon_pld, epsilon_rdp
from moo.privacy.events import TrainingRun
from moo.privacy.keys import StudyKey
from moo.privacy.tradeoff import (
    GaussianCurve,
    HockeyStickCurve,
    advantage_ceiling,
    advantage_of,
    approximate_dp,
    curve_of,
    gaussian_dp,
    tpr_ceiling,
)
from tests.fixtures.runs import RUN


def gaussian_epsilon(mu: float, delta: float) -> float:
    """Exact epsilon of mu-Gaussian DP (Balle and Wang 2018, theorem 8)."""

    def excess(epsilon: float) -> float:
        return norm.cdf(mu / 2 - epsilon / mu) - math.exp(epsilon) * norm.cdf(-mu / 2 - epsilon / mu) - delta

    return float(brentq(excess, 1e-9, 200))


@pytest.mark.parametrize(("noise", "steps"), [(1.0, 1), (2.0, 4), (5.0, 50)])
def test_full_batches_give_the_closed_form_of_the_gaussian_mechanism(noise: float, steps: int) -> None:
    run = dataclasses.replace(RUN, sample_rate=1.0, steps=steps, noise_multiplier=noise)
    exact = gaussian_epsilon(math.sqrt(steps) / noise, run.delta)
    assert exact <= epsilon_pld(run) * (1 + 1e-9)  # rounding is pessimistic
    assert epsilon_pld(run) == pytest.approx(exact, rel=5e-3)


@pytest.mark.parametrize("noise", [0.7, 1.5, 6.0])
def test_rdp_is_never_below_pld_and_both_fall_with_noise(noise: float) -> None:
    run, louder = (dataclasses.replace(RUN, noise_multiplier=n) for n in (noise, 1.3 * noise))
    assert epsilon_pld(run) <= epsilon_rdp(run)
    assert epsilon_pld(louder) < epsilon_pld(run)
    assert epsilon_rdp(louder) < epsilon_rdp(run)


@pytest.mark.parametrize("target", [0.5, 3.0, 32.0])
def test_calibrated_noise_never_overshoots_and_wastes_little(target: float) -> None:
    noise = calibrate_noise(target_epsilon=target, delta=1e-5, sample_rate=0.5, steps=25)
    spent = epsilon_pld(dataclasses.replace(RUN, noise_multiplier=noise))
    assert 0.99 * target < spent <= target


def test_no_target_means_no_noise_and_no_steps_spend_nothing() -> None:
    assert calibrate_noise(target_epsilon=math.inf, delta=1e-5, sample_rate=0.5, steps=25) == 0.0
    assert epsilon_pld(dataclasses.replace(RUN, noise_multiplier=0.0)) == math.inf
    assert epsilon_pld(dataclasses.replace(RUN, steps=0)) == 0.0


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan])
def test_a_target_that_is_not_positive_is_refused(bad: float) -> None:
    with pytest.raises(InputError, match="target_epsilon must be > 0"):
        calibrate_noise(target_epsilon=bad, delta=1e-5, sample_rate=0.5, steps=25)


@pytest.mark.parametrize("bad", [0.0, 1 / 400, 0.5, math.nan])
def test_a_delta_that_is_not_below_one_over_n_is_refused(bad: float) -> None:
    with pytest.raises(InputError, match="target_delta"):
        check_delta(bad, 400)


def test_a_search_charges_a_unit_for_every_shadow_that_saw_it() -> None:
    """Two shadows of a trial cost what two trials of one shadow cost, and one run without DP costs everything."""
    alone = dataclasses.replace(RUN, shadows_per_unit=1)
    assert compose_epsilon([RUN], delta=1e-5) == pytest.approx(compose_epsilon([alone, alone], delta=1e-5))
    assert compose_epsilon([RUN, RUN], delta=1e-5) > compose_epsilon([RUN], delta=1e-5) > epsilon_pld(RUN)
    assert compose_epsilon([RUN, dataclasses.replace(RUN, noise_multiplier=0.0)], delta=1e-5) == math.inf
    assert compose_epsilon([], delta=1e-5) == 0.0


@pytest.mark.parametrize("noise", [0.5, 2.0, 10.0])
def test_the_ceiling_of_the_advantage_is_the_area_under_the_gaussians_roc_curve(noise: float) -> None:
    run = dataclasses.replace(RUN, sample_rate=1.0, steps=1, noise_multiplier=noise)
    exact = 2 * norm.cdf(1 / noise / math.sqrt(2)) - 1
    assert exact <= advantage_ceiling(run) <= exact + 2e-3
    assert advantage_ceiling(dataclasses.replace(RUN, noise_multiplier=0.0)) == 1.0
    assert advantage_ceiling(dataclasses.replace(RUN, steps=0)) == 0.0


@pytest.mark.parametrize("fpr", [0.001, 0.01, 0.3])
def test_the_ceiling_of_the_true_positive_rate_is_the_gaussians(fpr: float) -> None:
    run = dataclasses.replace(RUN, sample_rate=1.0, steps=1, noise_multiplier=1.0)
    exact = norm.cdf(norm.ppf(fpr) + 1.0)
    assert exact <= tpr_ceiling(run, fpr) <= exact + 2e-3
    assert tpr_ceiling(dataclasses.replace(RUN, noise_multiplier=0.0), fpr) == 1.0
    assert tpr_ceiling(dataclasses.replace(RUN, steps=0), fpr) == fpr


def test_an_optimal_attack_on_the_gaussian_stays_below_the_ceiling_and_above_the_gap_of_its_rates() -> None:
    """2 AUC - 1 is more than the largest TPR - FPR, which is no ceiling for it."""
    rng = np.random.default_rng(0)
    member, other = rng.normal(1.0, 1.0, 4000), rng.normal(0.0, 1.0, 4000)
    found = 2 * float((member[:, None] > other).mean()) - 1
    run = dataclasses.replace(RUN, sample_rate=1.0, steps=1, noise_multiplier=1.0)
    gap = 2 * norm.cdf(0.5) - 1
    assert gap + 0.1 < found < advantage_ceiling(run) + 0.02


def test_ceilings_are_the_reference_numbers() -> None:
    """AUC at delta 1e-5.

    .745 at q = .02, 250 steps, epsilon 8; single Gaussians of epsilon 1, 3, 8 .575, .694, .881.
    """
    noise = calibrate_noise(target_epsilon=8, delta=1e-5, sample_rate=0.02, steps=250)
    run = dataclasses.replace(RUN, sample_rate=0.02, steps=250, noise_multiplier=noise)
    assert (1 + advantage_ceiling(run)) / 2 == pytest.approx(0.745, abs=1e-3)
    for epsilon, auc in ((1, 0.575), (3, 0.694), (8, 0.881)):
        assert (1 + advantage_of(gaussian_dp(epsilon, 1e-5))) / 2 == pytest.approx(auc, abs=1e-3)


@pytest.mark.parametrize(("epsilon", "delta"), [(0.1, 1e-3), (1.0, 1e-5), (8.0, 1e-10)])
def test_the_gaussian_of_an_epsilon_and_delta_has_exactly_them(epsilon: float, delta: float) -> None:
    assert gaussian_epsilon(gaussian_dp(epsilon, delta).mu, delta) == pytest.approx(epsilon, rel=1e-6)


@settings(deadline=None, max_examples=60)
@given(st.floats(0, 5), st.floats(0, 0.5), st.floats(0, 1))
def test_a_curve_is_the_least_that_its_epsilons_and_deltas_allow(epsilon: float, delta: float, y: float) -> None:
    least = approximate_dp(epsilon, delta).least(y)
    assert 0 <= least <= y + 1e-12
    assert y <= math.exp(epsilon) * least + delta + 1e-9
    assert 1 - least <= math.exp(epsilon) * (1 - y) + delta + 1e-9


def test_the_curve_of_a_run_lies_below_the_gaussians_it_is_made_of() -> None:
    """Full batches.

    The run is the Gaussian mechanism of mu = sqrt(steps) / noise, and rounding only lowers its
    curve.
    """
    run = dataclasses.replace(RUN, sample_rate=1.0, steps=4, noise_multiplier=3.0)
    exact, found = GaussianCurve(mu=2 / 3), curve_of(run)
    for y in np.linspace(0.01, 0.99, 25):
        assert exact.least(float(y)) - 2e-3 <= found.least(float(y)) <= exact.least(float(y)) + 1e-9
    with pytest.raises(InputError, match="noise_multiplier must be > 0"):
        curve_of(dataclasses.replace(RUN, noise_multiplier=0.0))


def test_unfit_curves_are_refused_by_name() -> None:
    one = np.array([1.0])
    for bad in (
        {"epsilons": -one},
        {"deltas": 2 * one},
        {"deltas": np.array([0.1, 0.1])},
        {"deltas_back": np.array([])},
    ):
        with pytest.raises(InputError, match=r"deltas|epsilons"):
            HockeyStickCurve(**{"epsilons": one, "deltas": 0.1 * one, "deltas_back": 0.1 * one, **bad})
    with pytest.raises(InputError, match="mu must be > 0"):
        GaussianCurve(mu=0.0)
    with pytest.raises(InputError, match="delta"):
        gaussian_dp(1.0, 0.0)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"noise_multiplier": 0.0}, "without noise"),
        ({"sampler": "shuffled"}, "shuffled"),
        ({"normaliser": "private"}, "private number"),
        ({"delta": 0.1}, "not below"),
        ({"zero_noise_steps": 3}, "3 steps"),
    ],
)
def test_a_claim_is_withdrawn_where_the_accounting_breaks(changes: dict[str, object], reason: str) -> None:
    assert claim(RUN) == HOLDS
    assert reason in claim(TrainingRun(**{**RUN.to_json(), **changes}))


def test_a_step_that_read_other_units_withdraws_the_claim_unless_frozen_or_in_the_ledger() -> None:
    near = Transformation(name="near_duplicates", scope="dataset")
    assert "near_duplicates" in claim(RUN, [near])
    assert claim(RUN, [dataclasses.replace(near, frozen=True)]) == HOLDS
    assert claim(RUN, [near], ledger_covered={"near_duplicates"}) == HOLDS
    assert claim(RUN, [dataclasses.replace(near, scope="user")]) == HOLDS


def test_a_key_is_made_once_private_to_its_owner_and_never_printed(tmp_path: Path) -> None:
    key = StudyKey.load_or_create(tmp_path / "study.key")
    assert (tmp_path / "study.key").stat().st_mode & 0o777 == 0o600
    assert StudyKey.load_or_create(tmp_path / "study.key").derive("x") == key.derive("x")
    assert key.derive("x").hex() not in repr(key)
    assert (tmp_path / "study.key").read_text().strip() not in repr(key)
    (tmp_path / "study.key").chmod(0o644)
    with pytest.raises(InputError, match="chmod 600"):
        StudyKey.load_or_create(tmp_path / "study.key")


def test_purposes_are_told_apart_and_streams_repeat() -> None:
    key = StudyKey(b"k" * 32)
    purposes = [("a", "b"), ("ab",), ("a", 1), ("a", "1"), ("a", b"1")]
    assert len({key.derive(*p) for p in purposes}) == len(purposes)
    assert np.array_equal(key.generator("noise", 0).random(5), key.generator("noise", 0).random(5))
    assert not np.array_equal(key.generator("noise", 0).random(5), key.generator("noise", 1).random(5))
    assert not np.array_equal(key.generator("a").random(5), StudyKey(b"l" * 32).generator("a").random(5))


@pytest.mark.parametrize("text", ["", "xyz", "ab" * 31])
def test_a_damaged_key_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "study.key"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(InputError, match="study key"):
        StudyKey.load_or_create(path)
