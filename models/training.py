"""Train a bank of shadows through Lightning, and check that what should move did and what should not did not."""

import logging
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import lightning
import numpy as np
import torch
from numpy.typing import NDArray

from moo.errors import InputError, TrialError
from moo.models.activations import Packed
from moo.models.bank import Bank, BankConfig, Depth, Frozen
from moo.models.datamodule import PoissonBatches, PoissonDataModule
from moo.models.dp import DPSettings, ShadowNoise, per_shadow
from moo.models.module import BankModule, OptimizerSettings

Stream = Callable[[str, int], np.random.Generator]

# What would change the update, the sampling or the noise behind the accountant's back.
REFUSED = (
    "accumulate_grad_batches", "gradient_clip_val", "gradient_clip_algorithm", "overfit_batches", "limit_train_batches",
    "max_steps", "max_epochs", "min_steps", "min_epochs", "max_time", "fast_dev_run", "strategy", "num_nodes",
    "devices",
    "precision", "plugins", "use_distributed_sampler", "inference_mode", "detect_anomaly", "enable_checkpointing",
    "barebones", "check_val_every_n_epoch",
)  # fmt: skip


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


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A trained bank and what happened on the way.

    Attributes:
        bank: On the CPU.
        steps: Optimizer steps taken.
        non_finite: Units' gradients, over all steps and shadows, that were not finite and contributed zero.
        seconds: Wall clock of the fit.
        noisy_steps: Steps to whose clipped sums noise was added.
        expected_batch_size: What the sums were divided by.
        sampler: How units entered a batch.
    """

    bank: Bank
    steps: int
    non_finite: int
    seconds: float
    noisy_steps: int
    expected_batch_size: float
    sampler: Literal["poisson", "shuffled"]


def train(data: TrainingData, settings: TrainingSettings, frozen: Frozen | None, stream: Stream) -> Trained:
    """Fit K shadows side by side.

    Args:
        data: Records, and which shadow sees which.
        settings: The run.
        frozen: The base model at the settings' depth; None for the head alone.
        stream: (purpose, shadow) -> a secret generator; purposes are "init", "sampling" and "noise".

    Raises:
        InputError: If the rank is above the hidden size, or a Trainer argument would break the DP accounting.
        TrialError: If the parameters became non-finite, an adapter did not move or the frozen blocks did.
    """
    _check(settings, data.packed.tokens.shape[1])
    k = len(data.members)
    bank = _bank(data, settings, frozen, [stream("init", i) for i in range(k)])
    before = {n: p.detach().clone() for n, p in bank.trainable().items()}
    at_first = {n: t.clone() for n, t in bank.frozen_state().items()}
    batches = PoissonBatches(
        units=data.units,
        lengths=data.packed.lengths,
        members=data.members,
        sample_rate=settings.sample_rate,
        steps=settings.steps,
        generators=[stream("sampling", i) for i in range(k)],
    )
    module = BankModule(
        bank,
        data.packed,
        torch.from_numpy(data.labels),
        settings=settings.optimizer,
        dp=settings.dp,
        noise=ShadowNoise([stream("noise", i) for i in range(k)]),
    )
    started = time.perf_counter()
    _fit(module, PoissonDataModule(batches), settings)
    bank.cpu()
    _check_frozen(at_first, bank)
    _check_moved(before, bank)
    assert module.dp_optimizer is not None
    return Trained(
        bank=bank,
        steps=module.dp_optimizer.steps_taken,
        non_finite=module.non_finite,
        seconds=time.perf_counter() - started,
        noisy_steps=module.dp_optimizer.noisy_steps,
        expected_batch_size=float(module.dp_optimizer.expected_batch_size),
        sampler=batches.sampler,
    )


def _check(settings: TrainingSettings, hidden: int) -> None:
    widest = max(settings.lora_rank) if isinstance(settings.lora_rank, tuple) else settings.lora_rank
    if settings.depth.adapted_layers and widest > hidden:
        raise InputError(f"lora_rank <= {hidden} (the hidden size) must hold, but got lora_rank={widest}.")
    refused = sorted(set(settings.trainer) & set(REFUSED))
    if refused:
        raise InputError(f"Trainer arguments must leave the DP accounting intact, but got {refused}; leave them out.")


def _bank(
    data: TrainingData, settings: TrainingSettings, frozen: Frozen | None, init: list[np.random.Generator]
) -> Bank:
    config = BankConfig(
        ranks=tuple(int(r) for r in per_shadow(settings.lora_rank, len(init), "lora_rank")),
        n_classes=data.n_classes,
        depth=settings.depth,
        lora_alpha=settings.lora_alpha,
        biased=frozen is None or not (settings.depth.head == "stock" and frozen.causal),
    )
    seeds = [torch.Generator().manual_seed(int(g.integers(2**63))) for g in init]
    return Bank(config, frozen, data.packed.features.shape[1], seeds)


def _fit(module: BankModule, data: PoissonDataModule, settings: TrainingSettings) -> None:
    quiet = logging.getLogger("lightning.pytorch")
    level = quiet.level
    quiet.setLevel(logging.ERROR)
    options: dict[str, Any] = {
        "logger": False, "enable_progress_bar": False, "enable_model_summary": False, **settings.trainer,
    }  # fmt: skip
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*does not have many workers.*")
            warnings.filterwarnings("ignore", message=".*GPU available but not used.*")
            warnings.filterwarnings("ignore", message=".*in eval mode at the start of training.*")  # the frozen layer
            warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)
            lightning.Trainer(
                accelerator=settings.accelerator,
                devices=1,
                max_steps=settings.steps,
                max_epochs=-1,
                enable_checkpointing=False,
                inference_mode=False,
                **options,
            ).fit(module, datamodule=data)
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise TrialError(
            f"the step must fit into memory, but: {error}; lower the chunk.", cause="out of memory"
        ) from error
    finally:
        quiet.setLevel(level)


def _check_frozen(before: Mapping[str, torch.Tensor], bank: Bank) -> None:
    moved = [n for n, t in bank.frozen_state().items() if not torch.equal(t, before[n].cpu())]
    if moved:
        raise TrialError(f"the frozen blocks must not move, but {moved[0]} did.", cause="base weights moved")


def _check_moved(before: Mapping[str, torch.Tensor], bank: Bank) -> None:
    still = [n for n, p in bank.trainable().items() if bool((p.detach() == before[n]).flatten(1).all(1).any())]
    if still:
        raise TrialError(
            f"every adapter must move, but {still[0]} did not in some shadow.", cause="adapter did not move"
        )
