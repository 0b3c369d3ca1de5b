"""Baseline without any shadow: scikit-learn's logistic regression on frozen features."""

import numpy as np
from numpy.typing import NDArray

from moo.core.evidence import TrialEvidence, UtilityEvidence
from moo.core.measurement import Measurement
from moo.models.trunk.packed import Packed
from moo.objectives.statistics.aligned_classes import class_log_probs
from moo.objectives.utility.accuracy import accuracy
from moo.studies.setup.prepared import PreparedStudy


def baseline_accuracy(prepared: PreparedStudy, evidence: TrialEvidence) -> Measurement:
    """Return the accuracy of logistic regression on the same features, halves and test users."""
    level = evidence.params.masking_level
    pool, test = prepared.data.parts["pool"], prepared.data.parts["test"]
    features = {part: prepared.features.masked(part, level).packed.features.numpy() for part in ("pool", "test")}
    halves = [(features["pool"][row], pool.labels[row]) for row in evidence.membership.members]
    predicted = np.stack([class_log_probs(h, features["test"], n_classes=len(pool.classes)) for h in halves])
    return accuracy(UtilityEvidence(log_probs=predicted, labels=test.labels, units=test.units))


def base_losses(
    prepared: PreparedStudy, packed: dict[str, Packed], *, fitted_on: str = "test"
) -> dict[str, NDArray[np.float64]]:
    """Return each record's loss under a head on the frozen base model.

    The head is fitted on records of no shadow and no target.

    A classifier has no loss before its head is fitted, so "the frozen base model's own loss" means this: all that an
    attacker knows of a record who has the base model and data of the same kind, but no shadow. Test users are neither
    in the pool nor among the unseen, so the loss is one of prediction for both.

    Args:
        prepared: The study.
        packed: Part of the data -> activations.
        fitted_on: Name of the part that the head is fitted on.

    Returns:
        Part -> losses, shape (n,), nats; empty if the head reads no frozen features, or the part holds one class.
    """
    known = prepared.data.parts[fitted_on].labels
    if not packed[fitted_on].features.shape[1] or len(np.unique(known)) < 2:
        return {}
    inputs, n_classes = (
        {part: p.features.numpy() for part, p in packed.items()},
        len(prepared.data.parts[fitted_on].classes),
    )
    log_probs = class_log_probs((inputs[fitted_on], known), np.concatenate(list(inputs.values())), n_classes=n_classes)
    ends = np.cumsum([len(x) for x in inputs.values()])[:-1]
    labels = {part: prepared.data.parts[part].labels for part in packed}
    return {
        part: -each[np.arange(len(labels[part])), labels[part]].astype(np.float64)
        for part, each in zip(packed, np.split(log_probs, ends), strict=True)
    }
