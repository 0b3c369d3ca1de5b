"""Attribute inference.

Leakage against a closed form, imputation, members against non-members, nulls, and what cannot be
asked.
"""

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from moo.core.errors import InputError
from moo.core.evidence import Floats
from moo.core.measurement import Measurement
from moo.objectives.attribute.attack import calibrated, user_features
from moo.objectives.attribute.risk import AttributeRisk, attribute_risk, combined
from tests.fixtures.evidence import attribute_evidence


def information(shift: float) -> float:
    """Mutual information of a fair bit and a normal number that it shifts, nats."""

    def density(x: float) -> float:
        sides = norm.pdf(x), norm.pdf(x - shift)
        mean = sum(sides) / 2
        return float(sum(0.5 * s * math.log(s / mean) for s in sides if s > 0))

    return float(quad(density, -12, 12 + shift)[0])


def test_leakage_approaches_the_mutual_information() -> None:
    found = attribute_risk(attribute_evidence(0, users=6000, shift=1.5))
    truth = information(1.5) / math.log(2)
    assert found.entropy == pytest.approx(math.log(2), abs=1e-3)
    assert found.leakage.value == pytest.approx(truth, abs=4 * found.leakage.stderr)
    assert found.leakage.value < truth + 2 * found.leakage.stderr  # an attack cannot find more than there is
    assert found.leakage.value == pytest.approx((found.imputed - found.attacked) / found.entropy, abs=1e-12)
    right = norm.cdf(1.5 / 2)
    assert found.min_entropy.value == pytest.approx(math.log2(right / 0.5), abs=0.06)


def test_nothing_is_found_where_outputs_know_nothing() -> None:
    found = [attribute_risk(attribute_evidence(s, users=300, share=0.3)) for s in range(24)]
    leakage = np.array([f.leakage.value for f in found])
    assert leakage.mean() <= 0.5 * leakage.std()  # never upward; a little below, since fitting costs
    assert leakage.mean() > -0.02
    training = np.array([f.training.value for f in found])
    assert abs(training.mean()) < 3.5 * training.std() / math.sqrt(24)
    covered = np.mean([f.training.low <= 0 <= f.training.high for f in found])
    assert covered >= 0.8


def test_what_training_adds_is_told_apart_from_what_the_population_teaches() -> None:
    everybody = attribute_risk(attribute_evidence(1, users=2000, shift=1.5))
    assert everybody.leakage.low > 0.2
    assert everybody.training.low <= 0 <= everybody.training.high
    members = attribute_risk(attribute_evidence(1, users=2000, shift=2.5, members_only=True))
    assert members.training.low > 0.05


def test_what_auxiliary_columns_tell_already_is_not_the_models() -> None:
    plain = attribute_evidence(2, users=3000, shift=1.5)
    odds = plain.log_probs[:, :, 1] - plain.log_probs[:, :, 0]
    known = dataclasses.replace(plain, auxiliary=odds.T)  # an attacker who has the outputs from elsewhere
    assert attribute_risk(plain).leakage.low > 0.2
    beyond = attribute_risk(known)
    assert abs(beyond.leakage.value) < 0.01
    assert beyond.imputed < attribute_risk(plain).imputed - 0.1


def test_the_permutation_null_puts_a_leak_outside_and_no_leak_inside() -> None:
    assert attribute_risk(attribute_evidence(3, users=200, shift=1.5), n_permutations=9).p_value == pytest.approx(0.1)
    quiet = [attribute_risk(attribute_evidence(s, users=200), n_permutations=9).p_value for s in range(4, 10)]
    assert 0.25 < np.mean(quiet) < 0.85  # uniform on .1, .2, ..., 1: .55 with a standard error of .12
    assert math.isnan(attribute_risk(attribute_evidence(4, users=300)).p_value)


@pytest.mark.slow
def test_the_null_holds_where_outputs_tell_what_is_known_already() -> None:
    """Outputs follow a known column that the attribute hangs on, and say nothing beyond it."""
    found = []
    for seed in range(24):
        rng = np.random.default_rng([11, seed])
        known = (rng.random(200) < 0.5).astype(int)
        odds = rng.normal(size=(4, 200)) + 1.5 * known
        tied = dataclasses.replace(
            attribute_evidence(seed, users=200),
            log_probs=np.stack([-np.logaddexp(0, odds), -np.logaddexp(0, -odds)], axis=2),
            attribute=(rng.random(200) < np.where(known, 0.75, 0.25)).astype(int),
            auxiliary=np.eye(2)[known],
        )
        found.append(attribute_risk(tied, n_permutations=9, seed=seed))
    assert abs(np.mean([f.p_value for f in found]) - 0.55) < 5 * 0.287 / math.sqrt(24)  # uniform on .1, .2, ..., 1
    leakage = np.array([f.leakage.value for f in found])
    assert leakage.mean() < 4 * leakage.std(ddof=1) / math.sqrt(24)


