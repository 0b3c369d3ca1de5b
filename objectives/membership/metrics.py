"""Metrics of an attack: AUC, advantage, true-positive rate, balanced accuracy.

Every function takes one shadow's scores; higher means "more likely a member". None is biased upward
at the null: no curve is smoothed, no threshold is chosen with the labels, and nothing is clipped.
"""

import math

import numpy as np

from moo.core import validate
from moo.core.errors import InputError
from moo.core.evidence import Bools, Floats


def _sides(member_scores: Floats, nonmember_scores: Floats) -> None:
    for name, scores in (("member_scores", member_scores), ("nonmember_scores", nonmember_scores)):
        if scores.ndim != 1 or scores.size == 0:
            raise InputError("{name} must be a non-empty vector, got shape {shape}.", name=name, shape=scores.shape)
        if np.isnan(scores).any():
            raise InputError("{name} must have no NaN, got some; a shadow's training has diverged.", name=name)


def placements(scores: Floats, members: Bools) -> Floats:
    """Return the placement of each record: its rank among the other side, ties at one half.

    A share in [0, 1], 1 where the record ranks rightly against all of them.

    Args:
        scores: Shape (n,).
        members: Shape (n,), with both sides present.

    Returns:
        Shape (n,), in [0, 1]. Its mean over members, and over non-members, is the AUC.

    Raises:
        InputError: If a side is empty, or the scores hold NaN.

    Source:
        DeLong, DeLong and Clarke-Pearson 1988, "Comparing the Areas under Two or More Correlated
        ROC Curves".
    """
    _sides(scores[members], scores[~members])
    inside, outside = np.sort(scores[members]), np.sort(scores[~members])
    values = np.empty(scores.shape)
    values[members] = _share_below(scores[members], outside)
    values[~members] = 1.0 - _share_below(scores[~members], inside)
    return values


def _share_below(scores: Floats, ordered: Floats) -> Floats:
    """Share of `ordered` below each score, ties counted by half."""
    twice = np.searchsorted(ordered, scores, "left") + np.searchsorted(ordered, scores, "right")
    share: Floats = twice / (2 * ordered.size)
    return share


def roc_auc(member_scores: Floats, nonmember_scores: Floats) -> float:
    """Return the Mann-Whitney estimate of P(member's score > non-member's) + P(tie) / 2.

    It is unbiased.

    Args:
        member_scores: Shape (n_members,).
        nonmember_scores: Shape (n_nonmembers,).

    Returns:
        AUC, in [0, 1].

    Raises:
        InputError: If either array is empty or holds NaN.
    """
    _sides(member_scores, nonmember_scores)
    return float(_share_below(member_scores, np.sort(nonmember_scores)).mean())


def advantage(member_scores: Floats, nonmember_scores: Floats) -> float:
    """Return 2 AUC - 1, in [-1, 1], unclipped.

    Clipping at 0 would bias it upward where nothing leaks.
    """
    return 2.0 * roc_auc(member_scores, nonmember_scores) - 1.0


def tpr_at_fpr(member_scores: Floats, nonmember_scores: Floats, fpr: float) -> float:
    """Return the true-positive rate of an attack at a fixed false-positive rate.

    The threshold is the k-th largest non-member score with k = floor(fpr x (n_nonmembers + 1)), and
    only scores strictly above it count: at the null the expected rate is k / (n_nonmembers + 1) <=
    fpr, never above. (The usual "smallest threshold with at most fpr false positives" expects 20 %
    more at 500 non-members and 1 %.)

    Args:
        member_scores: Shape (n_members,). Higher means "more likely a member".
        nonmember_scores: Shape (n_nonmembers,).
        fpr: False-positive rate, a fraction in (0, 1).

    Returns:
        TPR, a fraction in [0, 1].

    Raises:
        InputError: If either array is empty or holds NaN, or fpr x (n_nonmembers + 1) < 1.

    Source:
        Carlini et al. 2022, "Membership Inference Attacks From First Principles", section 4.
    """
    _sides(member_scores, nonmember_scores)
    k = allowed_false_positives(nonmember_scores.size, fpr)
    threshold = np.partition(nonmember_scores, nonmember_scores.size - k)[nonmember_scores.size - k]
    return float((member_scores > threshold).mean())


def allowed_false_positives(n_nonmembers: float, fpr: float) -> int:
    """Return k of `tpr_at_fpr`: rank of the non-member score that is the threshold.

    Raises:
        InputError: If fpr is outside (0, 1), or there are too few non-members for it.
    """
    validate.positive(fpr=fpr)
    if fpr >= 1:
        raise validate.argument_error("{name} must be < 1", "fpr", fpr)
    k = math.floor(fpr * (n_nonmembers + 1) + 1e-9)
    if k < 1:
        need = math.ceil(1 / fpr) - 1
        raise InputError(
            "n_nonmembers must be >= {need} for fpr={fpr:g}, got {n_nonmembers:g}.",
            need=need,
            fpr=fpr,
            n_nonmembers=n_nonmembers,
        )
    return k


def balanced_accuracy(member_scores: Floats, nonmember_scores: Floats, threshold: float | None = None) -> float:
    """Return the mean of true-positive and true-negative rate at an unlabelled threshold.

    The threshold is chosen without the labels.

    Args:
        member_scores: Shape (n_members,).
        nonmember_scores: Shape (n_nonmembers,).
        threshold: Scores above it are called members; the median of all scores unless given. (The
            best threshold in hindsight would be biased upward.)

    Returns:
        A fraction in [0, 1]; .5 is guessing.

    Raises:
        InputError: If either array is empty or holds NaN, or the threshold is NaN.
    """
    _sides(member_scores, nonmember_scores)
    if threshold is not None and math.isnan(threshold):
        raise validate.argument_error("{name} must be a number", "threshold", threshold)
    cut = float(np.median(np.concatenate([member_scores, nonmember_scores]))) if threshold is None else threshold
    above = (member_scores > cut).mean() + (member_scores == cut).mean() / 2
    below = (nonmember_scores < cut).mean() + (nonmember_scores == cut).mean() / 2
    return float((above + below) / 2)
