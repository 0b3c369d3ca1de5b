"""Attack on an attribute: features of outputs, a regression, and its calibration."""

import numpy as np
from scipy.special import log_softmax, logsumexp

from moo.core.evidence import Bools, Floats, Ints
from moo.objectives.statistics.aligned_classes import class_log_probs

# Exponents on what the regression says beyond the base rate; 0 is not to listen.
_TRUST = np.linspace(0.0, 1.5, 16)


def user_features(log_probs: Floats, labels: Ints, codes: Ints) -> Floats:
    """Return the features of each user in one shadow's outputs.

    Mean and spread of the log-odds of every class over the user's records, and the mean loss.

    Args:
        log_probs: Shape (n, C), nats.
        labels: Shape (n,), in 0..C-1.
        codes: Shape (n,). Users, 0..U-1.

    Returns:
        Shape (U, 2 C - 1).
    """
    odds = log_probs[:, 1:] - log_probs[:, :1]
    loss = -log_probs[np.arange(len(labels)), labels]
    count = np.bincount(codes)

    def mean(values: Floats) -> Floats:
        out: Floats = np.bincount(codes, weights=values) / count
        return out

    columns = [mean(loss)]
    for column in odds.T:
        centre = mean(column)
        columns += [centre, np.sqrt(np.maximum(mean(column**2) - centre**2, 0.0))]
    return np.stack(columns, axis=1)


def log_prior(attribute: Ints, n_classes: int, n_users: int) -> Floats:
    """Return the log of the smoothed share of each class among the users fitted on.

    The same for everybody; shape (n_users, n_classes).
    """
    counts = np.bincount(attribute, minlength=n_classes) + 1.0
    return np.tile(np.log(counts / counts.sum()), (n_users, 1))


def fit_logits(features: Floats, attribute: Ints, fit: Bools, *, n_classes: int) -> Floats:
    """Return log-probabilities, shape (U, classes), by logistic regression.

    Features are standardised; some users are fitted on.
    """
    centre, spread = features[fit].mean(axis=0), features[fit].std(axis=0)
    scaled = (features - centre) / np.where(spread > 0, spread, 1.0)
    return class_log_probs((scaled[fit], attribute[fit]), scaled, n_classes=n_classes, strength=0.1, most_steps=500)


def calibrated(base: Floats, fitted: Floats, attribute: Ints, tune: Bools) -> Floats:
    """Return log-probabilities between the base and the regression.

    As far along as helps users that the regression was not fitted on.

    Without it an attack that has learnt nothing is worse than imputing, by as much as it has
    overfitted: cross-entropy is only as good as its calibration. Each way along counts by its
    likelihood on the calibration users, under a flat prior. The likeliest way alone would be
    noisier, and where it is not to listen at all it tells a leakage of 0 that has no error.

    Args:
        base, fitted: Log-probabilities, shape (U, classes).
        attribute: Shape (U,).
        tune: Users to calibrate on.

    Returns:
        Log-probabilities, shape (U, classes).
    """
    own = np.flatnonzero(tune), attribute[tune]
    mixed = np.stack([log_softmax(base + trust * (fitted - base), axis=1) for trust in _TRUST])
    weights = log_softmax(np.array([m[own].sum() for m in mixed]))
    averaged: Floats = logsumexp(weights[:, None, None] + mixed, axis=0)
    return averaged
