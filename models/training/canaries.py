"""Canaries: units that an audit plants in training data by coin flips, to detect them later.

There are two kinds. A *text* canary is an ordinary record: a text that nobody wrote, under a random
label; anyone who can query the model for a loss can look for it. A *dirac* canary has one feature
to itself, a column that is zero for everybody else, and a gradient far above the clip that does not
fade (`moo.models.dp.losses`). Its unit adds max_grad_norm to a step along its own coordinate, the
most that any unit can add, and nothing else but noise ever moves that coordinate. Both kinds pass
through sampling, clipping, noise and optimizer like every unit.

Dirac canaries are in the head: noise missing on adapters alone leaves them unchanged. Text canaries
detect that through the adapters' effect on the loss, and are weak.

Source: Nasr et al. 2023, "Tight Auditing of Differentially Private Machine Learning", for dirac
gradients as canaries.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

import lightning
import numpy as np
import torch
from numpy.typing import NDArray

from moo.core.errors import InputError
from moo.models.dp.poisson_sampling import Batch
from moo.models.training.settings import TrainingData
from moo.models.trunk.packed import Packed

Kind = Literal["dirac", "text"]
KINDS: tuple[Kind, ...] = ("dirac", "text")
# Size of a dirac canary's feature: its gradient is so large that the bias's share of it is 1 part in 10,000.
DIRAC_SIZE = 100.0


@dataclass(frozen=True, kw_only=True)
class Canaries:
    """m canaries, one unit and one record each.

    Attributes:
        packed: Activations of their texts.
        classes: Shape (m,), in 0..C-1.
        included: Shape (m,). Coin flips: True for canaries that are trained on.
        kind: "dirac" or "text".

    Raises:
        InputError: If the numbers of texts, classes and coins differ, or the kind is unknown.
    """

    packed: Packed
    classes: NDArray[np.int64]
    included: NDArray[np.bool_]
    kind: Kind

    def __post_init__(self) -> None:
        m = len(self.classes)
        if not m or len(self.packed.features) != m or self.included.shape != (m,):
            raise InputError(
                "canaries must have one text, class and coin each, at least one of them, got {n_features} texts, "
                "{m} classes and coins of shape {shape}.",
                n_features=len(self.packed.features),
                m=m,
                shape=self.included.shape,
            )
        if self.kind not in KINDS:
            raise InputError("kind must be one of {kinds}, got {kind!r}.", kinds=", ".join(KINDS), kind=self.kind)


def plant(data: TrainingData, canaries: Canaries) -> TrainingData:
    """Append the canaries to the data; all K shadows are trained on those with `included` true."""
    m, units = len(canaries.classes), int(data.units.max()) + 1
    packed = (
        concatenated(*_widened(data.packed, canaries))
        if canaries.kind == "dirac"
        else concatenated(data.packed, canaries.packed)
    )
    labels = ~canaries.classes if canaries.kind == "dirac" else canaries.classes
    return dataclasses.replace(
        data,
        packed=packed,
        labels=np.concatenate([data.labels, labels]),
        units=np.concatenate([data.units, units + np.arange(m)]),
        members=np.concatenate([data.members, np.tile(canaries.included, (len(data.members), 1))], axis=1),
    )


def _widened(packed: Packed, canaries: Canaries) -> tuple[Packed, Packed]:
    """Append a column for each canary; all other features of a canary are zero."""
    (n, d), m = packed.features.shape, len(canaries.classes)
    own = torch.cat([torch.zeros(m, d), DIRAC_SIZE * torch.eye(m)], dim=1)
    others = torch.cat([packed.features, torch.zeros(n, m)], dim=1)
    return dataclasses.replace(packed, features=others), dataclasses.replace(canaries.packed, features=own)


def concatenated(first: Packed, second: Packed) -> Packed:
    """Return the texts of both, one after the other."""
    return Packed(
        features=torch.cat([first.features, second.features]),
        tokens=torch.cat([first.tokens, second.tokens.to(first.tokens.dtype)]),
        offsets=torch.cat([first.offsets, first.offsets[-1] + second.offsets[1:]]),
        truncated=first.truncated + second.truncated,
        ids=first.ids + second.ids,
    )


def canary_scores(log_probs: NDArray[np.float64], canaries: Canaries) -> NDArray[np.float64]:
    """Score each canary: minus its loss, or for dirac canaries its logit above the mean.

    Args:
        log_probs: Shape (n, C), nats, of the planted data; the canaries come last.
        canaries: The planted canaries.

    Returns:
        Shape (m,). Higher means "more likely trained on".
    """
    last = log_probs[-len(canaries.classes) :]
    own: NDArray[np.float64] = last[np.arange(len(last)), canaries.classes]
    return own - last.mean(1) if canaries.kind == "dirac" else own


class BatchRecorder(lightning.Callback):
    """Recorder of the units in each batch, as batches reach the first shadow's training step.

    Args:
        units: Shape (n,). Unit of each record.

    Attributes:
        batches: Units of each batch so far.
    """

    def __init__(self, units: NDArray[np.int64]) -> None:
        self._units = units
        self.batches: list[NDArray[np.int64]] = []

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Batch, batch_idx: int) -> None:  # noqa: ARG002
        """Record the units of one batch."""
        there = batch.weights[0] > 0
        self.batches.append(np.unique(self._units[batch.index[0][there].cpu().numpy()]))
