"""How sure an attack's AUC is: by unit, by shadow, by bootstrap, and against a permuted membership matrix."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from moo.evidence import Bools, Floats, Ints, MembershipEvidence
from moo.objectives.clusters import clustered_stderr, unit_codes
from moo.objectives.membership.metrics import allowed_false_positives, placements, roc_auc

Attack = Callable[[MembershipEvidence], Floats]


def shadow_aucs(scores: Floats, members: Bools) -> Floats:
    """AUC of each shadow's scores, shape (K, n) to (K,)."""
    return np.array([roc_auc(row[inside], row[~inside]) for row, inside in zip(scores, members, strict=True)])


def auc_with_stderr(scores: Floats, members: Bools, units: Ints) -> tuple[float, float]:
    """Mean AUC over the shadows, and its standard error by unit plus what training adds by shadow.

    The error by unit sums placement values within units over all K rows that a unit carries. Training varies too,
    which no resampling of texts can see: by how much the shadows' AUCs spread beyond what their units explain is added,
    divided by K. (The larger of the unit error and sd / sqrt(K) is the simpler rule; but a pair's two AUCs are
    anticorrelated by construction, sd / sqrt(K) is then too large, and at K = 4 and no leak that rule covers 98 %.)

    Args:
        scores: Shape (K, n).
        members: Shape (K, n), with both sides in every row.
        units: Shape (n,).

    Returns:
        (AUC, standard error), both as fractions.

    Source:
        Obuchowski 1997, "Nonparametric Analysis of Clustered ROC Curve Data"; the rest is a variance component.
    """
    rows = np.stack([placements(row, inside) for row, inside in zip(scores, members, strict=True)])
    aucs = np.array([row[inside].mean() for row, inside in zip(rows, members, strict=True)])
    return over_shadows(aucs, (rows - aucs[:, None]) / own_side(members), units)


def balanced_with_stderr(scores: Floats, members: Bools, units: Ints) -> tuple[float, float]:
    """Balanced accuracy at each shadow's median score, mean over the shadows, and its standard error as of `auc_with_stderr`.

    That the median is itself estimated moves both rates together where nothing leaks, and little elsewhere.
    """
    above = np.sign(scores - np.median(scores, axis=1, keepdims=True)) / 2 + 0.5
    right = np.where(members, above, 1.0 - above)
    side = own_side(members)
    inside, outside = (np.where(m, right / side, 0.0).sum(axis=1) for m in (members, ~members))
    off = right - np.where(members, inside[:, None], outside[:, None])
    return over_shadows((inside + outside) / 2, off / (2 * side), units)


def own_side(members: Bools) -> Floats:
    """How many records stand on each record's side of each shadow, shape (K, n)."""
    count = members.sum(axis=1, keepdims=True)
    side: Floats = np.where(members, count, members.shape[1] - count).astype(float)
    return side


def over_shadows(per_shadow: Floats, influence: Floats, units: Ints) -> tuple[float, float]:
    """Mean over the shadows, and its standard error: by unit, plus what training adds.

    Args:
        per_shadow: Shape (K,).
        influence: Shape (K, n). Of each record on each shadow's number.
        units: Shape (n,).
    """
    by_unit = clustered_stderr(influence.mean(axis=0), units)
    extra = training_variance(per_shadow, influence, units) / len(per_shadow)
    return float(per_shadow.mean()), math.sqrt(by_unit**2 + extra)


def training_variance(aucs: Floats, influence: Floats, units: Ints) -> float:
    """Variance between the K shadows' AUCs beyond what their units explain; never below 0.

    Args:
        aucs: Shape (K,).
        influence: Shape (K, n). Of each record on each AUC.
        units: Shape (n,).
    """
    k = len(aucs)
    own = sum(clustered_stderr(row, units) ** 2 for row in influence)
    together = clustered_stderr(influence.sum(axis=0), units) ** 2
    if not math.isfinite(together):
        return 0.0  # one unit only: the error by unit is infinite already
    explained = own / k - (together - own) / (k * (k - 1))
    return max(0.0, float(np.var(aucs, ddof=1)) - explained)


def unit_weights(units: Ints, rng: np.random.Generator) -> Ints:
    """How often each record enters one bootstrap sample of whole units, shape (n,)."""
    codes, count = unit_codes(units)
    drawn: Ints = rng.multinomial(count, np.full(count, 1.0 / count))[codes]
    return drawn


def bootstrap(
    statistic: Callable[[Ints], float], units: Ints, rng: np.random.Generator, n_resamples: int = 200
) -> Floats:
    """Values of a weighted statistic over resamples of whole units, each carrying all its shadows' rows.

    Args:
        statistic: From integer weights of shape (n,) to a number; NaN where a resample has lost one side.
        units: Shape (n,).
        rng: Source of the resamples.
        n_resamples: How many.

    Returns:
        Shape (n_resamples,) or shorter, without the NaN.
    """
    values = np.array([statistic(unit_weights(units, rng)) for _ in range(n_resamples)])
    kept: Floats = values[~np.isnan(values)]
    return kept


@dataclass(frozen=True)
class WeightedTpr:
    """Mean TPR at a fixed FPR over the shadows, as a function of the records' weights; sorted once.

    Attributes:
        scores: Shape (K, n).
        members: Shape (K, n).
        fpr: A fraction in (0, 1).
    """

    scores: Floats
    members: Bools
    fpr: float

    def __post_init__(self) -> None:
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
