"""Training of a bank of shadows, with checks that adapters moved and frozen weights did not."""

import time
from collections.abc import Mapping

import numpy as np
import torch

from moo.core.errors import InputError, TrialError
from moo.models.bank.bank import Bank, BankConfig, Frozen
from moo.models.bank.lightning_module import BankModule
from moo.models.dp.observed import StepObserver
from moo.models.dp.optimizer import ShadowNoise, per_shadow
from moo.models.dp.poisson_sampling import PoissonBatches, PoissonDataModule
from moo.models.reference.train import train_reference
from moo.models.training.fit import checkpointing_for, fit
from moo.models.training.settings import Stream, Trained, TrainingData, TrainingSettings
from moo.models.training.trainer_arguments import check_trainer

__all__ = ["Stream", "Trained", "TrainingData", "TrainingSettings", "train"]


def train(data: TrainingData, settings: TrainingSettings, frozen: Frozen | None, stream: Stream) -> Trained:
    """Train K shadows side by side.

    Args:
        data: Records, and which shadow sees which.
        settings: Settings of the training.
        frozen: Base model at the settings' depth; None for the head alone.
        stream: (purpose, shadow) -> a secret generator; purposes are "init", "sampling" and
            "noise".

    Returns:
        The trained shadows, on the CPU, with what reached their steps.

    Raises:
        InputError: If the rank is above the hidden size, or a Trainer argument would break the DP
            accounting.
        TrialError: If parameters became non-finite, an adapter did not move or a frozen block did.
    """
    _check(settings, data.packed.tokens.shape[1])
    if settings.engine == "opacus":
        if frozen is None:
            raise InputError("frozen must be a base model with engine='opacus', got None; load one.")
        return train_reference(data, settings, frozen, stream)
    k = len(data.members)
    bank = _bank(data, settings, frozen, [stream("init", i) for i in range(k)])
    before = {n: p.detach().clone() for n, p in bank.trainable().items()}
    at_first = {n: t.clone() for n, t in bank.frozen_state().items()}
    batches = _batches(data, settings, [stream("sampling", i) for i in range(k)])
    noise = ShadowNoise([stream("noise", i) for i in range(k)])
    observer = StepObserver(data.units, data.members, settings.dp)
    labels = torch.from_numpy(data.labels)
    module = BankModule(
        bank, data.packed, labels, settings=settings.optimizer, dp=settings.dp, noise=noise, observer=observer
    )
    checkpoints = checkpointing_for(data, settings, frozen, module, batches=batches, noise=noise)
    started = time.perf_counter()
    try:
        if checkpoints is None or not checkpoints.done:
            fit(module, PoissonDataModule(batches), settings, checkpoints=checkpoints)
    finally:
        module.release()
    bank.cpu()
    _check_frozen(at_first, bank)
    _check_moved(before, bank)
    return Trained(
        bank=bank,
        observed=observer.observed(),
        non_finite=module.non_finite,
        seconds=time.perf_counter() - started,
        expected_batch_size=float((module.dp_optimizer or settings.dp).expected_batch_size),
        chunk=module.chunk,
        resumed_at=0 if checkpoints is None else checkpoints.start,
        notices=() if checkpoints is None else tuple(checkpoints.notices),
    )


def _check(settings: TrainingSettings, hidden: int) -> None:
    widest = max(settings.lora_rank) if isinstance(settings.lora_rank, tuple) else settings.lora_rank
    if settings.depth.adapted_layers and widest > hidden:
        raise InputError(
            "lora_rank must be <= {hidden}, the hidden size, got {widest}; lower it.",
            hidden=hidden,
            widest=widest,
        )
    if settings.engine == "bank" and settings.adaptation != "lora":
        raise InputError(
            "adaptation must be 'lora' with engine='bank', got {adaptation!r}; set engine='opacus'.",
            adaptation=settings.adaptation,
        )
    check_trainer(settings.trainer)


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


def _batches(data: TrainingData, settings: TrainingSettings, generators: list[np.random.Generator]) -> PoissonBatches:
    return PoissonBatches(
        units=data.units,
        lengths=data.packed.lengths,
        members=data.members,
        sample_rate=settings.sample_rate,
        steps=settings.steps,
        generators=generators,
    )


def _check_frozen(before: Mapping[str, torch.Tensor], bank: Bank) -> None:
    moved = [n for n, t in bank.frozen_state().items() if not torch.equal(t, before[n].cpu())]
    if moved:
        raise TrialError(
            "The frozen blocks must not move, but {moved} did; report this as a bug.",
            moved=moved[0],
            cause="base weights moved",
        )


def _check_moved(before: Mapping[str, torch.Tensor], bank: Bank) -> None:
    still = [n for n, p in bank.trainable().items() if bool((p.detach() == before[n]).flatten(1).all(1).any())]
    if still:
        raise TrialError(
            "Every adapter must move, but {still} did not in some shadow; raise the learning rate or the steps.",
            still=still[0],
            cause="adapter did not move",
        )
