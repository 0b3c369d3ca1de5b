"""Data, settings and result of a training, shared by both engines."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from moo.models.bank.bank import Depth
from moo.models.bank.lightning_module import OptimizerSettings
from moo.models.dp.observed import Observed
from moo.models.dp.optimizer import DPSettings
from moo.models.training.checkpoints import CheckpointSettings
from moo.models.training.loggers import LogSettings
from moo.models.trunk.packed import Packed

Adaptation = Literal["lora", "prefix", "bottleneck", "full"]
Stream = Callable[[str, int], np.random.Generator]


@dataclass(frozen=True, kw_only=True)
class TrainingData:
    """What the shadows train on.

    Attributes:
        packed: Activations of n records.
        labels: Shape (n,), in 0..C-1.
        units: Shape (n,). Unit of privacy of each record.
        members: Shape (K, n). True where a shadow is trained on the record.
        n_classes: C.
    """

    packed: Packed
    labels: NDArray[np.int64]
    units: NDArray[np.int64]
    members: NDArray[np.bool_]
    n_classes: int


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """One training run of K shadows.

    Attributes:
        depth: What is adapted.
        lora_rank: Rank, one for all or one for each shadow.
        lora_alpha: LoRA's scale is lora_alpha / lora_rank.
        sample_rate: Probability with which a unit enters a batch.
        steps: Optimizer steps.
        dp: Clipping, noise and normaliser.
        optimizer: Step sizes.
        accelerator: "auto", "cpu" or "gpu".
        trainer: Further arguments of `lightning.Trainer`.
        engine: "bank" trains the shadows side by side on a cached trunk; "opacus" one after another from the tokens up.
        checkpoint: Where and how often the training is written down; None does not, as is best for one of seconds.
        logs: What is logged; None logs nothing but to loggers in `trainer`.
        adaptation: "lora", or on the reference path "bottleneck" (adapters of the rank's width behind each adapted block), "prefix" (as
            many virtual tokens as the rank, seen by every block) or "full" (everything but embeddings). At adapted_layers = 0 each is
            the head alone; for "prefix" and "full" any depth above is the same.
    """

    depth: Depth
    lora_rank: int | tuple[int, ...]
    lora_alpha: float
    sample_rate: float
    steps: int
    dp: DPSettings
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    accelerator: str = "auto"
    trainer: Mapping[str, Any] = field(default_factory=dict)
    engine: Literal["bank", "opacus"] = "bank"
    adaptation: Adaptation = "lora"
    checkpoint: CheckpointSettings | None = None
    logs: LogSettings | None = None

    def identity(self) -> bytes:
        """All of it that decides a number bit for bit."""
        return repr(
            (
                self.depth,
                self.lora_rank,
                self.lora_alpha,
                self.sample_rate,
                self.steps,
                self.dp,
                self.optimizer,
                self.engine,
                self.adaptation,
            )
        ).encode()


@dataclass(frozen=True, kw_only=True)
class Trained:
    """Trained shadows and what happened on the way.

    Attributes:
        bank: On the CPU.
        observed: Its steps, their noise and their batches, as they were seen.
        non_finite: Units' gradients, over all steps and shadows, that were not finite and contributed zero.
        seconds: Wall clock of the fit.
        expected_batch_size: What the sums were divided by.
        chunk: Records of a shadow computed at a time in the end; below the setting where memory was too small for it.
        resumed_at: Steps that an earlier attempt had taken, and this one did not take again.
        notices: What a person should know of how it ran.
    """

    bank: Any  # Bank or ReferenceShadows
    observed: Observed
    non_finite: int
    seconds: float
    expected_batch_size: float
    chunk: int
    resumed_at: int = 0
    notices: tuple[str, ...] = ()

    @property
    def steps(self) -> int:
        """Optimizer steps taken."""
        return self.observed.steps

    @property
    def noisy_steps(self) -> int:
        """Steps in which every tensor had its noise."""
        return self.observed.noisy_steps
