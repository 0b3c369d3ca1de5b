"""Bad input of the attacks: an error that names the argument, or "not assessed" with a reason; never a silent 0."""

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import pytest

from moo.core.errors import InputError
from moo.core.evidence import MembershipEvidence, UtilityEvidence
from moo.core.measurement import Measurement
from moo.core.trial_record import ACCURACY, PENALTY, RISK, TrialParams, TrialRecord
from moo.objectives.attribute.risk import attribute_risk, combined
from moo.objectives.auditing import one_run, sampling
from moo.objectives.membership import choice, deciles, metrics, risk, uncertainty
from moo.objectives.membership.attacks import quantile
from moo.objectives.membership.attacks.registry import ATTACKS, attack_scores
from moo.objectives.memorisation.exposure import mean_bits
from moo.objectives.release.noised import bounded_accuracy, bounded_advantage, bounded_share
from moo.privacy.composed_epsilon import ComposedEpsilon
from moo.report.figures import describe
from moo.report.html import plus_minus
from moo.report.sections.texts import EN
from moo.studies.results.result import StudyResult
from moo.studies.results.search_cost import SearchCost
from moo.studies.spec.study import StudySpec
from moo.studies.trial.membership import judge_membership
from tests.fixtures.evidence import attribute_evidence, whole_evidence
from tests.fixtures.trials import trial_evidence

EIGHT = whole_evidence(0, k=8, users=400)


def with_losses(losses: np.ndarray) -> MembershipEvidence:
    return dataclasses.replace(EIGHT, losses=losses)


@pytest.mark.parametrize("name", sorted(ATTACKS))
@pytest.mark.parametrize(
    ("bad", "message"),
    [(np.nan, "losses must have no NaN"), (np.inf, "losses must be finite"), (-np.inf, "losses must be finite")],
)
def test_losses_that_are_no_numbers_are_refused_by_every_attack(name: str, bad: float, message: str) -> None:
    losses = EIGHT.losses.copy()
    losses[1, 5] = bad
    with pytest.raises(InputError, match=message):
        attack_scores(with_losses(losses), name)


@pytest.mark.parametrize(
    "losses",
    [np.full((8, 400), 0.7), np.repeat(np.random.default_rng(0).gamma(1.0, 1.0, (4, 400)), 2, axis=0)],
    ids=["all equal", "pairs alike"],
)
def test_shadows_that_tell_nothing_are_not_assessed(losses: np.ndarray) -> None:
    e = with_losses(losses)
    found = [
        risk.auc(e),
        risk.membership_risk(e),
        risk.membership_risk(e, level="user"),
        risk.balanced_accuracy(e),
        risk.tpr(e, 0.1),
        deciles.worst_decile(e),
        judge_membership(trial_evidence(membership=e), StudySpec()).risk,
    ]
    for m in found:
        assert math.isnan(m.value)
        assert m.note.startswith("not assessed: ")
    assert choice.choose(e, ("loss", "pair_reference")).attack in ("loss", "pair_reference")


def test_members_that_all_stand_above_have_a_standard_error() -> None:
    e = with_losses(np.where(EIGHT.members, 0.0, 2.0) + np.random.default_rng(0).random((8, 400)))
    for m in (risk.auc(e), risk.tpr(e, 0.1)):
        assert (m.value, m.stderr) == (1.0, 1 / 400)
    assert deciles.worst_decile(e).stderr > 0


def test_a_side_of_one_unit_has_an_infinite_stderr() -> None:
    units = np.array([0, 1, 1, 1])
    members = np.array([units == 0, units == 1] * 2)
    losses = np.random.default_rng(0).random((4, 4))
    assert risk.auc(MembershipEvidence(losses=losses, members=members, units=units)).stderr == math.inf


def test_one_user_alone_has_no_two_sides() -> None:
    e = MembershipEvidence(
        losses=np.ones((4, 5)), members=np.repeat([[True], [False]] * 2, 5, axis=1), units=np.zeros(5, dtype=int)
    )
    with pytest.raises(InputError, match="members must have both sides"):
        risk.auc(e, level="user")


