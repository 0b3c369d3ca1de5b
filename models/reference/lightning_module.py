"""LightningModule of the Opacus engine: one shadow, from the tokens up, by Opacus' hooks."""

import dataclasses
from typing import Any

import lightning
import numpy as np
import torch
from torch import Tensor

from moo.core.errors import TrialError
from moo.models.bank.lightning_module import CombinedOptimizer, is_out_of_memory
from moo.models.dp.losses import losses
from moo.models.dp.observed import StepObserver
from moo.models.dp.optimizer import ShadowNoise, per_shadow
from moo.models.dp.poisson_sampling import Batch
from moo.models.reference.optimizer import ReferenceOptimizer
from moo.models.reference.shadows import pad_token_ids
from moo.models.training.settings import TrainingData, TrainingSettings


class ReferenceModule(lightning.LightningModule):
    """Training of one shadow from the tokens up.

    Args:
        model: Classifier under Opacus' hooks.
        data: Records of all shadows.
        settings: Settings of the training.
        noise: Secret noise; stream 0 is this shadow's.
        shadow: Position of the shadow among the K.
        pad: Token id of padding.
    """

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
        """Build one DP optimizer around SGD for the head and Adam for the rest."""
        s, k = self._settings, len(self._data.members)
        clip = s.dp.max_grad_norm if np.isfinite(s.dp.max_grad_norm) else 1.0
        trained = {n: p for n, p in self.model.named_parameters() if p.requires_grad}
        head = {n: p for n, p in trained.items() if ".head." in n}
        rest = {n: p for n, p in trained.items() if ".head." not in n}
        rates = (
            per_shadow(s.optimizer.head_learning_rate, k, "head_learning_rate")[self._shadow] / clip,
            per_shadow(s.optimizer.learning_rate, k, "learning_rate")[self._shadow],
        )
        momentum = s.optimizer.head_momentum
        parts: list[Any] = [torch.optim.SGD(list(head.values()), lr=rates[0], momentum=momentum)] if head else []
        parts += [torch.optim.Adam(list(rest.values()), lr=rates[1])] if rest else []
        multiplier = per_shadow(s.dp.noise_multiplier, k, "noise_multiplier")[self._shadow]
        self.dp_optimizer = ReferenceOptimizer(
            CombinedOptimizer(parts), s.dp, multiplier, self._noise, [*head, *rest], self.observer.check_noise
        )
        return self.dp_optimizer

    def on_fit_start(self) -> None:
        """Move the counts to the training's device."""
        self.observer.to(self.device)

    def trained(self) -> dict[str, Tensor]:
        """Return the parameters that a checkpoint keeps: all but the frozen ones."""
        return {n: p for n, p in self.model.named_parameters() if p.requires_grad}

    def training_step(self, batch: Batch, batch_idx: int) -> None:  # noqa: ARG002
        """Clip and sum the batch's gradients by Opacus, then take one noisy step."""
        self.observer.count_batch(batch)
        outer: Any = self.optimizers()
        # Lightning's wrapper counts steps, and hides signal_skip_step.
        optimizer = outer.optimizer
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
        """Return summed loss and number of non-finite units of a batch.

        Opacus clips and sums all chunks but the last; the last one's gradients are left for the
        step.
        """
        optimizer.zero_grad()
        *most, last = batch.chunks(self.chunk)
        loss, non_finite = torch.zeros((), device=self.device), 0
        for chunk in most:
            chunk_loss, bad_units = self._per_unit_gradients(chunk, optimizer)
            loss, non_finite = loss + chunk_loss, non_finite + bad_units
            optimizer.signal_skip_step(do_skip=True)
            optimizer.step()
            optimizer.zero_grad()
        chunk_loss, bad_units = self._per_unit_gradients(last, optimizer)
        return loss + chunk_loss, non_finite + bad_units

    def _start_over(self, optimizer: ReferenceOptimizer) -> None:
        """Discard the sums and captures that a batch left in Opacus when memory ran out."""
        optimizer._step_skip_queue.clear()
        optimizer._is_last_step_skipped = False
        # Opacus keeps its gradients on the parameters.
        parameters: list[Any] = optimizer.params
        for p in parameters:
            p.grad = p.grad_sample = p.summed_grad = None
            vars(p).pop("_current_grad_sample", None)
            p._forward_counter = 0
        for layer in self.model.modules():
            vars(layer).pop("activations", None)
            vars(layer).pop("max_batch_len", None)

    def _per_unit_gradients(self, chunk: Batch, optimizer: ReferenceOptimizer) -> tuple[Tensor, int]:
        """Compute records' gradients and average them by unit: `grad_sample` of shape (units, ...).

        Returns:
            Summed loss and number of non-finite units.
        """
        units, places = torch.nonzero(chunk.weights[0] > 0, as_tuple=True)
        rows, weights = chunk.index[0][units, places], chunk.weights[0][units, places]
        parameters: list[Any] = optimizer.params
        n_units, loss = int(chunk.present.sum()), torch.zeros((), device=self.device)
        # Empty places come first.
        units = units - (chunk.present.shape[1] - n_units)
        if len(rows):
            record_losses = self.record_losses(rows)
            record_losses.sum().backward()  # type: ignore[no-untyped-call]
            _check_per_record(parameters, len(rows))
            loss = (record_losses.detach() * weights.to(self.device)).sum()
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
        """Return the loss of each record in `rows`, shape (n,), nats."""
        ids, mask = pad_token_ids(self._data.packed, rows, self._pad)
        features, labels = self._data.packed.features, self._labels
        logits = self.model(
            ids.to(self.device), mask.to(self.device), features[rows.to(features.device)].to(self.device)
        )
        return losses(logits, labels[rows.to(labels.device)].to(self.device))

    def on_train_end(self) -> None:
        """Raise if a trained parameter is not finite."""
        if not all(bool(torch.isfinite(p).all()) for p in self.model.parameters() if p.requires_grad):
            raise TrialError(
                "The trained parameters must be finite, but some are not; lower the learning rate.",
                cause="non-finite parameters",
            )


def _check_per_record(parameters: list[Any], records: int) -> None:
    shapes = [None if not isinstance(p.grad_sample, Tensor) else tuple(p.grad_sample.shape) for p in parameters]
    wrong = [(p, s) for p, s in zip(parameters, shapes, strict=True) if s is None or s[0] != records]
    if wrong:
        raise TrialError(
            "Opacus must give a gradient for each of {records} records, but gave {wrong} for a parameter of shape "
            "{shape}; use another adaptation.",
            records=records,
            shape=tuple(wrong[0][0].shape),
            wrong=wrong[0][1],
            cause="gradients are not by record",
        )
