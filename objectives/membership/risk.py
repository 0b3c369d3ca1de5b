"""Second objective: success of the attack that was named before the study."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from moo.core import validate
from moo.core.evidence import Bools, Floats, Ints, MembershipEvidence, TrialEvidence
from moo.core.measurement import Measurement, not_assessed
from moo.core.messages import Message
from moo.core.trial_record import RISK
from moo.objectives.membership.attacks.registry import ATTACKS, attack_scores, refers, training_scale
from moo.objectives.membership.checks import check_unit_rows, tells_nothing
from moo.objectives.membership.metrics import allowed_false_positives
from moo.objectives.membership.uncertainty import (
    Attack,
    WeightedTpr,
    auc_with_stderr,
    balanced_with_stderr,
    bootstrap,
    never_nothing,
)
from moo.objectives.objective import Direction
from moo.objectives.statistics.clusters import unit_codes

Level = Literal["record", "user"]


def by_user(values: Floats, members: Bools, units: Ints) -> tuple[Floats, Bools, Ints]:
    """Return the mean score of each user's records, with the user's side and number.

    Args:
        values: Shape (K, n).
        members: Shape (K, n), constant within units.
        units: Shape (n,).

    Returns:
        Scores (K, U), members (K, U), units (U,).

    Raises:
        InputError: If a unit has records on both sides of a shadow.
    """
    check_unit_rows(members, units)
    codes, count = unit_codes(units)
    sums = np.stack([np.bincount(codes, weights=row, minlength=count) for row in values])
    _, first = np.unique(codes, return_index=True)
    return sums / np.bincount(codes), members[:, first], np.arange(count)


def scored(evidence: MembershipEvidence, attack: str | Attack, level: Level) -> tuple[Floats, Bools, Ints]:
    """Return scores, sides and unit numbers, of records or of users; see `by_user`."""
    validate.one_of(("record", "user"), level=level)
    values = attack_scores(evidence, attack)
    if level == "user":
        return by_user(values, evidence.members, evidence.units)
    return values, evidence.members, evidence.units


def auc(
    evidence: MembershipEvidence,
    *,
    attack: str | Attack = "pair_reference",
    level: Level = "record",
    private: bool = True,
) -> Measurement:
    """Return the Mann-Whitney AUC of an attack, mean over the shadows, with its error's law.

    Args:
        evidence: Losses of K shadows in complementary pairs.
        attack: A name of `ATTACKS`, or a function from evidence to scores of shape (K, n).
        level: "record", or "user" to score users by the mean over their records.
        private: False for shadows trained without DP: their trainings vary more, the interval is
            then wider.

    Returns:
        A fraction; "not assessed" where all scores are the same, or those of the two shadows of
        every pair.

    Raises:
        InputError: If the evidence is unfit (NaN or infinite losses, unpaired rows, an empty side);
            the argument is named.
    """
    units = scored(evidence, attack, level)
    if why := tells_nothing(units[0]):
        return not_assessed(why)
    value, spread = auc_with_stderr(*units, refers=refers(attack), prior=training_scale(attack, private=private))
    return Measurement(value=value, stderr=spread.stderr, df=spread.df)


def membership_risk(
    evidence: MembershipEvidence,
    attack: str | Attack = "pair_reference",
    *,
    level: Level = "record",
    private: bool = True,
) -> Measurement:
    """Return the advantage 2 AUC - 1 of the attack, in [-1, 1] and unclipped; see `auc`.

    With the law of its error.
    """
    area = auc(evidence, attack=attack, level=level, private=private)
    return dataclasses.replace(area, value=2.0 * area.value - 1.0, stderr=2.0 * area.stderr)


def balanced_accuracy(
    evidence: MembershipEvidence,
    *,
    attack: str | Attack = "pair_reference",
    level: Level = "record",
    private: bool = True,
) -> Measurement:
    """Return balanced accuracy at each shadow's median score, with its standard error.

    Mean over the shadows.

    At the null it is one half: the median knows no label, while the best threshold in hindsight
    would be biased upward.
    """
    units = scored(evidence, attack, level)
    if why := tells_nothing(units[0]):
        return not_assessed(why)
    value, spread = balanced_with_stderr(*units, refers=refers(attack), prior=training_scale(attack, private=private))
    return Measurement(value=value, stderr=spread.stderr, df=spread.df)


def tpr(
    evidence: MembershipEvidence,
    fpr: float = 0.01,
    *,
    attack: str | Attack = "pair_reference",
    level: Level = "record",
    n_resamples: int = 200,
    seed: int = 0,
) -> Measurement:
    """Return the true-positive rate at a fixed false-positive rate, mean over shadows.

    Its error comes from a bootstrap over units.

    The bootstrap draws its threshold again each time: an interval that takes the threshold for known
    is too short.

    Args:
        evidence: Losses of K shadows in complementary pairs.
        fpr: A fraction in (0, 1).
        attack: As in `auc`.
        level: As in `auc`.
        n_resamples: Bootstrap samples of whole units.
        seed: Of the bootstrap.

    Returns:
        TPR in [0, 1]; "not assessed" where the non-members are fewer than ten times 1 / fpr, or as
        of `auc`.

    Raises:
        InputError: If the evidence is unfit, fpr is outside (0, 1), or n_resamples < 2.
    """
    values, members, units = scored(evidence, attack, level)
    fewest = int((~members).sum(axis=1).min())
    allowed_false_positives(math.inf if fpr <= 0 else 10 / fpr, fpr)
    if fewest < round(10 / fpr):
        few = Message(
            "TPR at {fpr:.1%} FPR needs {needed} non-members, there are {n}", fpr=fpr, needed=round(10 / fpr), n=fewest
        )
        return not_assessed(few)
    if why := tells_nothing(values):
        return not_assessed(why)
    rate = WeightedTpr(values, members, fpr)
    draws = bootstrap(rate, units, np.random.default_rng(seed), n_resamples)
    stderr = never_nothing(float(draws.std(ddof=1)), members, units)
    return Measurement(value=rate(np.ones(len(units), dtype=int)), stderr=stderr)


@dataclass(frozen=True, kw_only=True)
class MembershipRisk:
    """The second objective of a trial.

    Attributes:
        attack: Fixed before the study: the largest of several attacks on the same records is biased
            upward.
        level: "record" or "user".
    """

    attack: str | Attack = "pair_reference"
    level: Level = "record"
    name: str = RISK
    direction: Direction = "minimize"
    unit: str = "advantage, 2 AUC - 1"

    def __call__(self, evidence: TrialEvidence) -> Measurement:
        return membership_risk(evidence.membership, self.attack, level=self.level, private=evidence.params.private)

    def __post_init__(self) -> None:
        validate.one_of(("record", "user"), level=self.level)
        if isinstance(self.attack, str):
            validate.one_of(ATTACKS, attack=self.attack)
