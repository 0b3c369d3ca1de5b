"""What a trial tells of membership and of attributes, from evidence to the second objective."""

import dataclasses
import math
from typing import Any

import numpy as np
import pytest

from moo.core.errors import PolicyError
from moo.objectives.attribute.risk import attribute_risk
from moo.objectives.membership.attacks.registry import ATTACKS
from moo.objectives.membership.permutation import permutation_p_value
from moo.objectives.membership.risk import auc, membership_risk
from moo.privacy.release_policy import Policy
from moo.studies.setup.preflight import check_policy_allows
from moo.studies.spec.study import StudySpec
from moo.studies.trial.membership import judge_membership
from tests.fixtures.evidence import attribute_evidence, whole_evidence
from tests.fixtures.trials import trial_evidence


def test_the_named_attack_and_level_are_what_is_told() -> None:
    evidence = trial_evidence()
    for attack in ("pair_reference", "base_difference", "quantile", "rmia_offline"):
        for level in ("record", "user"):
            told = judge_membership(evidence, StudySpec(attack=attack, attack_level=level))
            assert told.risk == membership_risk(evidence.membership, attack, level=level)  # type: ignore[arg-type]
            assert told.advantage == told.risk
            assert told.extras["null_auc"].low < 0.5 < told.extras["null_auc"].high
            assert told.extras["null_auc"] == auc(evidence.unseen, attack=attack, level=level)  # type: ignore[arg-type]
            assert told.extras["worst_decile"].value > told.extras["auc"].value - 0.5
    assert told.extras["loss_auc"].value < told.extras["auc"].value


def test_the_null_and_the_permutation_test_are_of_users_where_the_attack_is() -> None:
    rng = np.random.default_rng(3)
    e = whole_evidence(2, users=60, per_user=1)
    # every user has one record more that says the same and one that shouts at random: users and records then differ
    loud = dataclasses.replace(
        e,
        losses=np.concatenate([e.losses, 50 * rng.random(e.losses.shape)], axis=1),
        members=np.concatenate([e.members, e.members], axis=1),
        units=np.concatenate([e.units, e.units]),
        base_losses=None,
        population=None,
    )
    by_user = dataclasses.replace(
        e, losses=(e.losses + loud.losses[:, 60:]) / 2, units=e.units, base_losses=None, population=None
    )
    attack = ATTACKS["pair_reference"]
    found = {
        level: permutation_p_value(loud, attack, level=level)  # type: ignore[arg-type]
        for level in ("record", "user")
    }
    assert found["user"] == permutation_p_value(by_user, attack)
    told = judge_membership(trial_evidence(unseen=loud), StudySpec(attack_level="user"))
    assert told.extras["null_auc"].value == pytest.approx(auc(by_user).value)
    assert told.extras["null_auc"].value != auc(loud).value


def test_a_chosen_attack_is_named_with_its_number() -> None:
    told = judge_membership(trial_evidence(), StudySpec(attack="chosen"))
    assert "attack base_difference, chosen on one half" in told.risk.note


def test_an_attribute_counts_where_it_leaks_more_and_the_claimed_epsilon_bounds_membership_alone() -> None:
    leaking = trial_evidence(attribute=attribute_evidence(2, users=600, shift=4.0))
    told = judge_membership(leaking, StudySpec(attribute="band"))
    assert leaking.attribute is not None
    assert told.extras["attribute_leakage"] == attribute_risk(leaking.attribute).leakage
    assert told.risk.value == told.extras["attribute_leakage"].value > told.advantage.value
    assert told.advantage == told.extras["advantage"] == judge_membership(trial_evidence(), StudySpec()).risk
    assert told.extras["attribute_p"].value == pytest.approx(0.05)
    quiet = judge_membership(trial_evidence(attribute=attribute_evidence(3, users=300)), StudySpec(attribute="band"))
    assert quiet.risk.value == quiet.advantage.value


def test_an_attribute_that_cannot_be_asked_about_is_not_assessed_and_never_a_zero() -> None:
    e = attribute_evidence(4, users=300)
    told = judge_membership(
        trial_evidence(attribute=dataclasses.replace(e, attribute=np.zeros(300, int))), StudySpec(attribute="band")
    )
    assert told.risk.value == told.advantage.value
    assert "attribute not assessed: attribute band is constant" in told.risk.note
    for name in ("attribute_leakage", "attribute_min_entropy", "attribute_training", "attribute_p"):
        assert math.isnan(told.extras[name].value)
        assert told.extras[name].note.startswith("not assessed")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"attack": "quantile"}, "attack must be one of"),
        ({"attack": "base_difference"}, "attack must be one of"),
        ({"attack": "chosen"}, "attack must be one of"),
        ({"attribute": "gender"}, "no noised answer"),
    ],
)
def test_noise_that_does_not_cover_an_attack_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(PolicyError, match=message):
        check_policy_allows(Policy.parse("publish_all(8)"), StudySpec(**change))
    check_policy_allows(Policy.parse("internal"), StudySpec(**change))
