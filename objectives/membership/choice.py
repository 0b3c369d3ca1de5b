"""Attack chosen on one half of the units and reported on the other.

The largest of several on the same data is biased upward.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from moo.core.errors import InputError
from moo.core.evidence import MembershipEvidence
from moo.objectives.membership.attacks.registry import ATTACKS
from moo.objectives.membership.risk import Level, auc
from moo.objectives.statistics.clusters import unit_codes

# As a study's attack: not named before, but chosen in every trial.
CHOSEN = "chosen"


@dataclass(frozen=True)
class ChosenAttack:
    """Chosen attack, and the evidence left to report it on.

    Attributes:
        attack: Name of the attack with the largest AUC on the choosing half.
        evidence: On the records of the other half alone.
    """

    attack: str
    evidence: MembershipEvidence


def choose(
    evidence: MembershipEvidence,
    candidates: Sequence[str] = (),
    *,
    level: Level = "record",
    seed: int = 0,
) -> ChosenAttack:
    """Choose the strongest attack on half of the units, and return the other half's evidence.

    A record's score refers to other shadows, never to other records (but to the population, which
    stays), so each half is complete evidence. The price is a standard error that is larger by the
    square root of two.

    Args:
        evidence: Losses of K shadows in complementary pairs.
        candidates: Names of attacks; by default all that the evidence has what they need for.
        level: As in `auc`.
        seed: Of the split, so that every trial of a study is split alike.

    Raises:
        InputError: If there are fewer than four units, or no candidates.
    """
    names = tuple(candidates) or possible(evidence)
    codes, count = unit_codes(evidence.units)
    if count < 4 or not names:
        raise InputError(
            "A choice needs at least 4 units and 1 candidate, got {count} units and candidates={names}.",
            count=count,
            names=names,
        )
    first = np.random.default_rng(seed).permutation(count)[codes] < count // 2
    half = evidence.take(first)
    areas = {name: auc(half, attack=name, level=level).value for name in names}
    # NaN is larger than nothing.
    assessed = {name: value for name, value in areas.items() if not math.isnan(value)} or areas
    return ChosenAttack(max(assessed, key=lambda name: assessed[name]), evidence.take(~first))


def possible(evidence: MembershipEvidence) -> tuple[str, ...]:
    """Return names of the attacks that have what they need in the evidence."""
    missing = set()
    if evidence.base_losses is None:
        missing |= {"base_difference", "quantile"}
    if evidence.population is None:
        missing |= {"rmia_offline", "quantile"}
    elif evidence.population.base_losses is None:
        missing.add("quantile")
    k = len(evidence.members)
    return tuple(name for name, attack in ATTACKS.items() if attack.min_shadows <= k and name not in missing)
