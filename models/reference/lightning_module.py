"""The reference path: PEFT around the whole model and Opacus' own hooks and optimizer, one shadow after another.

It knows nothing of trunks, lanes or factors. It is the oracle of the fast engine, and what trains a model that the fast engine does not
know, or an adaptation other than LoRA.
"""

import dataclasses
import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import lightning
import numpy as np
import torch
from opacus import GradSampleModule
from opacus.optimizers import DPOptimizer
from torch import Tensor

from moo.core.errors import InputError, TrialError
from moo.models.bank.bank import Frozen
from moo.models.bank.lightning_module import CombinedOptimizer, is_out_of_memory
from moo.models.dp.clipping import products_in_fp32
from moo.models.dp.losses import losses
from moo.models.dp.observed import Observed, StepObserver
from moo.models.dp.optimizer import DPSettings, NoisyGradients, ShadowNoise, ignore_noise, per_shadow
from moo.models.dp.poisson_sampling import Batch, PoissonBatches, PoissonDataModule
from moo.models.reference.adapters import AdapterSpec, Classifier, adapter_spec, build_classifier, initialise
from moo.models.reference.per_record_check import check_per_record_gradients
from moo.models.reference.shadows import ReferenceShadows, pad_token_ids
from moo.models.training.fit import checkpointing_for, fit
from moo.models.training.settings import Stream, Trained, TrainingData, TrainingSettings


class ReferenceOptimizer(DPOptimizer):  # type: ignore[misc]
    """Opacus' optimizer with noise from a secret stream."""

    def __init__(
        self,
        optimizer: Any,
        settings: DPSettings,
        multiplier: float,
        noise: Callable[..., Tensor],
        names: Sequence[str] = (),
        observe: Callable[[NoisyGradients], None] = ignore_noise,
    ) -> None:
        expected: Any = settings.expected_batch_size  # Opacus says int, and divides by it
        super().__init__(
            optimizer,
            noise_multiplier=multiplier,
            max_grad_norm=settings.max_grad_norm,
            expected_batch_size=expected,
        )
        self._noise, self._names, self._observe = noise, tuple(names) or ("",) * len(self.params), observe
        self.steps_taken = 0

    def clip_and_accumulate(self) -> None:
        """Opacus' own, on the units' gradients as they are: their norms and their sums see the same numbers."""
        with products_in_fp32():
            super().clip_and_accumulate()

    def add_noise(self) -> None:
        """`p.grad` = clipped sum + noise_multiplier * max_grad_norm * noise."""
        std = self.noise_multiplier * self.max_grad_norm if self.noise_multiplier else 0.0
        parameters: list[Any] = self.params
        for p in parameters:
            noise = std * self._noise(0, p.shape, p.device) if std else 0.0
            p.grad = (p.summed_grad + noise).view_as(p)

    def scale_grad(self) -> None:
        """Show what noise was added, then divide by the expected batch size."""
        self.steps_taken += 1
        parameters: list[Any] = self.params
        handed = zip(self._names, parameters, strict=True)
        self._observe((name, slice(0, 1), p.grad[None], p.summed_grad.view_as(p)[None]) for name, p in handed)
        super().scale_grad()


