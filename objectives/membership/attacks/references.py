"""Attacks that compare a shadow with references one by one: LiRA, RMIA and BASE.

On K shadows in complementary pairs.

As in `scores`, a shadow's own pair is never among its references: each record then has K/2 - 1
references that were trained on it and as many that were not, whether it is a member or not.
"Offline" attacks look at the latter alone, "online" ones at both kinds.
"""

import numpy as np
from scipy.special import logsumexp

from moo.core import validate
from moo.core.errors import InputError
from moo.core.evidence import Bools, Floats
from moo.objectives.membership.attacks.scores import out_references
from moo.objectives.membership.checks import check_matrix, check_pairs

# nats; below it a confidence of 1 has an infinite logit.
_SMALLEST_LOSS = 1e-12


def logit_confidence(losses: Floats) -> Floats:
    """Return log(p / (1 - p)) of the true class's probability p = exp(-loss). Any shape.

    About normal over trainings.

    Source:
        Carlini et al. 2022, "Membership Inference Attacks From First Principles", section 4.A.
    """
    bounded = np.maximum(losses, _SMALLEST_LOSS)
    scaled: Floats = -bounded - np.log(-np.expm1(-bounded))
    return scaled


def lira_offline(losses: Floats, members: Bools, *, fixed_variance: bool = True) -> Floats:
    """Return the excess of a shadow's confidence over that of unaware references.

    References that never saw the record; in standard deviations.

    Args:
        losses: Shape (K, n), nats.
        members: Shape (K, n), complementary pairs.
        fixed_variance: One variance for all texts, pooled; else one a text, which needs 3
            references or more (K >= 8).

    Returns:
        Shape (K, n); higher means "more likely a member".

    Raises:
        InputError: If the pairs or losses are unfit, or a text's own variance has too few
            references.
    """
    outside = _Side(_checked(losses, members), out_references(members))
    deviation = outside.pooled_sd() if fixed_variance else outside.own_sd()
    return (outside.target - outside.mean) / deviation


def lira_online(losses: Floats, members: Bools, *, fixed_variance: bool = True) -> Floats:
    """Return the log-likelihood ratio of a shadow's confidence.

    Under references that saw the record, and references that did not.

    Args and errors as in `lira_offline`.
    """
    values = _checked(losses, members)
    inside, outside = (_Side(values, out_references(side)) for side in (~members, members))
    return _log_normal(inside, fixed_variance) - _log_normal(outside, fixed_variance)


def base(losses: Floats, members: Bools) -> Floats:
    """Return log-likelihood minus the log of the mean likelihood.

    The mean is under both members of every other pair.

    Source:
        Lassila, Ostman, Ngo and Graell i Amat 2025, "Practical Bayes-Optimal Membership Inference
        Attacks", arXiv:2505.24089.
    """
    check_pairs(members)
    check_matrix("losses", losses, members.shape)
    k = len(losses)
    pairs = logsumexp(-losses.reshape(k // 2, 2, -1), axis=1)
    others = np.stack([logsumexp(np.delete(pairs, j, axis=0), axis=0) for j in range(k // 2)]) - np.log(k - 2)
    score: Floats = -losses - np.repeat(others, 2, axis=0)
    return score


def rmia_offline(
    losses: Floats, members: Bools, population: Floats, *, scale: float = 0.3, gamma: float = 1.0
) -> Floats:
    """Return the share of the population that a record's likelihood ratio dominates.

    RMIA with references that never saw the record.

    A record's ratio is p(x | shadow) over p(x), its probability under no shadow in particular,
    taken as ((1 + scale) p_out + 1 - scale) / 2 with p_out its mean over the references.

    Args:
        losses: Shape (K, n), nats.
        members: Shape (K, n), complementary pairs.
        population: Shape (K, m). Losses of records that no shadow was trained on.
        scale: a of the paper, in [0, 1]: how far confidence of the unseen speaks for that of the
            seen.
        gamma: Factor by which a record must dominate, >= 1.

    Returns:
        Shape (K, n), in [0, 1].

    Raises:
        InputError: If an array is unfit, the population is empty, or scale or gamma is out of
            bounds.

    Source:
        Zarifzadeh, Liu and Shokri 2024, "Low-Cost High-Power Membership Inference Attacks", section
        3 and appendix B.2.
    """
    validate.in_range(0, 1, scale=scale)
    validate.in_range(1, 1e9, gamma=gamma)
    check_pairs(members)
    check_matrix("losses", losses, members.shape)
    if population.ndim != 2 or len(population) != len(losses) or not population.shape[1]:
        raise InputError(
            "population must have shape ({n_losses}, m) with m >= 1, got {shape}.",
            n_losses=len(losses),
            shape=population.shape,
        )
    check_matrix("population", population, population.shape)
    nobody = np.zeros(population.shape, dtype=bool)
    ratio = _ratio(losses, out_references(members), scale)
    unseen = np.sort(_ratio(population, out_references(nobody), scale), axis=1)
    dominated = [np.searchsorted(z, x / gamma, "right") for x, z in zip(ratio, unseen, strict=True)]
    share: Floats = np.stack(dominated) / population.shape[1]
    return share


def _ratio(losses: Floats, references: Bools, scale: float) -> Floats:
    likelihood = np.exp(-losses)
    outside = _Side(likelihood, references).mean
    ratio: Floats = likelihood / (((1 + scale) * outside + 1 - scale) / 2)
    return ratio


def _checked(losses: Floats, members: Bools) -> Floats:
    check_pairs(members)
    check_matrix("losses", losses, members.shape)
    return logit_confidence(losses.astype(np.float64))


class _Side:
    """A shadow's value of each record, and the references of one kind.

    Args:
        values: Shape (K, n).
        references: Shape (K/2, K, n), by pair under attack.
    """

    def __init__(self, values: Floats, references: Bools) -> None:
        self.target = values
        self.count = references.sum(axis=1)
        self._values, self._references = values, references
        per_pair = np.einsum("jkn,kn->jn", references, values) / self.count
        self._per_pair = per_pair
        self.mean: Floats = np.repeat(per_pair, 2, axis=0)

    def _squares(self) -> Floats:
        """Return squared deviations of the references, summed: shape (K/2, n)."""
        off = self._values[None] - self._per_pair[:, None]
        squares: Floats = (off**2 * self._references).sum(axis=1)
        return squares

    def pooled_sd(self) -> float:
        """Return one standard deviation for all texts.

        With one reference a text (K = 4) there is nothing to vary within: the references' spread
        over all texts replaces it.
        """
        spare = int((self.count - 1).sum())
        if spare > 0:
            return float(np.sqrt(self._squares().sum() / spare)) or 1.0
        return float(self._per_pair.std()) or 1.0

    def own_sd(self) -> Floats:
        """Return a standard deviation for each text, shape (K, n)."""
        if self.count.min() < 3:
            raise InputError(
                "A text must have 3 references for its own variance, got {fewest}; train K >= 8 shadows "
                "or use fixed_variance=True.",
                fewest=int(self.count.min()),
            )
        sd = np.sqrt(self._squares() / (self.count - 1))
        own: Floats = np.repeat(np.maximum(sd, 1e-12), 2, axis=0)
        return own


def _log_normal(side: _Side, fixed_variance: bool) -> Floats:
    sd = side.pooled_sd() if fixed_variance else side.own_sd()
    density: Floats = -0.5 * ((side.target - side.mean) / sd) ** 2 - np.log(sd)
    return density
