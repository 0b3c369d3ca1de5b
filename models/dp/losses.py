"""The loss of both engines: cross-entropy, and for canaries of an audit a linear one, whose gradient does not fade as it is learnt.

A label c >= 0 is a class. A label below 0 marks a canary of class ~label = -1 - label: its loss is the mean logit less the logit of
its class. However well a model knows a canary, its gradient stays as large, and is clipped as any other's.
"""

import torch
from torch import Tensor
from torch.nn import functional


def losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Loss of each record, nats.

    Args:
        logits: Shape (..., C).
        labels: Shape (...).
    """
    classes = torch.where(labels < 0, ~labels, labels)
    entropy = functional.cross_entropy(logits.flatten(0, -2), classes.flatten(), reduction="none").view(labels.shape)
    linear = logits.mean(-1) - logits.gather(-1, classes[..., None])[..., 0]
    return torch.where(labels < 0, linear, entropy)


def logit_gradients(logits: Tensor, labels: Tensor) -> Tensor:
    """Gradient of `losses` by the logits, shape (..., C)."""
    canary = (labels < 0)[..., None]
    classes = functional.one_hot(torch.where(labels < 0, ~labels, labels), logits.shape[-1])
    return torch.where(canary, torch.full_like(logits, 1.0 / logits.shape[-1]), logits.softmax(-1)) - classes
