"""What the frozen base model can do without any shadow: scikit-learn's logistic regression on its features."""

import numpy as np
from numpy.typing import NDArray

from moo.core.evidence import TrialEvidence, UtilityEvidence
from moo.core.measurement import Measurement
from moo.models.trunk.packed import Packed
from moo.objectives.statistics.aligned_classes import class_log_probs
from moo.objectives.utility.accuracy import accuracy
from moo.studies.setup.prepared import Prepared


def baseline_accuracy(prepared: Prepared, evidence: TrialEvidence) -> Measurement:
    """Accuracy of logistic regression on the same frozen features, halves and test users."""
    level = evidence.params.masking_level
    pool, test = prepared.parts["pool"], prepared.parts["test"]
    features = {part: prepared.masked(part, level).packed.features.numpy() for part in ("pool", "test")}
    halves = [(features["pool"][row], pool.labels[row]) for row in evidence.membership.members]
    predicted = np.stack([class_log_probs(h, features["test"], n_classes=len(pool.classes)) for h in halves])
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
    inputs, n_classes = {part: p.features.numpy() for part, p in packed.items()}, len(prepared.parts[fitted_on].classes)
    told = class_log_probs((inputs[fitted_on], known), np.concatenate(list(inputs.values())), n_classes=n_classes)
    ends = np.cumsum([len(x) for x in inputs.values()])[:-1]
    labels = {part: prepared.parts[part].labels for part in packed}
    return {
        part: -odds[np.arange(len(labels[part])), labels[part]].astype(np.float64)
        for part, odds in zip(packed, np.split(told, ends), strict=True)
    }
