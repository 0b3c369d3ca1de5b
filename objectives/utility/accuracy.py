"""Utility on held-out users: accuracy, log loss, AUC, and the accuracy gap between groups.

Every number is a mean over the K shadows. Its standard error is the root of the sum of two squares:
the error over test *units* (users' records summed before squaring, so that a talkative user counts
once), and the spread over shadows, sd / sqrt(K), since another draw of the training half would have
given another model.
"""

import math
from dataclasses import dataclass

import numpy as np

from moo.core.errors import InputError
from moo.core.evidence import Bools, Floats, Ints, TrialEvidence, UtilityEvidence
from moo.core.measurement import Measurement, not_assessed
from moo.core.messages import Message
from moo.core.trial_record import ACCURACY
from moo.objectives.membership.metrics import placements
from moo.objectives.objective import Direction
from moo.objectives.statistics.clusters import clustered_stderr, shadow_stderr, unit_codes

# A group with fewer users is too small to be judged; it is left out of the gap.
MIN_GROUP_UNITS = 30


def check_utility(evidence: UtilityEvidence) -> None:
    """Refuse evidence with shapes that disagree, NaN, or labels outside 0..C-1.

    Raises:
        InputError: Naming the argument.
    """
    if evidence.log_probs.ndim != 3 or 0 in evidence.log_probs.shape:
        raise InputError("log_probs must have shape (K, m, C), got {shape}.", shape=evidence.log_probs.shape)
    _, m, classes = evidence.log_probs.shape
    for name, array in (("labels", evidence.labels), ("units", evidence.units), *evidence.groups.items()):
        if array.shape != (m,):
            raise InputError("{name} must have shape ({m},), got {shape}.", name=name, m=m, shape=array.shape)
    if np.isnan(evidence.log_probs).any():
        raise InputError("log_probs must have no NaN, got some; the trial's training has diverged.")
    if evidence.labels.min() < 0 or evidence.labels.max() >= classes:
        raise InputError(
            "labels must be between 0 and {last}, got {lowest} to {highest}.",
            last=classes - 1,
            lowest=evidence.labels.min(),
            highest=evidence.labels.max(),
        )


def _mean(values: Floats, units: Ints) -> Measurement:
    """Return the mean of values of shape (K, m) with the error over units and over shadows."""
    per_record = values.mean(axis=0)
    mean = float(per_record.mean())
    text = clustered_stderr((per_record - mean) / per_record.size, units)
    shadow = shadow_stderr(values.mean(axis=1)) if len(values) > 1 else 0.0
    return Measurement(value=mean, stderr=math.hypot(text, shadow))


def _correct(evidence: UtilityEvidence) -> Floats:
    """Return 1.0 where the most probable class is the label; shape (K, m)."""
    check_utility(evidence)
    right: Floats = (evidence.log_probs.argmax(axis=2) == evidence.labels).astype(float)
    return right


def accuracy(evidence: UtilityEvidence) -> Measurement:
    """Return the share of held-out records with the most probable class right.

    A fraction, mean over shadows.

    Raises:
        InputError: If shapes disagree, or log_probs holds NaN.
    """
    return _mean(_correct(evidence), evidence.units)


def majority_accuracy(evidence: UtilityEvidence) -> Measurement:
    """Return the accuracy of always answering the most frequent class of the held-out records.

    It is the number that an accuracy must beat to say that anything was learnt. It needs no model,
    so its standard error is over test units alone.

    Raises:
        InputError: If shapes disagree, or log_probs holds NaN.
    """
    return _mean(_constant(evidence), evidence.units)


def above_majority(evidence: UtilityEvidence) -> Measurement:
    """Return accuracy minus majority accuracy, a fraction in [-1, 1].

    Both are measured on the same records, so the standard error is of the paired difference: it is
    what "two standard errors above the baseline" must be judged by.

    Raises:
        InputError: If shapes disagree, or log_probs holds NaN.
    """
    return _mean(_correct(evidence) - _constant(evidence), evidence.units)