def test_a_users_records_are_one_user() -> None:
    doubled = attribute_evidence(5, users=400, per_user=3, shift=1.0)
    found = attribute_risk(doubled)
    assert found.leakage.value > attribute_risk(attribute_evidence(5, users=400, shift=1.0)).leakage.value
    features = user_features(doubled.log_probs[0], doubled.labels, doubled.units)
    assert features.shape == (400, 3)
    own = doubled.units == 7
    odds = (doubled.log_probs[0, :, 1] - doubled.log_probs[0, :, 0])[own]
    losses = -doubled.log_probs[0][own, doubled.labels[own]]
    np.testing.assert_allclose(features[7], [losses.mean(), odds.mean(), odds.std()], atol=1e-9)


def test_calibration_does_not_listen_to_an_attack_that_is_wrong() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, 200)
    base = np.log(np.full((200, 2), 0.5))
    wrong: Floats = np.log(np.where(truth[:, None] == np.arange(2), 0.01, 0.99))
    np.testing.assert_allclose(calibrated(base, wrong, truth, np.ones(200, bool)), base)
    timid: Floats = np.log(np.where(truth[:, None] == np.arange(2), 0.6, 0.4))
    assert calibrated(base, timid, truth, np.ones(200, bool))[0, truth[0]] > np.log(0.6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"attribute": np.zeros(600, int)}, "attribute band is constant"),
        ({"attribute": np.full(600, -1)}, "attribute band is constant or unknown"),
        ({"attribute": (np.arange(600) == 3).astype(int)}, "needs 20 users, the smallest has 1"),
    ],
)
def test_what_cannot_be_asked_is_not_assessed_and_never_a_zero(change: dict[str, Any], message: str) -> None:
    found = attribute_risk(dataclasses.replace(attribute_evidence(6), **change))
    for told in (found.leakage, found.min_entropy, found.training):
        assert math.isnan(told.value)
        assert told.note.startswith("not assessed")
        assert message in told.note
    both = combined(Measurement(value=0.05, stderr=0.01), found.leakage)
    assert (both.value, both.stderr) == (0.05, 0.01)
    assert "attribute not assessed" in both.note


def test_users_whose_attribute_is_unknown_are_left_out() -> None:
    e = attribute_evidence(7, users=800, shift=1.5)
    hidden = np.arange(800) < 200
    some = attribute_risk(dataclasses.replace(e, attribute=np.where(hidden, -1, e.attribute)))
    alone = dataclasses.replace(
        e,
        log_probs=e.log_probs[:, ~hidden],
        labels=e.labels[~hidden],
        members=e.members[:, ~hidden],
        units=e.units[~hidden],
        attribute=e.attribute[~hidden],
    )
    assert some == attribute_risk(alone)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"log_probs": np.full((4, 600, 2), np.nan)}, "log_probs must be finite"),
        ({"log_probs": np.zeros((4, 5, 2))}, "log_probs must have shape"),
        ({"auxiliary": np.full((600, 1), np.nan)}, "auxiliary must be finite"),
        ({"auxiliary": np.zeros((5, 1))}, "auxiliary must have shape"),
        ({"attribute": np.zeros(600)}, "attribute must be integers"),
        ({"units": np.arange(600) // 2}, "constant within a user"),
    ],
)
def test_unfit_arrays_are_refused_by_name(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        attribute_risk(dataclasses.replace(attribute_evidence(8), **change))


def test_both_terms_count_once_by_the_larger() -> None:
    small, large = Measurement(value=0.05, stderr=0.01), Measurement(value=0.2, stderr=0.02)
    assert combined(small, large).value == 0.2
    assert combined(large, small).value == 0.2
    assert "attribute's leakage" in combined(small, large).note
    assert isinstance(attribute_risk(attribute_evidence(9)), AttributeRisk)
