"""Uncertainty of an attack's AUC: by unit, by shadow, by bootstrap."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from moo.core import validate
from moo.core.errors import InputError
from moo.core.evidence import Bools, Floats, Ints, MembershipEvidence
from moo.objectives.membership.checks import MIN_SHADOWS, check_matrix, check_scored
from moo.objectives.membership.metrics import allowed_false_positives, placements, roc_auc
from moo.objectives.membership.training_variance import WITH_DP, Spread, contrasts_of, spread_of
from moo.objectives.statistics.clusters import clustered_covariance, clustered_stderr, unit_codes

Attack = Callable[[MembershipEvidence], Floats]


def shadow_aucs(scores: Floats, members: Bools) -> Floats:
    """Return the AUC of each shadow's scores, shape (K, n) to (K,)."""
    return np.array([roc_auc(row[inside], row[~inside]) for row, inside in zip(scores, members, strict=True)])


def auc_with_stderr(
    scores: Floats, members: Bools, units: Ints, *, refers: bool = False, prior: float = WITH_DP
) -> tuple[float, Spread]:
    """Return the mean AUC over the shadows, and its error; see `over_shadows`.

    Error by unit plus what training adds.

    Args:
        scores: Shape (K, n).
        members: Shape (K, n), with both sides in every row.
        units: Shape (n,).
        refers, prior: As in `over_shadows`.

    Returns:
        (AUC, law of its error), both as fractions; the latter as in `never_nothing`.

    Raises:
        InputError: If the scores hold NaN, a row has one side, or the shapes do not fit.

    Source:
        Obuchowski 1997, "Nonparametric Analysis of Clustered ROC Curve Data".
    """
    check_scored(scores, members, units)
    rows = np.stack([placements(row, inside) for row, inside in zip(scores, members, strict=True)])
    aucs = np.array([row[inside].mean() for row, inside in zip(rows, members, strict=True)])
    influence = (rows - aucs[:, None]) / own_side(members)
    value, spread = over_shadows(aucs, influence, units, refers=refers, prior=prior)
    return value, spread._replace(stderr=never_nothing(spread.stderr, members, units))


def balanced_with_stderr(
    scores: Floats, members: Bools, units: Ints, *, refers: bool = False, prior: float = WITH_DP
) -> tuple[float, Spread]:
    """Return balanced accuracy at each shadow's median score, and its error.

    Mean over the shadows; the error as in `auc_with_stderr`.

    That the median is itself estimated moves both rates together where nothing leaks, and little
    elsewhere. Args and errors as in `auc_with_stderr`.
    """
    check_scored(scores, members, units)
    above = np.sign(scores - np.median(scores, axis=1, keepdims=True)) / 2 + 0.5
    right = np.where(members, above, 1.0 - above)
    side = own_side(members)
    inside, outside = (np.where(m, right / side, 0.0).sum(axis=1) for m in (members, ~members))
    off = right - np.where(members, inside[:, None], outside[:, None])
    value, spread = over_shadows((inside + outside) / 2, off / (2 * side), units, refers=refers, prior=prior)
    return value, spread._replace(stderr=never_nothing(spread.stderr, members, units))


def never_nothing(stderr: float, members: Bools, units: Ints) -> float:
    """Return a standard error of a share that is never 0: 1 / U in place of 0.

    Infinite where a side of a shadow has one unit.

    Where every member scores above every non-member, or a rate is 0, no record differs from the
    others and the estimated error is 0. One unit of U may still be otherwise: about what the rule
    of three says of a share that was never seen. As a floor under every estimate it would be too
    wide: pairs cancel, and the error of a mean over K shadows is often below 1 / U.

    Args:
        stderr: As estimated.
        members: Shape (K, n).
        units: Shape (n,).
    """
    _, count = unit_codes(units)
    fewest = min(len(np.unique(units[side])) for row in members for side in (row, ~row))
    return math.inf if fewest < 2 else stderr if stderr > 1e-9 else 1 / count


def own_side(members: Bools) -> Floats:
    """Return the number of records on each record's side of each shadow, shape (K, n)."""
    count = members.sum(axis=1, keepdims=True)
    side: Floats = np.where(members, count, members.shape[1] - count).astype(float)
    return side


