"""Loss of both engines: cross-entropy, and a linear loss for the canaries of an audit.

A label c >= 0 is a class. A label below 0 marks a canary of class ~label = -1 - label. Its loss is
the mean logit less the logit of its class, so its gradient does not fade as the canary is learned:
it stays as large as before, and is clipped like any other.
"""

import torch
from torch import Tensor
from torch.nn import functional


def losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the loss of each record in nats.

    Args:
        logits: Shape (..., C).
        labels: Shape (...).

    Returns:
        Shape (...).
    """
    classes = torch.where(labels < 0, ~labels, labels)
    entropy = functional.cross_entropy(logits.flatten(0, -2), classes.flatten(), reduction="none").view(labels.shape)
    linear = logits.mean(-1) - logits.gather(-1, classes[..., None])[..., 0]
    return torch.where(labels < 0, linear, entropy)


def logit_gradients(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the gradient of `losses` with respect to the logits, shape (..., C)."""
    canary = (labels < 0)[..., None]
    classes = functional.one_hot(torch.where(labels < 0, ~labels, labels), logits.shape[-1])
    return torch.where(canary, torch.full_like(logits, 1.0 / logits.shape[-1]), logits.softmax(-1)) - classes
