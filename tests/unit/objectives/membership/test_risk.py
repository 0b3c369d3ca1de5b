"""Metrics against closed forms and naive loops; standard errors against the bootstrap and against simulated truth."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import ndtr
from sklearn.metrics import roc_auc_score

from moo.core.errors import InputError
from moo.core.evidence import MembershipEvidence
from moo.core.measurement import Measurement
from moo.objectives.membership import metrics, permutation, risk, training_variance, uncertainty
from moo.objectives.membership.attacks import scores
from moo.objectives.statistics import clusters
from tests.fixtures.evidence import draw_pairs, make_evidence

values = st.lists(st.integers(-5, 5).map(float), min_size=1, max_size=30).map(np.array)


@given(values, values)
@settings(deadline=None)
def test_roc_auc_counts_pairs_with_ties_by_half(inside: np.ndarray, outside: np.ndarray) -> None:
    wins = [(a > b) + 0.5 * (a == b) for a in inside for b in outside]
    assert metrics.roc_auc(inside, outside) == pytest.approx(np.mean(wins), abs=1e-12)
    truth = np.r_[np.ones(len(inside)), np.zeros(len(outside))]
    assert metrics.roc_auc(inside, outside) == pytest.approx(roc_auc_score(truth, np.r_[inside, outside]), abs=1e-12)


@given(values, values)
@settings(deadline=None)
def test_placements_average_to_the_auc_on_both_sides(inside: np.ndarray, outside: np.ndarray) -> None:
    members = np.r_[np.ones(len(inside), bool), np.zeros(len(outside), bool)]
    placed = metrics.placements(np.r_[inside, outside], members)
    area = metrics.roc_auc(inside, outside)
    assert placed[members].mean() == pytest.approx(area, abs=1e-12)
    assert placed[~members].mean() == pytest.approx(area, abs=1e-12)


def test_advantage_is_unclipped() -> None:
    assert metrics.advantage(np.array([0.0, 1.0]), np.array([2.0, 3.0])) == -1.0


def test_tpr_at_fpr_on_a_case_by_hand() -> None:
    outside = np.arange(1.0, 100.0)  # 99 non-members: k = 1 at 1 %, threshold 99
    assert metrics.tpr_at_fpr(np.array([99.0, 99.5, 100.0, 5.0]), outside, 0.01) == 0.5
    assert metrics.tpr_at_fpr(np.array([98.5, 99.5, 100.0, 5.0]), outside, 0.02) == 0.75


def test_tpr_at_fpr_is_not_biased_upward_at_the_null() -> None:
    rng = np.random.default_rng(0)
    rates = [metrics.tpr_at_fpr(rng.normal(size=500), rng.normal(size=500), 0.01) for _ in range(2000)]
    assert np.mean(rates) == pytest.approx(5 / 501, abs=float(4 * np.std(rates) / math.sqrt(2000)))


def test_balanced_accuracy_at_the_median_and_at_a_threshold() -> None:
    inside, outside = np.array([2.0, 3.0, 4.0]), np.array([0.0, 1.0, 3.5])
    assert metrics.balanced_accuracy(inside, outside) == pytest.approx(2 / 3)
    assert metrics.balanced_accuracy(inside, outside, threshold=1.5) == pytest.approx((1 + 2 / 3) / 2)


def test_metrics_refuse_empty_sides_nan_and_too_few_nonmembers() -> None:
    one = np.array([1.0])
    for call, message in [
        (lambda: metrics.roc_auc(np.array([]), one), "member_scores must be a non-empty"),
        (lambda: metrics.roc_auc(one, np.array([])), "nonmember_scores must be a non-empty"),
        (lambda: metrics.balanced_accuracy(one, np.array([np.nan])), "nonmember_scores must have no NaN"),
        (lambda: metrics.tpr_at_fpr(one, np.ones(98), 0.01), "n_nonmembers must be >= 99"),
        (lambda: metrics.tpr_at_fpr(one, one, 0.0), "fpr must be > 0"),
        (lambda: metrics.tpr_at_fpr(one, one, 1.0), "fpr must be < 1"),
    ]:
        with pytest.raises(InputError, match=message):
            call()


def test_risk_is_the_mean_over_shadows_of_the_naive_advantage() -> None:
    e = make_evidence(7, leak=0.5)
    s = scores.pair_reference(e.losses, e.members)
    naive = np.mean([2 * roc_auc_score(m, row) - 1 for row, m in zip(s, e.members, strict=True)])
    found = risk.membership_risk(e)
    assert found.value == pytest.approx(naive, abs=1e-12)
    area = risk.auc(e)
    assert (found.value, found.stderr) == (pytest.approx(2 * area.value - 1), pytest.approx(2 * area.stderr))


def test_placement_error_agrees_with_the_bootstrap_by_unit() -> None:
    e = make_evidence(8, n=900, per_unit=3, leak=0.3)
    s = scores.pair_reference(e.losses, e.members)

    def mean_auc(weights: np.ndarray) -> float:
        rows = np.repeat(np.arange(900), weights)
        return float(uncertainty.shadow_aucs(s[:, rows], e.members[:, rows]).mean())

    draws = uncertainty.bootstrap(mean_auc, e.units, np.random.default_rng(0), 300)
    rows = np.stack([metrics.placements(r, m) for r, m in zip(s, e.members, strict=True)])
    by_unit = clusters.clustered_stderr(((rows - rows.mean(axis=1, keepdims=True)) / 450).mean(axis=0), e.units)
    assert by_unit == pytest.approx(draws.std(), rel=0.15)


def unsteady(seed: int, k: int, spread: float = 1.0) -> MembershipEvidence:
    """Each training shifts what it says of all records towards one label or the other.

    Noise that records have in common.
    """
    rng = np.random.default_rng(seed)
    members = draw_pairs(rng, k, np.arange(600))
    label = rng.choice([-1.0, 1.0], 600)
    losses = rng.gamma(2.0, 1.0, 600) + rng.normal(size=(k, 600)) - 0.5 * members
    return MembershipEvidence(
        losses=losses + spread * rng.normal(size=(k, 1)) * label, members=members, units=np.arange(600)
    )


@pytest.mark.parametrize("k", [4, 8])
@pytest.mark.parametrize("attack", ["pair_reference", "loss"])
def test_stderr_holds_what_trainings_differ_by_as_targets_and_as_references(attack: str, k: int) -> None:
    """Against the spread over 300 studies that vary as trainings without DP do.

    Bounds beyond 4 of its standard errors.
    """
    found = [risk.auc(unsteady(s, k), attack=attack, private=False) for s in range(300)]
    assert np.mean([m.low <= np.mean([m.value for m in found]) <= m.high for m in found]) >= 0.9
    spread = np.std([m.value for m in found], ddof=1)
    assert 0.75 * spread < math.sqrt(np.mean([m.stderr**2 for m in found])) < 1.5 * spread


@given(st.integers(0, 10_000), st.sampled_from([4, 6, 8]), st.booleans())
@settings(max_examples=25, deadline=None)
def test_contrasts_are_the_differences_within_pairs_and_between_them_written_out(
    seed: int, k: int, refers: bool
) -> None:
    rng = np.random.default_rng(seed)
    aucs, factor = rng.normal(size=k), rng.normal(size=(k, k))
    cov = factor @ factor.T / k
    found = training_variance.contrasts_of(aucs, cov, refers=refers)
    contrasts = [(np.eye(k)[2 * j] - np.eye(k)[2 * j + 1], 1.0) for j in range(k // 2)]
    for j in range(1, k // 2):  # pair j against the mean of the pairs before it
        c = np.zeros(k)
        c[: 2 * j], c[2 * j : 2 * j + 2] = 1.0 / j, -1.0
        contrasts.append((c, 1 - 2 / (k - 2) ** 2 if refers else 1.0))
    for (c, share), told, explained, seen in zip(contrasts, *found, strict=True):
        unit = c / np.linalg.norm(c)
        assert abs(unit @ aucs) == pytest.approx(abs(told))
        assert unit @ cov @ unit == pytest.approx(explained, rel=1e-6)
        assert seen == pytest.approx(share**2)


@pytest.mark.parametrize("prior", [training_variance.WITH_DP, training_variance.WITHOUT_DP])
@pytest.mark.parametrize("contrasts", [(0.0, 0.0, 0.0), (1.0, -2.0, 0.5), (9.0, -14.0, 6.0)])
def test_the_law_of_the_error_has_the_quantiles_of_the_mixture_written_out(
    prior: float, contrasts: tuple[float, float, float]
) -> None:
    """A hundred thousand draws of training's part from its law before the data, weighted by how well
    each explains the contrasts.
    """
    by_unit, explained, seen, part = 0.5, np.array([1.0, 2.0, 1.5]), np.array([1.0, 1.0, 0.25]), 0.5625
    z = np.array(contrasts)
    t = prior * by_unit * np.tan(np.pi / 2 * (np.arange(100_000) + 0.5) / 100_000)
    variance = explained + seen * t[:, None] ** 2 / part
    weights = np.exp(-0.5 * (np.log(variance) + z**2 / variance).sum(axis=1))
    spread = training_variance.spread_of(by_unit, z, explained, seen, part=part, prior=prior)
    told = Measurement(value=0.0, stderr=spread.stderr, df=spread.df)
    for bound, mass in ((told.upper, 0.95), (told.high, 0.975)):
        below = weights @ ndtr(bound / np.sqrt(by_unit**2 + t**2)) / weights.sum()
        assert below == pytest.approx(mass, abs=0.002)


def test_shadows_that_differ_by_training_alone_give_wide_intervals_of_few_degrees_of_freedom() -> None:
    explained, seen = np.full(3, 0.01), np.ones(3)
    calm = training_variance.spread_of(
        1.0, np.full(3, 0.1), explained, seen, part=0.25, prior=training_variance.WITH_DP
    )
    wild = training_variance.spread_of(
        1.0, np.array([9.0, -14.0, 6.0]), explained, seen, part=0.25, prior=training_variance.WITH_DP
    )
    assert calm.stderr == pytest.approx(1.0, rel=0.05)
    assert calm.df > 100
    assert wild.df < 5
    assert wild.stderr > 3


def test_one_unit_alone_has_an_infinite_stderr() -> None:
    e = make_evidence(15, n=60)
    found = uncertainty.auc_with_stderr(e.losses, e.members, np.zeros(60, dtype=int))
    assert math.isfinite(found[0])
    assert found[1].stderr == math.inf


def coverage(n_seeds: int, *, k: int, n: int, per_unit: int) -> float:
    found = [risk.auc(make_evidence(s, k=k, n=n, per_unit=per_unit)) for s in range(n_seeds)]
    return float(np.mean([m.low <= 0.5 <= m.high for m in found]))


def test_null_intervals_cover_one_half_on_skewed_losses() -> None:
    assert 0.93 <= coverage(400, k=8, n=300, per_unit=1) <= 0.985


def test_tpr_equals_the_plain_metric_and_has_a_stderr() -> None:
    e = make_evidence(10, n=4000, leak=0.5)
    s = scores.pair_reference(e.losses, e.members)
    plain = np.mean([metrics.tpr_at_fpr(r[m], r[~m], 0.01) for r, m in zip(s, e.members, strict=True)])
    found = risk.tpr(e)
    assert found.value == pytest.approx(plain, abs=1e-12)
    assert 0 < found.stderr < 0.05
    assert risk.tpr(e) == found


def test_tpr_is_not_assessed_with_too_few_nonmembers() -> None:
    found = risk.tpr(make_evidence(11, n=400))
    assert math.isnan(found.value)
    assert found.note.startswith("not assessed: TPR at 1.0% FPR needs 1000 non-members, there are 200")


def test_user_level_risk_averages_a_users_records() -> None:
    e = make_evidence(12, n=1200, per_unit=4, leak=0.3)
    by_record, by_user = risk.membership_risk(e), risk.membership_risk(e, level="user")
    assert by_user.value > by_record.value + 0.05
    split = e.members.copy()
    split[:, 0] = ~split[:, 0]
    with pytest.raises(InputError, match="members must be constant within a unit"):
        risk.membership_risk(MembershipEvidence(losses=e.losses, members=split, units=e.units), level="user")


def test_permutation_null_is_centred_and_puts_a_leak_outside() -> None:
    e = make_evidence(13, k=8, n=600, leak=0.6)
    null = permutation.permutation_null(e, risk.ATTACKS["pair_reference"], 100, np.random.default_rng(0))
    others = null[np.abs(null - risk.auc(e).value) > 1e-12]
    assert abs(others.mean() - 0.5) < 0.03
    assert (null <= risk.auc(e).value + 1e-12).all()


def test_unknown_attack_is_refused() -> None:
    with pytest.raises(InputError, match="attack must be one of"):
        risk.membership_risk(make_evidence(14), "magic")
    with pytest.raises(InputError, match="attack must be one of"):
        risk.MembershipRisk(attack="magic")
