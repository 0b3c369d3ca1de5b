"""Training by the Opacus engine: PEFT around the whole model, one shadow after another.

It has no trunks, lanes or factors. It is the oracle of the bank, and trains models that the bank does not
support, and adaptations other than LoRA.
"""

import dataclasses
import gc
import time
from dataclasses import dataclass
from typing import Any

import torch
from opacus import GradSampleModule
from torch import Tensor

from moo.core.errors import InputError, TrialError
from moo.models.bank.bank import Frozen
from moo.models.dp.observed import Observed
from moo.models.dp.optimizer import ShadowNoise
from moo.models.dp.poisson_sampling import PoissonBatches, PoissonDataModule
from moo.models.reference.adapters import AdapterSpec, Classifier, adapter_spec, build_classifier, initialise
from moo.models.reference.lightning_module import ReferenceModule
from moo.models.reference.per_record_check import check_per_record_gradients
from moo.models.reference.shadows import ReferenceShadows
from moo.models.training.fit import checkpointing_for, fit
from moo.models.training.settings import Stream, Trained, TrainingData, TrainingSettings


def train_reference(data: TrainingData, settings: TrainingSettings, frozen: Frozen, stream: Stream) -> Trained:
    """Train the shadows one after another; see `moo.models.train.train`.

    Raises:
        InputError: If texts are missing, or the Opacus engine has no such models.
        TrialError: If parameters became non-finite, an adapter did not move or a frozen weight did.
    """
    if len(data.packed.ids) != len(data.labels):
        raise InputError(
            "packed.ids must hold one text per label with engine='opacus', got {n_texts} for {n_labels}; use "
            "moo.models.trunk.encode.token_ids.",
            n_texts=len(data.packed.ids),
            n_labels=len(data.labels),
        )
    started, shape = time.perf_counter(), adapter_spec(data, settings)
    fitted: list[_Fitted] = []
    for shadow in range(len(data.members)):
        fitted = [dataclasses.replace(one, model=None) for one in fitted]
        # A model hooked by Opacus references itself, and with it its copy of the base model.
        gc.collect()
        fitted.append(_train_shadow(data, settings, frozen, stream, shape, shadow=shadow))
    return Trained(
        bank=ReferenceShadows(fitted[-1].model, [one.state for one in fitted], shape=shape, frozen=frozen),
        observed=Observed.merge([one.observed for one in fitted]),
        non_finite=sum(one.non_finite for one in fitted),
        seconds=time.perf_counter() - started,
        expected_batch_size=fitted[-1].expected_batch_size,
        chunk=min(one.chunk for one in fitted),
        resumed_at=min(one.resumed_at for one in fitted),
        notices=tuple(dict.fromkeys(notice for one in fitted for notice in one.notices)),
    )


@dataclass(frozen=True, kw_only=True)
class _Fitted:
    """One trained shadow, with the fields of `Trained`; only the last one keeps its model."""

    model: Any
    state: dict[str, Tensor]
    observed: Observed
    non_finite: int
    expected_batch_size: float
    chunk: int
    resumed_at: int
    notices: tuple[str, ...]


def _train_shadow(
    data: TrainingData, settings: TrainingSettings, frozen: Frozen, stream: Stream, shape: AdapterSpec, *, shadow: int
) -> _Fitted:
    """Train and check one shadow."""
    pad = int(frozen.base.tokenizer.pad_token_id)
    model = with_grad_sample_hooks(build_classifier(shape, frozen))
    if shape.depth.adapted_layers:
        check_per_record_gradients(model.to(frozen.base.device), frozen.base, n_frozen=shape.n_frozen)
    initialise(model, settings, frozen, stream("init", shadow))
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    noise = ShadowNoise([stream("noise", shadow)])
    module = ReferenceModule(model, data, settings, noise, shadow=shadow, pad=pad)
    batches = PoissonBatches(
        units=data.units,
        lengths=data.packed.lengths,
        members=data.members[shadow : shadow + 1],
        sample_rate=settings.sample_rate,
        steps=settings.steps,
        generators=[stream("sampling", shadow)],
    )
    checkpoints = checkpointing_for(data, settings, frozen, module, batches=batches, noise=noise, shadow=shadow)
    if checkpoints is None or not checkpoints.done:
        fit(module, PoissonDataModule(batches), settings, checkpoints=checkpoints, shadow=shadow)
    _check_moves(model.cpu(), before)
    divided: Any = module.dp_optimizer or settings.dp
    return _Fitted(
        model=model,
        state={n: p.detach().cpu().clone() for n, p in module.trained().items()},
        observed=module.observer.observed(),
        non_finite=module.non_finite,
        expected_batch_size=float(divided.expected_batch_size),
        chunk=module.chunk,
        resumed_at=0 if checkpoints is None else checkpoints.start,
        notices=() if checkpoints is None else tuple(checkpoints.notices),
    )


def check_trainable(shape: AdapterSpec, frozen: Frozen) -> None:
    """Build one shadow's model and check its gradients, as a training does before its first step.

    Raises:
        InputError: If PEFT or Opacus cannot train the model, or not with one gradient per record.
    """
    model = with_grad_sample_hooks(build_classifier(shape, frozen))
    if shape.depth.adapted_layers:
        check_per_record_gradients(model.to(frozen.base.device), frozen.base, n_frozen=shape.n_frozen)


def with_grad_sample_hooks(classifier: Classifier) -> Any:
    """Wrap the classifier in Opacus' hooks, which are off in evaluation mode.

    All modules without trainable parameters are in evaluation mode, so that no dropout is drawn.

    Raises:
        InputError: If Opacus does not know a trained layer.
    """
    try:
        model = GradSampleModule(classifier, loss_reduction="sum")
    except NotImplementedError as error:
        raise InputError(
            "Opacus must know the trained layers, but does not ({error}); use another adaptation.", error=error
        ) from error
    for layer in model.eval().modules():
        layer.training = any(p.requires_grad for p in layer.parameters(recurse=False))
    return model


def _check_moves(model: Any, before: dict[str, Tensor]) -> None:
    for name, p in model.named_parameters():
        same = torch.equal(p.detach(), before[name].cpu())
        if p.requires_grad and same:
            raise TrialError(
                "Every adapter must move, but {name} did not; raise the learning rate or the steps.",
                name=name,
                cause="adapter did not move",
            )
        if not p.requires_grad and not same:
            raise TrialError(
                "The frozen model must not move, but {name} did; report this as a bug.",
                name=name,
                cause="base weights moved",
            )
