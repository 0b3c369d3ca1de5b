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
    """Records that the shadows train on.

    Attributes:
        packed: Activations of n records.
        labels: Shape (n,), in 0..C-1.
        units: Shape (n,). Unit of privacy of each record.
        members: Shape (K, n). True where a shadow is trained on the record.
        n_classes: Number of classes C.
    """

    packed: Packed
    labels: NDArray[np.int64]
    units: NDArray[np.int64]
    members: NDArray[np.bool_]
    n_classes: int


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """Settings of one training of K shadows.

    Attributes:
        depth: Part of the model that is adapted.
        lora_rank: LoRA rank, one for all shadows or one per shadow.
        lora_alpha: Scale: LoRA is multiplied by lora_alpha / lora_rank.
        sample_rate: Probability with which a unit enters a batch.
        steps: Optimizer steps.
        dp: Clipping, noise and normaliser.
        optimizer: Step sizes.
        accelerator: "auto", "cpu" or "gpu".
        trainer: Further arguments of `lightning.Trainer`.
        engine: "bank" trains the shadows side by side on a cached trunk; "opacus" one after another
            from the tokens up.
        checkpoint: Place and frequency of checkpoints; None writes none, which is best for a
            training of seconds.
        logs: Content and place of logs; None logs only to loggers in `trainer`.
        adaptation: "lora", or with engine "opacus" also "bottleneck" (adapters of the rank's width
            behind each adapted block), "prefix" (as many virtual tokens as the rank, seen by every
            block) or "full" (everything but embeddings). At adapted_layers = 0 each trains the head
            alone; for "prefix" and "full" all depths above 0 are the same.
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
        """Return the settings that decide the result bit for bit, as bytes."""
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
    """Trained shadows, with a record of their training.

    Attributes:
        bank: Shadows on the CPU: a `Bank`, or `ReferenceShadows` of the Opacus engine.
        observed: Steps, noise and batches as they reached the training.
        non_finite: Number of unit gradients, over all steps and shadows, that were not finite and
            contributed zero.
        seconds: Wall-clock time of the fit in seconds.
        expected_batch_size: Divisor of the sums.
        chunk: Final number of records of a shadow computed at a time; below the setting if memory
            was too small for it.
        resumed_at: Steps taken by earlier attempts and not repeated.
        notices: Messages for a person.
    """

    bank: Any
    observed: Observed
    non_finite: int
    seconds: float
    expected_batch_size: float
    chunk: int
    resumed_at: int = 0
    notices: tuple[str, ...] = ()

    @property
    def steps(self) -> int:
        """Return the optimizer steps taken."""
        return self.observed.steps

    @property
    def noisy_steps(self) -> int:
        """Return the number of steps in which every tensor had its noise."""
        return self.observed.noisy_steps
