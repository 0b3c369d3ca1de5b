"""Logistic regression with one column a class, whichever classes it was fitted on."""

import numpy as np
from sklearn.linear_model import LogisticRegression

from moo.core.errors import InputError
from moo.core.evidence import Floats, Ints

# A probability below it is rounding; a class that was not fitted on has it.
LEAST = 1e-12


def class_log_probs(
    known: tuple[Floats, Ints], features: Floats, *, n_classes: int, strength: float = 1.0, most_steps: int = 2000
) -> Floats:
    """Return log-probabilities of every class by logistic regression, column c that of class c.

    scikit-learn has a column for each class that it was fitted on, and none for the others; of one
    class alone it fits nothing.

    Args:
        known: Features, shape (n, d), and labels in 0..C-1, shape (n,), that are fitted on.
        features: Shape (m, d).
        n_classes: C.
        strength: Inverse of the penalty on squared weights.
        most_steps: Of the solver.

    Returns:
        Shape (m, C), nats.

    Raises:
        InputError: If there is nothing to fit on, or a label is no class.
    """
    inputs, labels = known
    held = np.unique(labels)
    if not len(held) or held[0] < 0 or held[-1] >= n_classes:
        raise InputError(
            "labels must be between 0 and {last}, got {examples}.", last=n_classes - 1, examples=held.tolist()[:5]
        )
    out = np.zeros((len(features), n_classes))
    if len(held) == 1:
        out[:, held[0]] = 1.0
    else:
        fitted = LogisticRegression(C=strength, max_iter=most_steps).fit(inputs, labels)
        out[:, fitted.classes_] = fitted.predict_proba(features)
    log_probs: Floats = np.log(np.clip(out, LEAST, 1.0))
    return log_probs
