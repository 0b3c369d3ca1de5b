"""Metrics against closed forms and naive loops; standard errors against the bootstrap and against simulated truth."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score
from test_objectives_membership_scores import make_evidence

from moo.errors import InputError
from moo.evidence import MembershipEvidence
from moo.objectives.membership import metrics, permutation, risk, scores, uncertainty

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
        (lambda: metrics.roc_auc(np.array([]), one), "member_scores a non-empty"),
        (lambda: metrics.roc_auc(one, np.array([])), "nonmember_scores a non-empty"),
        (lambda: metrics.balanced_accuracy(one, np.array([np.nan])), "nonmember_scores without NaN"),
        (lambda: metrics.tpr_at_fpr(one, np.ones(98), 0.01), "n_nonmembers >= 99"),
        (lambda: metrics.tpr_at_fpr(one, one, 0.0), "fpr > 0"),
        (lambda: metrics.tpr_at_fpr(one, one, 1.0), "fpr < 1"),
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
    by_unit = uncertainty.clustered_stderr(((rows - rows.mean(axis=1, keepdims=True)) / 450).mean(axis=0), e.units)
    assert by_unit == pytest.approx(draws.std(), rel=0.15)


def test_stderr_sees_shadows_that_differ_from_each_other() -> None:
    e = make_evidence(9, n=400)
    uneven = e.losses - np.array([[0.0], [2.0], [0.0], [2.0]]) * e.members
    calm = risk.auc(e)
    wild = risk.auc(MembershipEvidence(losses=uneven, members=e.members, units=e.units))
    spread = np.std(uncertainty.shadow_aucs(scores.pair_reference(uneven, e.members), e.members), ddof=1) / 2
    assert wild.stderr == pytest.approx(spread, rel=0.15)
    assert wild.stderr > 3 * calm.stderr


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
    with pytest.raises(InputError, match="members constant within units"):
        risk.membership_risk(MembershipEvidence(losses=e.losses, members=split, units=e.units), level="user")


def test_permutation_null_is_centred_and_puts_a_leak_outside() -> None:
    e = make_evidence(13, k=8, n=600, leak=0.6)
    null = permutation.permutation_null(e, risk.ATTACKS["pair_reference"], 100, np.random.default_rng(0))
    others = null[np.abs(null - risk.auc(e).value) > 1e-12]
    assert abs(others.mean() - 0.5) < 0.03
    assert (null <= risk.auc(e).value + 1e-12).all()


def test_unknown_attack_is_refused() -> None:
    with pytest.raises(InputError, match="attack in"):
        risk.membership_risk(make_evidence(14), "magic")
    with pytest.raises(InputError, match="attack in"):
        risk.MembershipRisk(attack="magic")