UNITS, SIDES = np.arange(6), np.array([[True, False] * 3, [False, True] * 3] * 2)
NAN = np.full((4, 6), np.nan)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: attack_scores(EIGHT, lambda e: e.losses * np.nan), "scores must have shape"),
        (lambda: attack_scores(EIGHT, lambda e: e.losses[0]), "scores must have shape"),
        (
            lambda: attack_scores(dataclasses.replace(EIGHT, units=EIGHT.units / 2)),
            "units must be whole numbers of shape",
        ),
        (lambda: uncertainty.auc_with_stderr(NAN, SIDES, UNITS), "scores must have shape"),
        (lambda: uncertainty.balanced_with_stderr(NAN, SIDES, UNITS), "scores must have shape"),
        (lambda: uncertainty.auc_with_stderr(np.ones((4, 6)), SIDES | True, UNITS), "members must have both sides"),
        (
            lambda: uncertainty.auc_with_stderr(np.ones((4, 6)), SIDES, UNITS[1:]),
            "units must be whole numbers of shape",
        ),
        (lambda: uncertainty.over_shadows(np.ones(3), np.ones((3, 6)), UNITS), "K must be even"),
        (lambda: uncertainty.over_shadows(np.full(4, np.nan), np.ones((4, 6)), UNITS), "per_shadow must have no NaN"),
        (lambda: uncertainty.over_shadows(np.ones(2), np.ones((2, 6)), UNITS), "K must be even"),
        (lambda: uncertainty.over_shadows(np.ones(4), np.full((4, 6), np.nan), UNITS), "influence must have no NaN"),
        (lambda: uncertainty.WeightedTpr(NAN, SIDES, 0.1), "scores must have shape"),
        (lambda: uncertainty.bootstrap(lambda _: math.nan, UNITS, np.random.default_rng(0)), "lost one"),
        (lambda: risk.tpr(EIGHT, 0.1, n_resamples=1), "n_resamples"),
        (lambda: risk.tpr(EIGHT, math.nan), "fpr"),
        (lambda: risk.MembershipRisk(level="group"), "level must be one of"),  # type: ignore[arg-type]
        (lambda: metrics.placements(np.ones(3), np.ones(3, dtype=bool)), "nonmember_scores must be a non-empty"),
        (lambda: metrics.balanced_accuracy(np.ones(3), np.zeros(3), math.nan), "threshold"),
        (lambda: quantile.fit_quantile(np.ones((3, 1)), np.ones((2, 3)), 1.5), "quantile"),
        (lambda: sampling.poisson_p_value([np.array([1, 1])], n_units=5, sample_rate=0.5), "must have no repeats"),
        (lambda: sampling.poisson_p_value([np.array([1])], n_units=0, sample_rate=0.5), "n_units"),
        (lambda: mean_bits(np.array([])), "bits must be a non-empty"),
        (lambda: mean_bits(np.array([np.nan])), "bits must be a non-empty"),
        (lambda: bounded_share(np.array([np.nan]), np.zeros(1, dtype=int), 5), "values must be a non-empty"),
        (lambda: bounded_share(np.array([]), np.zeros(0, dtype=int), 5), "values must be a non-empty"),
        (lambda: bounded_advantage(EIGHT, "loss", 5, level="group"), "level must be one of"),  # type: ignore[arg-type]
        (lambda: bounded_advantage(EIGHT, "loss", 0), "floor"),
        (
            lambda: bounded_accuracy(
                UtilityEvidence(log_probs=np.full((4, 2, 2), np.nan), labels=UNITS[:2], units=UNITS[:2]), 5
            ),
            "log_probs",
        ),
        (
            lambda: attribute_risk(dataclasses.replace(attribute_evidence(0), labels=np.full(600, 2))),
            "labels must be between 0 and 1",
        ),
        (
            lambda: attribute_risk(
                dataclasses.replace(attribute_evidence(0), members=attribute_evidence(0).members[:3])
            ),
            "K must be even",
        ),
    ],
)
def test_bad_input_is_refused_by_name(call: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()


def test_canaries_with_equal_scores_are_guessed_by_chance_in_whatever_order_they_come() -> None:
    for first in (True, False):
        found = one_run.guess(np.zeros(1000), np.r_[np.full(500, first), np.full(500, not first)], 1000)
        assert abs(found.correct - 500) < 60


def test_secrets_that_all_come_first_have_a_standard_error() -> None:
    assert mean_bits(np.full(10, 7.0)) == Measurement(value=7.0, stderr=0.1)


def test_a_risk_that_was_not_assessed_holds_no_limit_and_is_shown_as_such() -> None:
    params = TrialParams(target_epsilon=1.0, masking_level=0, lora_rank=1, learning_rate=1e-3, adapted_layers=0)
    unknown, known = Measurement(value=math.nan, note="not assessed: x"), Measurement(value=0.1, stderr=0.01)
    told = [
        TrialRecord(
            number=i,
            params=params,
            state="complete",
            objectives={ACCURACY: Measurement(value=0.9), RISK: m, PENALTY: known},
            constraints={"max_risk": 1.0 if m is unknown else -0.1},
        )
        for i, m in enumerate((known, unknown))
    ]
    spent = ComposedEpsilon(private_part=1.0, delta=1e-5, includes_non_private=False)
    cost = SearchCost(policy="internal", composed_epsilon=spent, delta=1e-5, label="", data_epsilon=spent)
    result = StudyResult(name="s", spec={}, trials=tuple(told), reference=None, limits={}, cost=cost)
    assert result.hypervolumes[0] == result.hypervolumes[1] > 0
    assert result.on_front == {0}
    assert told[1].blocking == ("max_risk",)
    assert "not assessed" in describe(told[1], {"max_risk": 0.1, "max_penalty": 0.5}, EN)
    assert plus_minus(unknown, EN["unknown"]) == "not assessed"


def test_outputs_that_tell_nothing_of_users_are_not_assessed() -> None:
    e = attribute_evidence(1)
    flat = attribute_risk(dataclasses.replace(e, log_probs=np.full(e.log_probs.shape, math.log(0.5))))
    assert "every record has the same outputs" in flat.leakage.note
    alike = attribute_risk(dataclasses.replace(e, log_probs=e.log_probs[[0, 0, 2, 2]]))
    assert math.isnan(alike.training.value)
    nothing = Measurement(value=math.nan, note="not assessed: x")
    assert combined(nothing, Measurement(value=0.3)) is nothing
