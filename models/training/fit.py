"""What both engines share: the records, the run, what comes out, and Lightning's fit around a module."""

import logging
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import lightning
import numpy as np
from numpy.typing import NDArray

from moo.core.errors import TrialError
from moo.models.bank.bank import Depth, Frozen
from moo.models.bank.lightning_module import OptimizerSettings, is_out_of_memory
from moo.models.dp.observed import Observed
from moo.models.dp.optimizer import DPSettings, ShadowNoise
from moo.models.dp.poisson_sampling import PoissonBatches, PoissonDataModule
from moo.models.training.checkpoints import Checkpoints, CheckpointSettings
from moo.models.training.loggers import LogSettings, trainer_options
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


def checkpointing_for(
    data: TrainingData,
    settings: TrainingSettings,
    frozen: Frozen | None,
    module: Any,
    *,
    batches: PoissonBatches,
    noise: ShadowNoise,
    shadow: int | None = None,
) -> Checkpoints | None:
    """What writes the checkpoints of a fit, with the last one taken up; None where none are asked for."""
    if settings.checkpoint is None:
        return None
    base = b"" if frozen is None else f"{frozen.base.digest}{frozen.cut}{frozen.base.low_precision}".encode()
    arrays = (
        data.labels,
        data.units,
        data.members,
        data.packed.offsets.cpu().numpy(),
        data.packed.features.cpu().numpy(),
    )
    checkpoints = Checkpoints(
        settings.checkpoint,
        shadow=shadow,
        n_fits=1 if shadow is None else len(data.members),
        identity=[settings.identity(), base, *(np.ascontiguousarray(a).tobytes() for a in arrays)],
        steps=settings.steps,
        batches=batches,
        noise=noise,
        accountant={
            "noise_multiplier": settings.dp.noise_multiplier,
            "sample_rate": settings.sample_rate,
            "max_grad_norm": str(settings.dp.max_grad_norm),
            "expected_batch_size": settings.dp.expected_batch_size,
        },
    )
    checkpoints.resume(module)
    return checkpoints


def fit(
    module: lightning.LightningModule,
    data: PoissonDataModule,
    settings: TrainingSettings,
    *,
    checkpoints: Checkpoints | None = None,
    shadow: int | None = None,
) -> None:
    """Train through Lightning.

    Args:
        module: What is trained.
        data: Its batches.
        settings: The run.
        checkpoints: Writes checkpoints, and may have taken one up.
        shadow: Shadow of the reference path.
    """
    quiet = logging.getLogger("lightning.pytorch")
    level = quiet.level
    quiet.setLevel(logging.ERROR)
    options: dict[str, Any] = {
        "logger": False, "enable_progress_bar": False, "enable_model_summary": False, "log_every_n_steps": 1,
        **trainer_options(dict(settings.trainer), settings.logs, shadow),
    }  # fmt: skip
    options["callbacks"] += [] if checkpoints is None else [checkpoints]
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*does not have many workers.*")
            warnings.filterwarnings("ignore", message=".*GPU available but not used.*")
            warnings.filterwarnings("ignore", message=".*in eval mode at the start of training.*")  # the frozen layer
            warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)
            warnings.filterwarnings(
                "ignore", message=".*Full backward hook is firing.*"
            )  # Opacus on inputs without gradient
            lightning.Trainer(
                accelerator=settings.accelerator,
                devices=1,
                max_steps=settings.steps - (0 if checkpoints is None else checkpoints.start),
                max_epochs=1,  # the sampler is one pass of so many steps; a second would be charged to nobody
                enable_checkpointing=False,
                inference_mode=False,
                **options,
            ).fit(module, datamodule=data)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise TrialError(
            "one unit's step must fit into memory, but: {error}; take less data, or shorter texts.",
            error=error,
            cause="out of memory",
        ) from error
    finally:
        quiet.setLevel(level)
