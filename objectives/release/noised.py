"""Objectives with Gaussian noise, bounded by unit.

Public or noised numbers alone decide the sensitivity.

A mean over units divides by their number, which is private. Here the divisor is max(number, floor),
where the floor is public or comes from a noised count: with scores in [-1, 1], adding or removing
one unit then moves the mean by at most 2 / (floor + 1). (Below the floor only the numerator moves,
by 1 / floor at most; above it, (a + d) / (m + 1) - a / m = (d - a / m) / (m + 1).) Where there are
fewer units than the floor the mean shrinks towards 0, never beyond: a floor must be below the
number of units that the legal gates leave, or every number is biased.
"""

import math

import numpy as np

from moo.core import validate
from moo.core.errors import InputError
from moo.core.evidence import Bools, Floats, Ints, MembershipEvidence, UtilityEvidence
from moo.objectives.membership.attacks.registry import ATTACKS, attack_scores
from moo.objectives.membership.checks import check_unit_rows, check_units
from moo.objectives.membership.risk import Level, by_user
from moo.objectives.membership.uncertainty import Attack
from moo.objectives.statistics.clusters import unit_codes
from moo.objectives.utility.accuracy import check_utility

# Standard deviations of the floor below the expected number: it binds in one study of 30,000.
FLOOR_SDS = 4.0


def public_floor(n_units: int, share: float) -> int:
    """Return the least units of a part of a keyed split, but for one study in 30,000; >= 1.

    Args:
        n_units: Units that are split, or fewer; public or noised.
        share: Of the part, in (0, 1).
    """
    validate.in_range(0, 1, share=share)
    return max(1, math.floor(n_units * share - FLOOR_SDS * math.sqrt(n_units * share * (1 - share))))


def sensitivity(floor: int) -> float:
    """Return the most by which one unit moves a bounded mean of scores in [-1, 1]."""
    return 2.0 / (validate.positive(floor=floor) + 1)


def bounded_share(values: Floats, units: Ints, floor: int) -> float:
    """Return the mean of units' means of values in [0, 1].

    Below the floor it is shrunk towards 1/2.

    Its sensitivity is `sensitivity(floor)` / 2.

    Args:
        values: Shape (n,), in [0, 1].
        units: Shape (n,).
        floor: Public, >= 1.

    Raises:
        InputError: If the values hold NaN, there are none, the units have another shape, or floor <
            1.
    """
    validate.in_range(1, 10**12, floor=floor)
    if not values.size or np.isnan(values).any():
        raise InputError("values must be a non-empty vector without NaN, got shape {shape}.", shape=values.shape)
    check_units(units, len(values))
    codes, count = unit_codes(units)
    means = np.bincount(codes, weights=np.clip(values, 0.0, 1.0), minlength=count) / np.bincount(codes, minlength=count)
    return 0.5 + float((means - 0.5).sum()) / max(count, floor)


def bounded_accuracy(evidence: UtilityEvidence, floor: int) -> float:
    """Return the accuracy by unit, mean over the shadows; see `bounded_share`.

    Raises:
        InputError: If the evidence is unfit, or floor < 1.
    """
    check_utility(evidence)
    right = (evidence.log_probs.argmax(axis=2) == evidence.labels).mean(axis=0)
    return bounded_share(right, evidence.units, floor)


def bounded_advantage(
    evidence: MembershipEvidence, attack: str | Attack, floor: int, *, level: Level = "record"
) -> float:
    """Return the advantage of an attack, 2 AUC - 1, every unit with weight one.

    However many records it has; mean over the shadows.

    Its sensitivity is `sensitivity(floor)`: an added unit joins one side of a shadow and meets each
    unit of the other in a comparison that scores in [-1, 1]. The attack must score a unit by that
    unit's own losses alone: named ones that do not are refused.

    Args:
        evidence: Losses of K shadows in complementary pairs.
        attack: As in `membership_risk`.
        floor: Public number of units on each side of a shadow.
        level: As in `membership_risk`.

    Returns:
        In [-1, 1], shrunk towards 0 where a side holds fewer units than the floor.

    Raises:
        InputError: If the named attack looks at other units' losses, the evidence is unfit, there
            is no such level, or floor < 1.
    """
    validate.in_range(1, 10**12, floor=floor)
    validate.one_of(("record", "user"), level=level)
    if isinstance(attack, str):
        alone = [name for name, known in ATTACKS.items() if known.own_losses]
        validate.one_of(alone, attack=attack, way_out="the noise of an answer covers no other attack")
    check_unit_rows(evidence.members, evidence.units)
    values, members, units = attack_scores(evidence, attack), evidence.members, evidence.units
    if level == "user":
        values, members, units = by_user(values, members, units)
    codes, _ = unit_codes(units)
    weights = 1.0 / np.bincount(codes)[codes]
    return float(np.mean([_advantage(row, side, weights, floor) for row, side in zip(values, members, strict=True)]))


def _advantage(values: Floats, members: Bools, weights: Floats, floor: int) -> float:
    """Return the bounded sum over pairs of weight x weight x sign(member - non-member).

    Over the bounded numbers of units on both sides.
    """
    inside, outside = values[members], values[~members]
    order = np.argsort(outside, kind="stable")
    ordered, total = outside[order], np.concatenate([[0.0], np.cumsum(weights[~members][order])])
    below, upto = (total[np.searchsorted(ordered, inside, side)] for side in ("left", "right"))
    signs = below - (total[-1] - upto)
    sides = max(weights[members].sum(), floor) * max(total[-1], floor)
    return float((weights[members] * signs).sum() / sides)
