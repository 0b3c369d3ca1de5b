"""The recommended point.

The most accurate whose limits hold, its alternatives, and what is said where there is none.
"""

import dataclasses
import math
from collections.abc import Mapping

import pytest

from moo.core.measurement import Measurement
from moo.core.trial_record import ABOVE_MAJORITY, ACCURACY, MAJORITY, PENALTY, RISK, TrialParams, TrialRecord
from moo.report.sections.choices import _trade
from moo.report.sections.texts import ZH
from moo.studies.results.recommendation import SURE, p_feasible, recommend, trade
from moo.studies.trial.judge import over_limit
from moo.studies.workflows.pooled import pooled

LIMITS = {"max_risk": 0.1, "max_penalty": 0.35}
PARAMS = TrialParams(target_epsilon=4.0, masking_level=3, lora_rank=4, learning_rate=1e-3, adapted_layers=0)


def at(
    number: int,
    accuracy: float,
    risk: float,
    penalty: float = 0.2,
    *,
    errors: tuple[float, float, float] = (0.015, 0.014, 0.0),
    df: float = math.inf,
    gates: Mapping[str, float] = {},
) -> TrialRecord:
    values = (accuracy, risk, penalty)
    objectives = {
        n: Measurement(value=v, stderr=e) for n, v, e in zip((ACCURACY, RISK, PENALTY), values, errors, strict=True)
    }
    objectives[RISK] = dataclasses.replace(objectives[RISK], df=df)
    constraints = {"max_risk": over_limit(objectives[RISK], 0.1), "max_penalty": penalty - 0.35, **gates}
    return TrialRecord(
        number=number, params=PARAMS, state="complete", objectives=objectives, constraints=constraints, claim="holds"
    )


def test_a_limit_is_compared_with_the_upper_bound() -> None:
    assert over_limit(Measurement(value=0.08, stderr=0.01), 0.1) == pytest.approx(0.08 + 1.6449 * 0.01 - 0.1, abs=1e-5)
    few = Measurement(value=0.08, stderr=0.01, df=3)
    assert over_limit(few, 0.1) == pytest.approx(0.08 + 2.3534 * 0.01 - 0.1, abs=1e-5)
    assert (few.low, few.high) == pytest.approx((0.08 - 3.1824 * 0.01, 0.08 + 3.1824 * 0.01), abs=1e-5)
    assert Measurement.from_json(few.to_json()) == few
    assert over_limit(Measurement(value=math.nan, note="not assessed: none"), 0.1) == 1.0
    assert over_limit(Measurement(value=0.0, stderr=math.inf), 0.1) == 1.0
    assert not at(0, 0.8, 0.09).feasible
    assert at(0, 0.8, 0.07).feasible


def test_the_probability_of_being_feasible_counts_every_limit() -> None:
    assert p_feasible(at(0, 0.8, 0.1 - 0.014 * 1.2816), LIMITS) == pytest.approx(0.9, abs=1e-4)
    assert p_feasible(at(0, 0.8, 0.1 - 0.014 * 1.6377, df=3), LIMITS) == pytest.approx(0.9, abs=1e-4)
    assert p_feasible(at(0, 0.8, -1.0, 0.35, errors=(0.01, 0.01, 0.05)), LIMITS) == pytest.approx(0.5)
    assert p_feasible(at(0, 0.8, 0.0, gates={"G01": 1.0}), LIMITS) == 0.0
    assert p_feasible(at(0, 0.8, 0.0, gates={"G01": -1.0}), LIMITS) == pytest.approx(1.0)
    assert p_feasible(at(0, 0.8, math.nan), LIMITS) == 0.0


def test_the_most_accurate_that_holds_is_recommended_and_the_others_are_told() -> None:
    lucky, best, knee, safe = at(0, 0.74, 0.09), at(1, 0.715, 0.07), at(2, 0.71, 0.01, 0.1), at(3, 0.60, -0.01, 0.3)
    mild = at(4, 0.58, 0.02, 0.05)
    quo = dataclasses.replace(at(-1, 0.80, 0.4, 0.9), number=-1)
    chosen, *others = recommend([lucky, best, knee, safe, mild], LIMITS, {}, reference=quo)
    assert chosen.trial is best
    assert chosen.name == "most accurate"
    assert chosen.p_feasible == p_feasible(best, LIMITS) >= SURE
    assert chosen.trade.startswith("you give up 8.5 points of accuracy against the status quo; membership risk -0.330")
    assert {r.name: r.trial for r in others} == {"knee": knee, "least risk": safe, "smallest penalty": mild}
    assert (
        others[0].trade
        == "you give up 0.5 points of accuracy against trial 1; membership risk -0.060; compliance penalty -0.100"
    )
    weighed, *rest = recommend([lucky, best, knee, safe, mild], LIMITS, {ACCURACY: 1.0, RISK: 1.0, PENALTY: 1.0})
    assert weighed.trial is knee
    assert rest[0].trial is best
    assert rest[0].trade.startswith("you gain 0.5 points of accuracy against trial 2")


