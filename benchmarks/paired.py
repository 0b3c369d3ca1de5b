"""Gain in AUC of one model over another on the same test records."""

import math

import numpy as np
from numpy.typing import NDArray

from moo.core.evidence import UtilityEvidence
from moo.objectives.membership.metrics import placements

Floats = NDArray[np.float64]


def gain(mine: UtilityEvidence, other: UtilityEvidence) -> tuple[float, float]:
    """Return AUC minus another model's AUC, and its standard error over users and shadows.

    Source:
        DeLong et al. 1988: variance of a difference of AUCs through placements; summed by user,
        since a user's records depend.
    """
    apart = _aucs(mine) - _aucs(other)
    influence = np.mean(_influence(mine) - _influence(other), axis=0)
    by_user = np.bincount(np.unique(mine.units, return_inverse=True)[1], weights=influence)
    between = apart.std(ddof=1) / math.sqrt(len(apart)) if len(apart) > 1 else 0.0
    return float(apart.mean()), math.hypot(math.sqrt((by_user**2).sum()), between)


def _placed(evidence: UtilityEvidence) -> Floats:
    """Return the placement of each test record under each shadow, shape (K, m)."""
    margins = evidence.log_probs[..., 1] - evidence.log_probs[..., 0]
    return np.array([placements(row, evidence.labels == 1) for row in margins], dtype=np.float64)


def _aucs(evidence: UtilityEvidence) -> Floats:
    out: Floats = _placed(evidence)[:, evidence.labels == 1].mean(1)
    return out


def _influence(evidence: UtilityEvidence) -> Floats:
    """Return each record's contribution to the error of a shadow's AUC, shape (K, m)."""
    positive = evidence.labels == 1
    out: Floats = (_placed(evidence) - _aucs(evidence)[:, None]) / np.where(positive, positive.sum(), (~positive).sum())
    return out