def over_shadows(
    per_shadow: Floats, influence: Floats, units: Ints, *, refers: bool = False, prior: float = WITH_DP
) -> tuple[float, Spread]:
    """Return the mean over the shadows, and the law of its error.

    By unit, plus what training adds.

    The error by unit sums a unit's influence over all K rows that it carries, so that what the
    shadows have in common through their units is counted once. Training varies too, which no
    resampling of units can see: see `training.spread_of`.

    Args:
        per_shadow: Shape (K,).
        influence: Shape (K, n). Of each record on each shadow's number; a row sums to about 0.
        units: Shape (n,).
        refers: Whether a shadow is also what the K - 2 of other pairs are compared with. Its
            training then counts (K - 1) / (K - 2) times: noise in a mean over K - 2 references
            weighs 1 / (K - 2)^2 as much as in the target, K - 2 times over.
        prior: Scale of training's part before the data, in units of the error by unit: `WITH_DP` or
            `WITHOUT_DP`.

    Returns:
        (mean, law of its error); the standard error is infinite for one unit.

    Raises:
        InputError: If K is odd or below 4, a number is not finite, or the shapes do not fit.
    """
    k = len(per_shadow)
    _check_even(k)
    check_matrix("per_shadow", per_shadow, (k,))
    check_matrix("influence", influence, (k, len(units)))
    mean, by_unit = float(per_shadow.mean()), clustered_stderr(influence.mean(axis=0), units)
    if math.isinf(by_unit):
        return mean, Spread(by_unit)
    counts = (k - 1) / (k - 2) if refers else 1.0
    contrasts, explained, seen = contrasts_of(per_shadow, clustered_covariance(influence, units), refers=refers)
    # pairs may cancel to nothing over units; the contrasts' own size then sets the scale
    scale = max(by_unit, 1e-6 * float(np.abs(contrasts).max()))
    if not scale:
        return mean, Spread(0.0)
    return mean, spread_of(scale, contrasts, explained, seen, part=counts**2 / k, prior=prior)


def _check_even(k: int) -> None:
    if k < MIN_SHADOWS or k % 2:
        raise InputError(
            "K must be even and >= {min_shadows}, got K={k} shadows; train whole pairs.",
            min_shadows=MIN_SHADOWS,
            k=k,
        )


def unit_weights(units: Ints, rng: np.random.Generator) -> Ints:
    """Return the count of each record in one bootstrap sample of whole units, shape (n,)."""
    codes, count = unit_codes(units)
    drawn: Ints = rng.multinomial(count, np.full(count, 1.0 / count))[codes]
    return drawn


def bootstrap(
    statistic: Callable[[Ints], float], units: Ints, rng: np.random.Generator, n_resamples: int = 200
) -> Floats:
    """Return values of a weighted statistic over resamples of whole units.

    Each unit carries all its shadows' rows.

    Args:
        statistic: From integer weights of shape (n,) to a number; NaN where a resample has lost one
            side.
        units: Shape (n,).
        rng: Source of the resamples.
        n_resamples: How many.

    Returns:
        Shape (n_resamples,) or shorter, without the NaN.

    Raises:
        InputError: If n_resamples < 2, or fewer than two resamples have both sides.
    """
    validate.in_range(2, 10**9, n_resamples=n_resamples)
    values = np.array([statistic(unit_weights(units, rng)) for _ in range(n_resamples)])
    kept: Floats = values[~np.isnan(values)]
    if kept.size < 2:
        raise InputError(
            "Units must remain on both sides of a resample, but {lost} of {resamples} lost one; bring more units.",
            lost=len(values) - kept.size,
            resamples=len(values),
        )
    return kept


@dataclass(frozen=True)
class WeightedTpr:
    """Mean TPR at a fixed FPR over the shadows, as a function of record weights; sorted once.

    Attributes:
        scores: Shape (K, n).
        members: Shape (K, n).
        fpr: A fraction in (0, 1).
    """

    scores: Floats
    members: Bools
    fpr: float

    def __post_init__(self) -> None:
        check_scored(self.scores, self.members, np.arange(self.scores.shape[-1]))
        object.__setattr__(self, "_order", np.argsort(-self.scores, axis=1, kind="stable"))

    def __call__(self, weights: Ints) -> float:
        order: Ints = self._order  # type: ignore[attr-defined]
        rows = zip(self.scores, self.members, order, strict=True)
        return float(np.mean([self._row(s[o], m[o], weights[o]) for s, m, o in rows]))

    def _row(self, scores: Floats, members: Bools, weights: Ints) -> float:
        outside = np.cumsum(weights * ~members)
        total = (weights * members).sum()
        if total == 0 or outside[-1] == 0:
            return math.nan
        k = allowed_false_positives(float(outside[-1]), self.fpr)
        threshold = scores[np.searchsorted(outside, k)]
        return float((weights * (members & (scores > threshold))).sum() / total)
