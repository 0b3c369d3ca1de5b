"""Distribution of risk: the attack's advantage by decile of exposed users.

A mean can hide the few who are given away.
"""

import math

import numpy as np

from moo.core import validate
from moo.core.evidence import Bools, Floats, Ints, MembershipEvidence
from moo.core.measurement import Measurement, not_assessed
from moo.core.messages import Message
from moo.objectives.membership.attacks.registry import attack_scores
from moo.objectives.membership.checks import tells_nothing
from moo.objectives.membership.metrics import placements
from moo.objectives.membership.risk import by_user
from moo.objectives.membership.uncertainty import Attack
from moo.objectives.statistics.clusters import clustered_stderr

# Users of a group at the least: with 15 its 95 % intervals hold 90 %, with 30 they hold 94
# (simulated).
MIN_USERS = 30


def exposure_deciles(
    evidence: MembershipEvidence, attack: str | Attack = "pair_reference", *, n_groups: int = 10
) -> tuple[Measurement, ...]:
    """Return the advantage of the attack by exposure group of users, the least exposed first.

    Users are ranked by the *other* pairs of shadows and measured on the pair that was left out, in
    turn: ranked and measured on the same shadows the last group would look exposed where nothing
    leaks. With few pairs the ranks are rough, and the groups are then less far apart than in truth.

    Args:
        evidence: Losses of K shadows in complementary pairs.
        attack: As in `auc`.
        n_groups: How many groups.

    Returns:
        One measurement a group; their mean is about the advantage at the level of users. "Not
        assessed" where a group would hold fewer than 30 users, or as in `auc`.

    Raises:
        InputError: If the evidence is unfit, or n_groups < 2.
    """
    validate.in_range(2, 1000, n_groups=n_groups)
    scores, members, users = by_user(attack_scores(evidence, attack), evidence.members, evidence.units)
    if len(users) < MIN_USERS * n_groups:
        too_few = Message(
            "{n_groups} groups of {size} users need {needed}, there are {n}",
            n_groups=n_groups,
            size=MIN_USERS,
            needed=MIN_USERS * n_groups,
            n=len(users),
        )
        return (not_assessed(too_few),) * n_groups
    if why := tells_nothing(scores):
        return (not_assessed(why),) * n_groups
    placed = np.stack([placements(row, side) for row, side in zip(scores, members, strict=True)])
    pairs = placed.reshape(-1, 2, len(users)).mean(axis=1)
    others = (pairs.sum(axis=0) - pairs) / (len(pairs) - 1)
    rank = others.argsort(axis=1, kind="stable").argsort(axis=1)
    group = np.repeat(rank * n_groups // len(users), 2, axis=0)
    return tuple(_measured(placed, scores, members, group == g, users) for g in range(n_groups))


def _measured(placed: Floats, scores: Floats, members: Bools, inside: Bools, users: Ints) -> Measurement:
    """Return the group's mean placement over the shadows, as an advantage.

    A user's rows go together in the standard error.
    """
    rows = [_influence(*row) for row in zip(placed, scores, members, inside, strict=True)]
    means = np.array([row[inner].mean() for row, inner in zip(placed, inside, strict=True)])
    size = int(inside[0].sum())
    stderr = clustered_stderr(np.mean(rows, axis=0), users) * math.sqrt(size / (size - 1))
    return Measurement(value=2 * float(means.mean()) - 1, stderr=2 * max(stderr, 1 / size))


def _influence(placed: Floats, scores: Floats, members: Bools, inside: Bools) -> Floats:
    """Return the first-order change of one shadow's group mean due to each user.

    As one of the group, and as one whom the group is compared with.
    """
    size = inside.sum()
    own: Floats = np.where(inside, (placed - placed[inside].mean()) / size, 0.0)
    for side in (True, False):
        compared, against = inside & (members == side), members != side
        ordered = np.sort(scores[compared])
        below = (
            np.searchsorted(ordered, scores[against], "left") + np.searchsorted(ordered, scores[against], "right")
        ) / 2
        right = ordered.size - below if side else below
        own[against] += (right - placed[compared].sum()) / (size * against.sum())
    return own


def worst_decile(evidence: MembershipEvidence, attack: str | Attack = "pair_reference") -> Measurement:
    """Return the advantage on the most exposed tenth of the users; see `exposure_deciles`."""
    return exposure_deciles(evidence, attack)[-1]