def test_a_point_less_sure_than_nine_in_ten_is_an_alternative_and_never_the_recommendation() -> None:
    bold = at(0, 0.75, 0.0, 0.34, errors=(0.01, 0.01, 0.02))
    sure = at(1, 0.70, 0.0, 0.2)
    assert bold.feasible
    chosen, *others = recommend([bold, sure], LIMITS, {})
    assert chosen.trial is sure
    assert [r.name for r in others] == ["less sure"]
    alone, *left = recommend([bold], LIMITS, {})
    assert alone.trial is None
    assert alone.reason == "no trial holds its limits with probability 0.9; the nearest is trial 0, at 0.69"
    assert [r.trial for r in left] == [bold]
    nothing, *none = recommend([at(0, 0.75, 0.3)], LIMITS, {})
    assert nothing.trial is None
    assert "the nearest is trial 0, which breaks max_risk" in nothing.reason
    assert none == []


def test_a_trade_is_said_part_by_part_in_chinese() -> None:
    two = [at(1, 0.715, 0.07), at(2, 0.71, 0.01, 0.1)]
    other = recommend(two, LIMITS, {})[1]
    assert _trade(other.trade, ZH) == "与试验 1相比，准确率降低 0.5 个百分点；成员推断风险 -0.060；合规罚分 -0.100"


def test_one_trial_with_several_roles_is_said_once() -> None:
    chosen, *others = recommend([at(0, 0.7, 0.0)], LIMITS, {})
    assert chosen.name == "most accurate, knee, least risk, smallest penalty"
    assert others == []


def test_a_point_trained_again_stays_unless_another_is_more_accurate_by_a_standard_error() -> None:
    before = at(1, 0.72, 0.05)
    near, far = at(2, 0.712, 0.05), at(3, 0.74, 0.05)
    kept = recommend([at(1, 0.70, 0.05), near], LIMITS, {}, incumbent=before)[0]
    assert kept.trial is not None
    assert kept.trial.number == 1
    assert "chosen by the search" in kept.reason
    for others in ([at(1, 0.70, 0.05), far], [at(1, 0.70, 0.2), far], [far]):
        assert recommend(others, LIMITS, {}, incumbent=before)[0].trial is far


@pytest.mark.parametrize(("above", "warned"), [(None, False), (0.021, False), (0.02, True), (-0.1, True)])
def test_a_trial_not_above_the_largest_class_is_not_recommended_without_a_word(
    above: float | None, warned: bool
) -> None:
    extras = {} if above is None else {MAJORITY: Measurement(value=0.7 - above)}
    extras |= {} if above is None else {ABOVE_MAJORITY: Measurement(value=above, stderr=0.01)}
    one = dataclasses.replace(at(0, 0.7, 0.0), extras=extras)
    assert ("naming the largest class" in recommend([one], LIMITS, {})[0].reason) == warned


def test_a_trade_without_a_difference_says_so() -> None:
    same = trade(at(0, 0.7, 0.01), at(1, 0.7, math.nan))
    assert same == "you give up nothing in accuracy against trial 1; compliance penalty +0.000"


def test_both_trainings_of_a_point_count_by_their_errors_and_its_limit_is_judged_anew() -> None:
    searched, again = at(1, 0.70, 0.06, errors=(0.015, 0.02, 0.0)), at(1, 0.73, 0.09, errors=(0.014, 0.01, 0.0))
    both = pooled(searched, again, max_risk=0.1)
    assert not again.feasible
    assert both.objectives[RISK].value == pytest.approx(0.06 / 5 + 0.09 * 4 / 5)
    assert both.objectives[RISK].stderr == pytest.approx((0.02**-2 + 0.01**-2) ** -0.5)
    assert both.objectives[ACCURACY].value == pytest.approx(0.724)
    assert dataclasses.replace(both.objectives[ACCURACY], value=0.0) == Measurement(value=0.0, stderr=0.014)
    assert both.feasible
    assert both.constraints["max_risk"] == pytest.approx(both.objectives[RISK].upper - 0.1)
    unknown = at(1, 0.7, math.nan)
    assert pooled(unknown, again, max_risk=0.1) is again
