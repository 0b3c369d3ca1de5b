"""What the frozen base model can do without any shadow: scikit-learn's logistic regression on its features."""

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from moo.evidence import TrialEvidence, UtilityEvidence
from moo.models.activations import Packed
from moo.objectives.utility import accuracy
from moo.records import Measurement
from moo.studies.prepare import Prepared

_LEAST = 1e-12  # a probability below it is rounding


def fitted(features: NDArray[np.float32], labels: NDArray[np.int64]) -> LogisticRegression:
    """The head that both uses of this module fit."""
    return LogisticRegression(C=1.0, max_iter=2000).fit(features, labels)


def baseline_accuracy(prepared: Prepared, evidence: TrialEvidence) -> Measurement:
    """Accuracy of logistic regression on the same frozen features, halves and test users."""
    level = evidence.params.masking_level
    pool, test = prepared.parts["pool"], prepared.parts["test"]
    features = {part: prepared.masked(part, level).packed.features.numpy() for part in ("pool", "test")}
    heads = [fitted(features["pool"][row], pool.labels[row]) for row in evidence.membership.members]
    predicted = np.stack([np.log(np.clip(h.predict_proba(features["test"]), _LEAST, 1)) for h in heads])
    return accuracy(UtilityEvidence(log_probs=predicted, labels=test.labels, units=test.units))


def base_losses(
    prepared: Prepared, packed: dict[str, Packed], *, fitted_on: str = "test"
) -> dict[str, NDArray[np.float64]]:
    """How hard each record is to a head on the frozen base model that was fitted on records of no shadow and no target.

    A classifier has no loss before its head is fitted, so "the frozen base model's own loss" means this: the most that an attacker
    knows of a record who has the base model and data of the same kind, but no shadow. Test users are neither in the pool nor
    among the unseen, so the loss is one of prediction for both.

    Args:
        prepared: The study.
        packed: Part of the data -> activations.
        fitted_on: Part that the head is fitted on.

    Returns:
        Part -> shape (n,), nats; empty where the study's head reads no frozen features, or the part holds one class.
    """
    known = prepared.parts[fitted_on].labels
    if not packed[fitted_on].features.shape[1] or len(np.unique(known)) < 2:
        return {}
    head = fitted(packed[fitted_on].features.numpy(), known)
    column = {int(c): i for i, c in enumerate(head.classes_)}
    out = {}
    for part, activations in packed.items():
        odds = head.predict_proba(activations.features.numpy())
        own = [row[column[y]] if y in column else 0.0 for row, y in zip(odds, prepared.parts[part].labels, strict=True)]
        out[part] = -np.log(np.clip(own, _LEAST, 1))
    return out