class ReferenceModule(lightning.LightningModule):
    """Trains one shadow from the tokens up."""

    def __init__(
        self, model: Any, data: TrainingData, settings: TrainingSettings, noise: ShadowNoise, *, shadow: int, pad: int
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.model, self.non_finite, self.chunk = model, 0, settings.optimizer.chunk
        self.logs_losses, self.losses = False, torch.zeros(1)
        self._data, self._settings, self._noise, self._shadow, self._pad = data, settings, noise, shadow, pad
        self._labels = torch.from_numpy(data.labels)
        multiplier = per_shadow(settings.dp.noise_multiplier, len(data.members), "noise_multiplier")[shadow]
        own = dataclasses.replace(settings.dp, noise_multiplier=multiplier)
        self.observer = StepObserver(data.units, data.members[shadow : shadow + 1], own)
        self.dp_optimizer: ReferenceOptimizer | None = None

    def configure_optimizers(self) -> ReferenceOptimizer:
        s, k = self._settings, len(self._data.members)
        clip = s.dp.max_grad_norm if np.isfinite(s.dp.max_grad_norm) else 1.0
        trained = {n: p for n, p in self.model.named_parameters() if p.requires_grad}
        head = {n: p for n, p in trained.items() if ".head." in n}
        rest = {n: p for n, p in trained.items() if ".head." not in n}
        rates = (per_shadow(s.optimizer.head_learning_rate, k, "head_learning_rate")[self._shadow] / clip,
                 per_shadow(s.optimizer.learning_rate, k, "learning_rate")[self._shadow])  # fmt: skip
        momentum = s.optimizer.head_momentum
        parts: list[Any] = [torch.optim.SGD(list(head.values()), lr=rates[0], momentum=momentum)] if head else []
        parts += [torch.optim.Adam(list(rest.values()), lr=rates[1])] if rest else []
        multiplier = per_shadow(s.dp.noise_multiplier, k, "noise_multiplier")[self._shadow]
        self.dp_optimizer = ReferenceOptimizer(
            CombinedOptimizer(parts), s.dp, multiplier, self._noise, [*head, *rest], self.observer.check_noise
        )
        return self.dp_optimizer

    def on_fit_start(self) -> None:
        self.observer.to(self.device)

    def trained(self) -> dict[str, Tensor]:
        """What a checkpoint holds of the model: all but what is frozen."""
        return {n: p for n, p in self.model.named_parameters() if p.requires_grad}

    def training_step(self, batch: Batch, batch_idx: int) -> None:  # noqa: ARG002
        self.observer.count_batch(batch)
        outer: Any = self.optimizers()
        optimizer = outer.optimizer  # Lightning's wrapper counts steps, and hides signal_skip_step
        while True:
            try:
                loss, non_finite = self._sum_of_chunks(batch, optimizer)
            except (MemoryError, RuntimeError) as error:
                if self.chunk == 1 or not is_out_of_memory(error):
                    raise
                self.chunk //= 2
                self._start_over(optimizer)
            else:
                break
        self.non_finite += non_finite
        self.losses = loss[None] / batch.present.sum().clamp(min=1)
        optimizer.signal_skip_step(do_skip=False)
        outer.step()

    def _sum_of_chunks(self, batch: Batch, optimizer: ReferenceOptimizer) -> tuple[Tensor, int]:
        """All chunks but the last clipped and summed by Opacus, the last one's gradients left for the step; summed loss, bad units."""
        optimizer.zero_grad()
        *most, last = batch.chunks(self.chunk)
        loss, non_finite = torch.zeros((), device=self.device), 0
        for chunk in most:
            told = self._per_unit_gradients(chunk, optimizer)
            loss, non_finite = loss + told[0], non_finite + told[1]
            optimizer.signal_skip_step(do_skip=True)
            optimizer.step()
            optimizer.zero_grad()
        told = self._per_unit_gradients(last, optimizer)
        return loss + told[0], non_finite + told[1]

    def _start_over(self, optimizer: ReferenceOptimizer) -> None:
        """Take back what a batch had left in Opacus when memory ended: its sums, and what its hooks caught."""
        optimizer._step_skip_queue.clear()
        optimizer._is_last_step_skipped = False
        parameters: list[Any] = optimizer.params  # Opacus keeps its gradients on them
        for p in parameters:
            p.grad = p.grad_sample = p.summed_grad = None
            vars(p).pop("_current_grad_sample", None)
            p._forward_counter = 0
        for layer in self.model.modules():
            vars(layer).pop("activations", None)
            vars(layer).pop("max_batch_len", None)

    def _per_unit_gradients(self, chunk: Batch, optimizer: ReferenceOptimizer) -> tuple[Tensor, int]:
        """Opacus' gradients of records, averaged by unit: `grad_sample` of shape (units, ...); summed loss, bad units."""
        units, places = torch.nonzero(chunk.weights[0] > 0, as_tuple=True)
        rows, weights = chunk.index[0][units, places], chunk.weights[0][units, places]
        parameters: list[Any] = optimizer.params
        n_units, loss = int(chunk.present.sum()), torch.zeros((), device=self.device)
        units = units - (chunk.present.shape[1] - n_units)  # behind the places that hold nobody
        if len(rows):
            told = self.record_losses(rows)
            told.sum().backward()  # type: ignore[no-untyped-call]
            _check_per_record(parameters, len(rows))
            loss = (told.detach() * weights.to(self.device)).sum()
        bad = torch.zeros(n_units, dtype=torch.bool, device=self.device)
        for p in parameters:
            by_unit = torch.zeros(n_units, *p.shape, device=self.device)
            if len(rows):
                scaled = p.grad_sample * weights.view(-1, *[1] * p.dim()).to(self.device)
                by_unit.index_add_(0, units.to(self.device), scaled)
            p.grad_sample = by_unit
            bad |= ~torch.isfinite(by_unit.flatten(1)).all(1)
        for p in parameters:
            p.grad_sample[bad] = 0.0
        return loss, int(bad.sum())

    def record_losses(self, rows: Tensor) -> Tensor:
        """Loss of each of some records, shape (n,), nats."""
        ids, mask = pad_token_ids(self._data.packed, rows, self._pad)
        features, labels = self._data.packed.features, self._labels
        logits = self.model(
            ids.to(self.device), mask.to(self.device), features[rows.to(features.device)].to(self.device)
        )
        return losses(logits, labels[rows.to(labels.device)].to(self.device))

    def on_train_end(self) -> None:
        if not all(bool(torch.isfinite(p).all()) for p in self.model.parameters() if p.requires_grad):
            raise TrialError(
                "the trained parameters must be finite, but some are not; lower the learning rate.",
                cause="non-finite parameters",
            )


def train_reference(data: TrainingData, settings: TrainingSettings, frozen: Frozen, stream: Stream) -> Trained:
    """As `moo.models.train.train`, on the reference path."""
    if len(data.packed.ids) != len(data.labels):
        raise InputError(
            "engine='opacus' reads tokens: packed.ids must hold one text a label; see moo.models.trunk.token_ids."
        )
    started, shape = time.perf_counter(), adapter_spec(data, settings)
    fitted: list[_Fitted] = []
    for shadow in range(len(data.members)):
        fitted = [dataclasses.replace(one, model=None) for one in fitted]
        gc.collect()  # a model that Opacus has hooked holds itself, its copy of the base model included
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
    """One shadow after its training, as `Trained` tells of all; the model itself of the last one alone."""

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
    """One shadow, fitted and checked."""
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
    """Make one shadow's model and look at its gradients, as every training does before its first step.

    Raises:
        InputError: If PEFT or Opacus cannot train the model so, or not each record for itself.
    """
    model = with_grad_sample_hooks(build_classifier(shape, frozen))
    if shape.depth.adapted_layers:
        check_per_record_gradients(model.to(frozen.base.device), frozen.base, n_frozen=shape.n_frozen)


def with_grad_sample_hooks(classifier: Classifier) -> Any:
    """The classifier under Opacus' hooks, which sleep in evaluation mode. All else is in it, so that no dropout is drawn."""
    try:
        model = GradSampleModule(classifier, loss_reduction="sum")
    except NotImplementedError as error:
        raise InputError(
            "Opacus must know the trained layers, but: {error}; use another adaptation.", error=error
        ) from error
    for layer in model.eval().modules():
        layer.training = any(p.requires_grad for p in layer.parameters(recurse=False))
    return model


def _check_per_record(parameters: list[Any], records: int) -> None:
    shapes = [None if not isinstance(p.grad_sample, Tensor) else tuple(p.grad_sample.shape) for p in parameters]
    wrong = [(p, s) for p, s in zip(parameters, shapes, strict=True) if s is None or s[0] != records]
    if wrong:
        raise TrialError(
            "Opacus must give a gradient for each of {records} records, but for a parameter of shape "
            "{shape} it gave {wrong}; use another adaptation.",
            records=records,
            shape=tuple(wrong[0][0].shape),
            wrong=wrong[0][1],
            cause="gradients are not by record",
        )


def _check_moves(model: Any, before: dict[str, Tensor]) -> None:
    for name, p in model.named_parameters():
        same = torch.equal(p.detach(), before[name].cpu())
        if p.requires_grad and same:
            raise TrialError("every adapter must move, but {name} did not.", name=name, cause="adapter did not move")
        if not p.requires_grad and not same:
            raise TrialError("the frozen model must not move, but {name} did.", name=name, cause="base weights moved")
