"""Lightning's fit around a module, and its checkpoints; shared by both engines."""

import logging
import warnings
from typing import Any

import lightning
import numpy as np

from moo.core.errors import TrialError
from moo.models.bank.bank import Frozen
from moo.models.bank.lightning_module import is_out_of_memory
from moo.models.dp.optimizer import ShadowNoise
from moo.models.dp.poisson_sampling import PoissonBatches, PoissonDataModule
from moo.models.training.checkpoints import Checkpoints
from moo.models.training.loggers import trainer_options
from moo.models.training.settings import TrainingData, TrainingSettings

_SILENT: dict[str, Any] = {
    "logger": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "log_every_n_steps": 1,
}


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
    """Return the checkpoint callback of a fit, resumed if possible; None if not requested.

    Args:
        data: Records of the training; part of the checkpoint's identity.
        settings: Settings of the training.
        frozen: Base model; None for the head alone.
        module: Module of the fit.
        batches: Sampler, with the generators of batches.
        noise: Generators of noise.
        shadow: Shadow that the Opacus engine fits; None for a bank.
    """
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
    """Train a module through Lightning.

    Args:
        module: Module to train.
        data: Its batches.
        settings: Settings of the training.
        checkpoints: Callback that writes checkpoints, possibly resumed.
        shadow: Shadow that the Opacus engine fits; None for a bank.

    Raises:
        InputError: If a Trainer argument or callback would break the DP accounting.
        TrialError: If one unit's step does not fit into memory.
    """
    quiet = logging.getLogger("lightning.pytorch")
    level = quiet.level
    quiet.setLevel(logging.ERROR)
    options: dict[str, Any] = {**_SILENT, **trainer_options(dict(settings.trainer), settings.logs, shadow)}
    options["callbacks"] += [] if checkpoints is None else [checkpoints]
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*does not have many workers.*")
            warnings.filterwarnings("ignore", message=".*GPU available but not used.*")
            # The frozen layers stay in eval mode.
            warnings.filterwarnings("ignore", message=".*in eval mode at the start of training.*")
            warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)
            # Opacus, on inputs without gradient.
            warnings.filterwarnings("ignore", message=".*Full backward hook is firing.*")
            lightning.Trainer(
                accelerator=settings.accelerator,
                devices=1,
                max_steps=settings.steps - (0 if checkpoints is None else checkpoints.start),
                # The sampler is one pass of all steps; a second pass would not be charged.
                max_epochs=1,
                enable_checkpointing=False,
                inference_mode=False,
                **options,
            ).fit(module, datamodule=data)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise TrialError(
            "One unit's step must fit into memory, but does not ({error}); take less data, or shorter texts.",
            error=error,
            cause="out of memory",
        ) from error
    finally:
        quiet.setLevel(level)
