"""Attack scores of K shadows in K/2 complementary pairs: losses in, (K, n) scores out.

Whatever refers to other shadows leaves out the *whole* pair of the shadow under attack: for every
record the other K - 2 hold K/2 - 1 that were trained on it and as many that were not, whether the
record is a member or not. Plain leave-one-out over random halves gives members one reference of
another kind than non-members, and the label leaks through that count alone.
"""

import numpy as np

from moo.core.evidence import Bools, Floats
from moo.objectives.membership.checks import check_matrix, check_pairs


def loss(losses: Floats) -> Floats:
    """Return minus the loss itself: the attack of Yeom et al. 2018. Shape (K, n) to (K, n)."""
    return -losses


def base_difference(losses: Floats, base_losses: Floats) -> Floats:
    """Return how much better a shadow fits each record than the frozen base model does.

    Needs no other shadow.

    Args:
        losses: Shape (K, n), nats.
        base_losses: Shape (n,), nats: the loss before any training on these records.

    Raises:
        InputError: If base_losses has another shape or holds NaN.
    """
    check_matrix("base_losses", base_losses, losses.shape[1:])
    return base_losses - losses


def others_mean(values: Floats) -> Floats:
    """Return the mean over both members of every *other* pair, shape (K, n) to (K, n).

    K - 2 references for each row.
    """
    k, n = values.shape
    pairs = values.reshape(k // 2, 2, n).sum(axis=1)
    others: Floats = np.repeat((pairs.sum(axis=0) - pairs) / (k - 2), 2, axis=0)
    return others


def out_references(members: Bools) -> Bools:
    """Return the shadows that are a record's unaware references, by pair under attack.

    Args:
        members: Shape (K, n), complementary pairs.

    Returns:
        Shape (K/2, K, n): True at [j, i, x] where shadow i is outside pair j and was not trained
        on x.
    """
    k = len(members)
    outside = np.arange(k // 2)[:, None] != np.arange(k)[None, :] // 2
    references: Bools = outside[:, :, None] & ~members[None]
    return references


def pair_reference(losses: Floats, members: Bools) -> Floats:
    """Return log-likelihood minus its mean over both members of every other pair.

    The default attack.

    Args:
        losses: Shape (K, n), nats.
        members: Shape (K, n), complementary pairs; checked, but not read: a score must not know the
            answer.

    Returns:
        Shape (K, n); higher means "more likely a member".

    Raises:
        InputError: If `members` is not K/2 >= 2 complementary pairs, or `losses` holds NaN.
    """
    check_pairs(members)
    check_matrix("losses", losses, members.shape)
    return others_mean(losses) - losses
