"""Canaries: units that an audit plants in the training data, each by a coin of its own, and finds again in what was trained.

Two kinds. A *text* canary is an ordinary record: a text that nobody wrote, under a random label; whoever can ask the model for a
loss can look for it. A *dirac* canary has one feature to itself, a column that is zero for everybody else, and a gradient far
above the clip that does not fade (`moo.models.dp.losses`): what its unit adds to a step is max_grad_norm along its own coordinate, the
most that any unit can, and nothing else ever moves that coordinate but noise. Both pass through sampling, clipping, noise and
optimizer as every unit does.

Dirac canaries live in the head: noise that is missing on adapters alone leaves them as they were. Text canaries see adapters, through
what these make of the loss, and are weak.

Source: Nasr et al. 2023, "Tight Auditing of Differentially Private Machine Learning", for dirac gradients as canaries.
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
DIRAC_SIZE = (
    100.0  # of a dirac canary's feature: its gradient is so large that what the bias shares of it is 1 part in 10,000
)


@dataclass(frozen=True, kw_only=True)
class Canaries:
    """m canaries, one unit and one record each.

    Attributes:
        packed: Activations of their texts.
        classes: Shape (m,), in 0..C-1.
        included: Shape (m,). The coins: who is trained on.
        kind: "dirac" or "text".
    """

    packed: Packed
    classes: NDArray[np.int64]
    included: NDArray[np.bool_]
    kind: Kind

    def __post_init__(self) -> None:
        m = len(self.classes)
        if not m or len(self.packed.features) != m or self.included.shape != (m,):
            raise InputError(
                "one text, class and coin for each of m >= 1 canaries must hold, but got {n_features} "
                "texts, {m} classes and coins of shape {shape}.",
                n_features=len(self.packed.features),
                m=m,
                shape=self.included.shape,
            )
        if self.kind not in KINDS:
            raise InputError("kind in {kinds} must hold, but got kind={kind!r}.", kinds=list(KINDS), kind=self.kind)


def plant(data: TrainingData, canaries: Canaries) -> TrainingData:
    """The data with the canaries behind them, all K shadows trained on those whose coins say so."""
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
    """A column for each canary; everything else about a canary's features is zero."""
    (n, d), m = packed.features.shape, len(canaries.classes)
    own = torch.cat([torch.zeros(m, d), DIRAC_SIZE * torch.eye(m)], dim=1)
    others = torch.cat([packed.features, torch.zeros(n, m)], dim=1)
    return dataclasses.replace(packed, features=others), dataclasses.replace(canaries.packed, features=own)


def concatenated(first: Packed, second: Packed) -> Packed:
    """The texts of both, one behind the other."""
    return Packed(
        features=torch.cat([first.features, second.features]),
        tokens=torch.cat([first.tokens, second.tokens.to(first.tokens.dtype)]),
        offsets=torch.cat([first.offsets, first.offsets[-1] + second.offsets[1:]]),
        truncated=first.truncated + second.truncated,
        ids=first.ids + second.ids,
    )


def canary_scores(log_probs: NDArray[np.float64], canaries: Canaries) -> NDArray[np.float64]:
    """How much a model looks trained on each canary: minus its loss, or for dirac canaries its logit above the mean.

    Args:
        log_probs: Shape (n, C), nats, of the planted data; the canaries stand last.
        canaries: What was planted.

    Returns:
        Shape (m,); higher means "more likely in".
    """
    last = log_probs[-len(canaries.classes) :]
    own: NDArray[np.float64] = last[np.arange(len(last)), canaries.classes]
    return own - last.mean(1) if canaries.kind == "dirac" else own


class BatchRecorder(lightning.Callback):
    """Notes which units each batch holds, as the batches reach the training step of the first shadow.

    Args:
        units: Shape (n,). Unit of each record.
    """

    def __init__(self, units: NDArray[np.int64]) -> None:
        self._units = units
        self.batches: list[NDArray[np.int64]] = []

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Batch, batch_idx: int) -> None:  # noqa: ARG002
        there = batch.weights[0] > 0
        self.batches.append(np.unique(self._units[batch.index[0][there].cpu().numpy()]))
