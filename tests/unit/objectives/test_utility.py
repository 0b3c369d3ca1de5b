"""Utility against scikit-learn and hand-made cases."""

import math

import numpy as np
import pytest
from sklearn.metrics import log_loss as sk_log_loss
from sklearn.metrics import roc_auc_score

from moo.core.errors import InputError
from moo.core.evidence import UtilityEvidence
from moo.objectives.utility import accuracy


def make(seed: int = 0, *, k: int = 4, m: int = 300, per_unit: int = 1) -> UtilityEvidence:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, m)
    logits = rng.normal(size=(k, m, 2)) + 1.5 * np.eye(2)[labels]
    log_probs = logits - np.log(np.exp(logits).sum(axis=2, keepdims=True))
    units = np.arange(m) // per_unit
    return UtilityEvidence(log_probs=log_probs, labels=labels, units=units, groups={"region": (units % 3) - 1})


def test_accuracy_is_the_mean_over_shadows() -> None:
    e = make()
    naive = np.mean([(row.argmax(axis=1) == e.labels).mean() for row in e.log_probs])
    assert accuracy.accuracy(e).value == pytest.approx(naive, abs=1e-12)


def test_accuracy_stderr_adds_units_and_shadows() -> None:
    e = make(1)
    correct = (e.log_probs.argmax(axis=2) == e.labels).astype(float)
    text = correct.mean(axis=0).std(ddof=1) / math.sqrt(300)
    shadow = correct.mean(axis=1).std(ddof=1) / 2
    assert accuracy.accuracy(e).stderr == pytest.approx(math.hypot(text, shadow), rel=1e-9)


def test_accuracy_stderr_grows_when_records_repeat_in_a_unit() -> None:
    e = make(2, m=100)
    tripled = UtilityEvidence(
        log_probs=np.repeat(e.log_probs, 3, axis=1), labels=np.repeat(e.labels, 3), units=np.repeat(e.units, 3)
    )
    assert accuracy.accuracy(tripled).stderr == pytest.approx(accuracy.accuracy(e).stderr, rel=1e-9)


def test_majority_accuracy_is_the_share_of_the_most_frequent_class_by_unit() -> None:
    labels, units = np.array([0, 2, 2, 2, 0, 2]), np.array([0, 0, 1, 1, 2, 2])
    log_probs = np.log(np.full((4, 6, 3), 1 / 3))
    e = UtilityEvidence(log_probs=log_probs, labels=labels, units=units)
    told = accuracy.majority_accuracy(e)
    assert told.value == pytest.approx(4 / 6)
    by_unit = np.array([1, 2, 1]) / 6 - 2 * 4 / 36  # sum of (hit - mean) / n in each unit
    assert told.stderr == pytest.approx(math.sqrt((by_unit**2).sum() * 3 / 2))


def test_a_model_that_answers_the_majority_class_is_exactly_not_above_it() -> None:
    e = make(5)
    most = np.bincount(e.labels).argmax()
    constant = np.zeros_like(e.log_probs)
    constant[:, :, most] = 1.0
    same = UtilityEvidence(log_probs=constant, labels=e.labels, units=e.units)
    assert accuracy.above_majority(same).value == accuracy.above_majority(same).stderr == 0.0
    above = accuracy.above_majority(e)
    assert above.value == pytest.approx(accuracy.accuracy(e).value - accuracy.majority_accuracy(e).value)
    assert 0 < above.stderr < accuracy.accuracy(e).stderr + accuracy.majority_accuracy(e).stderr


def test_log_loss_and_auc_equal_scikit_learn() -> None:
    e = make(3)
    losses = [sk_log_loss(e.labels, np.exp(row)) for row in e.log_probs]
    areas = [roc_auc_score(e.labels, row[:, 1] - row[:, 0]) for row in e.log_probs]
    assert accuracy.log_loss(e).value == pytest.approx(np.mean(losses))
    assert accuracy.auc(e).value == pytest.approx(np.mean(areas))
    assert 0 < accuracy.auc(e).stderr < 0.1


def test_auc_of_one_class_is_not_assessed() -> None:
    e = make(4)
    one = UtilityEvidence(log_probs=e.log_probs, labels=np.ones_like(e.labels), units=e.units)
    assert accuracy.auc(one).note.startswith("not assessed")


def test_group_gap_is_the_difference_of_extremes() -> None:
    e = make(5)
    correct = (e.log_probs.argmax(axis=2) == e.labels).mean(axis=0)
    codes = e.groups["region"]
    means = [correct[codes == c].mean() for c in (0, 1)]
    gap = accuracy.group_gap(e, "region")
    assert gap.value == pytest.approx(abs(means[0] - means[1]), abs=1e-12)
    assert 0.01 < gap.stderr < 0.1


def test_group_gap_leaves_small_and_unknown_groups_out() -> None:
    e = make(6)
    codes = np.where(np.arange(300) < 29, 1, 0)
    small = UtilityEvidence(log_probs=e.log_probs, labels=e.labels, units=e.units, groups={"g": codes})
    assert accuracy.group_gap(small, "g").note.startswith("not assessed")
    with pytest.raises(InputError, match="group must be one of"):
        accuracy.group_gap(e, "nobody")


def test_unfit_utility_evidence_is_refused() -> None:
    e = make(7)
    nan = e.log_probs.copy()
    nan[0, 0, 0] = np.nan
    for change, message in [
        ({"log_probs": nan}, "log_probs must have no NaN"),
        ({"labels": e.labels + 1}, "labels must be between 0 and 1"),
        ({"units": e.units[1:]}, "units must have shape"),
        ({"log_probs": e.log_probs[0]}, "log_probs must have shape"),
    ]:
        base = {"log_probs": e.log_probs, "labels": e.labels, "units": e.units}
        with pytest.raises(InputError, match=message):
            accuracy.accuracy(UtilityEvidence(**{**base, **change}))