def _constant(evidence: UtilityEvidence) -> Floats:
    """Return 1.0 where the label is the most frequent one, of equals the first; shape (1, m)."""
    check_utility(evidence)
    most = np.bincount(evidence.labels).argmax()
    constant: Floats = (evidence.labels == most).astype(float)[None]
    return constant


def log_loss(evidence: UtilityEvidence) -> Measurement:
    """Return the cross-entropy of the labels in nats, mean over shadows; lower is better."""
    check_utility(evidence)
    picked = np.take_along_axis(evidence.log_probs, evidence.labels[None, :, None], axis=2)[..., 0]
    return _mean(-picked.astype(float), evidence.units)


def auc(evidence: UtilityEvidence) -> Measurement:
    """Return the area under the ROC curve of class 1 against class 0, mean over shadows.

    Returns:
        AUC in [0, 1], with the placement-value error by unit and the spread over shadows; "not
        assessed" where the labels hold one class only.

    Raises:
        InputError: If there are more than two classes, or shapes disagree.
    """
    check_utility(evidence)
    if evidence.log_probs.shape[2] != 2:
        raise InputError(
            "log_probs must have two classes, got {classes}; use log_loss.", classes=evidence.log_probs.shape[2]
        )
    positive: Bools = evidence.labels == 1
    if positive.all() or not positive.any():
        return not_assessed("the held-out labels hold one class only")
    margins = (evidence.log_probs[:, :, 1] - evidence.log_probs[:, :, 0]).astype(float)
    rows = [placements(row, positive) for row in margins]
    values = np.array([row[positive].mean() for row in rows])
    share = np.where(positive, positive.sum(), (~positive).sum())
    influence = np.mean([(row - value) / share for row, value in zip(rows, values, strict=True)], axis=0)
    shadow = shadow_stderr(values) if len(values) > 1 else 0.0
    text = clustered_stderr(influence, evidence.units)
    return Measurement(value=float(values.mean()), stderr=math.hypot(text, shadow))


def group_gap(evidence: UtilityEvidence, group: str) -> Measurement:
    """Return the accuracy of the best-served group minus that of the worst-served one.

    Groups of fewer than 30 units are left out. A difference of extremes is biased upward by noise;
    its standard error (units and shadows, of this pair of groups) says by how much.

    Args:
        evidence: Predictions on held-out records.
        group: A key of `evidence.groups`.

    Returns:
        The gap, a fraction in [0, 1]; "not assessed" where fewer than two groups are large enough.

    Raises:
        InputError: If there is no such group.
    """
    if group not in evidence.groups:
        raise InputError("group must be one of {groups}, got {group!r}.", groups=sorted(evidence.groups), group=group)
    correct, codes = _correct(evidence), evidence.groups[group]
    large = [c for c in np.unique(codes[codes >= 0]) if unit_codes(evidence.units[codes == c])[1] >= MIN_GROUP_UNITS]
    if len(large) < 2:
        return not_assessed(
            Message("fewer than two groups of {group} have {least} units", group=group, least=MIN_GROUP_UNITS)
        )
    means = {c: float(correct[:, codes == c].mean()) for c in large}
    best, worst = max(large, key=means.__getitem__), min(large, key=means.__getitem__)
    gap = means[best] - means[worst]
    sign = (codes == best) / (codes == best).sum() - (codes == worst) / (codes == worst).sum()
    centred = np.where(codes == best, correct - means[best], correct - means[worst])
    per_shadow = correct @ sign
    shadow = shadow_stderr(per_shadow) if len(correct) > 1 else 0.0
    text = clustered_stderr(centred.mean(axis=0) * sign, evidence.units)
    return Measurement(value=gap, stderr=math.hypot(text, shadow))


@dataclass(frozen=True)
class Accuracy:
    """The first objective of a trial."""

    name: str = ACCURACY
    direction: Direction = "maximize"
    unit: str = "fraction of held-out records"

    def __call__(self, evidence: TrialEvidence) -> Measurement:
        return accuracy(evidence.utility)
