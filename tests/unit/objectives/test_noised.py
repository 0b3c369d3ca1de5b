"""Bounded objectives: no neighbouring data set moves them by more than the sensitivity that public numbers promise."""

from typing import Literal

import numpy as np
import pytest

from moo.core.errors import InputError
from moo.core.evidence import MembershipEvidence, UtilityEvidence
from moo.objectives.membership.risk import ATTACKS, membership_risk
from moo.objectives.release.noised import bounded_accuracy, bounded_advantage, bounded_share, public_floor, sensitivity
from moo.objectives.utility.accuracy import accuracy
from tests.fixtures.evidence import membership_evidence


def without(evidence: MembershipEvidence, unit: int) -> MembershipEvidence:
    keep = evidence.units != unit
    return MembershipEvidence(
        losses=evidence.losses[:, keep], members=evidence.members[:, keep], units=evidence.units[keep]
    )


@pytest.mark.parametrize("level", ["record", "user"])
@pytest.mark.parametrize("attack", sorted(name for name, a in ATTACKS.items() if a.own_losses))
@pytest.mark.parametrize("floor", [3, 12, 40])
def test_removing_any_unit_moves_the_advantage_by_at_most_the_sensitivity(
    attack: str, floor: int, level: Literal["record", "user"]
) -> None:
    for seed in range(3):
        evidence = membership_evidence(np.random.default_rng(seed), 30, k=ATTACKS[attack].min_shadows)
        whole = bounded_advantage(evidence, attack, floor, level=level)
        moved = [abs(bounded_advantage(without(evidence, u), attack, floor, level=level) - whole) for u in range(30)]
        assert max(moved) <= sensitivity(floor) + 1e-12
        assert -1 <= whole <= 1


@pytest.mark.parametrize("attack", sorted(name for name, a in ATTACKS.items() if not a.own_losses))
def test_an_attack_that_looks_at_other_units_tells_no_noised_answer(attack: str) -> None:
    with pytest.raises(InputError, match="attack must be one of"):
        bounded_advantage(membership_evidence(np.random.default_rng(0), 30), attack, 10)


def test_the_worst_neighbour_comes_close_to_the_sensitivity() -> None:
    """All members score below all non-members, but one unit stands the other way round: the bound is not idle."""
    n, floor = 41, 20
    sides = np.arange(n) < 21
    members = np.stack([sides, ~sides, sides, ~sides])
    losses = np.where(members, 2.0, 1.0)
    losses[:, 0] = np.where(members[:, 0], 0.0, 3.0)
    evidence = MembershipEvidence(losses=losses, members=members, units=np.arange(n))
    moved = abs(bounded_advantage(without(evidence, 0), "loss", floor) - bounded_advantage(evidence, "loss", floor))
    assert 0.9 * sensitivity(floor) < moved <= sensitivity(floor)


def test_above_the_floor_with_one_record_a_unit_it_is_the_advantage() -> None:
    evidence = membership_evidence(np.random.default_rng(1), 200, most=1)
    assert bounded_advantage(evidence, "pair_reference", 10) == pytest.approx(
        membership_risk(evidence, "pair_reference").value
    )
    halved = bounded_advantage(evidence, "pair_reference", 400)
    assert abs(halved) < abs(membership_risk(evidence, "pair_reference").value)


@pytest.mark.parametrize("floor", [2, 10, 60])
def test_removing_any_unit_moves_the_share_by_at_most_half_the_sensitivity(floor: int) -> None:
    rng = np.random.default_rng(2)
    units = np.repeat(np.arange(20), rng.integers(1, 6, 20))
    values = rng.integers(0, 2, len(units)).astype(float)
    whole = bounded_share(values, units, floor)
    for unit in range(20):
        keep = units != unit
        assert abs(bounded_share(values[keep], units[keep], floor) - whole) <= sensitivity(floor) / 2 + 1e-12
    assert 0 <= whole <= 1


def test_accuracy_by_unit_is_the_accuracy_where_units_have_one_record() -> None:
    rng = np.random.default_rng(3)
    evidence = UtilityEvidence(
        log_probs=np.log(rng.dirichlet([1, 1], (4, 90))), labels=rng.integers(0, 2, 90), units=np.arange(90)
    )
    assert bounded_accuracy(evidence, 50) == pytest.approx(accuracy(evidence).value)


def test_a_keyed_split_hardly_ever_falls_below_its_public_floor() -> None:
    rng = np.random.default_rng(4)
    floor = public_floor(1300, 0.33)
    sizes = rng.binomial(1300, 0.33, 20_000)
    assert (sizes < floor).mean() < 1e-3
    assert floor > 0.8 * 1300 * 0.33
    assert public_floor(3, 0.01) == 1
