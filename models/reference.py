"""The reference path: PEFT around the whole model and Opacus' own hooks and optimizer, one shadow after another.

It knows nothing of trunks, lanes or factors. It is the oracle of the fast engine, and what trains a model that the fast engine does not
know, or an adaptation other than LoRA.
"""

import copy
import time
from collections.abc import Callable, Iterator
from typing import Any

import lightning
import numpy as np
import peft
import torch
from opacus import GradSampleModule
from opacus.optimizers import DPOptimizer
from torch import Tensor, nn
from torch.nn import functional

from moo.errors import InputError, TrialError
from moo.models.activations import Packed
from moo.models.bank import Frozen
from moo.models.base_models import hushed
from moo.models.blocks import family_of
from moo.models.datamodule import Batch, PoissonBatches, PoissonDataModule
from moo.models.dp import DPSettings, ShadowNoise, per_shadow
from moo.models.module import SideBySide
from moo.models.run import Stream, Trained, TrainingData, TrainingSettings, fit


class Classifier(nn.Module):
    """The adapted model's pooled token and the frozen features, scaled by public constants, under one linear head.

    Without an encoder, the head alone.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, encoder: Any, frozen: Frozen, *, n_frozen: int, n_classes: int, biased: bool) -> None:
        super().__init__()
        self.encoder, self._causal = encoder, frozen.causal
        self.register_buffer("shift", torch.from_numpy(frozen.constants.pooled_shift))
        self.register_buffer("scale", torch.from_numpy(frozen.constants.pooled_scale))
        self.head = nn.Linear(n_frozen + (0 if encoder is None else len(self.shift)), n_classes, bias=biased)

    def forward(self, ids: Tensor, mask: Tensor, features: Tensor) -> Tensor:
        """Logits, shape (n, C), of token ids and mask of shape (n, L) and frozen features of shape (n, .)."""
        if self.encoder is None:
            alone: Tensor = self.head(features)
            return alone
        top = self.encoder(input_ids=ids, attention_mask=mask).last_hidden_state.float()
        last = mask.sum(1) - 1 if self._causal else torch.zeros(len(ids), dtype=torch.long, device=ids.device)
        pooled = top[torch.arange(len(ids), device=ids.device), last]
        out: Tensor = self.head(torch.cat([features, (pooled - self.shift) * self.scale], dim=1))
        return out


class ReferenceOptimizer(DPOptimizer):  # type: ignore[misc]
    """Opacus' optimizer with noise from a secret stream."""

    def __init__(self, optimizer: Any, settings: DPSettings, multiplier: float, noise: Callable[..., Tensor]) -> None:
        super().__init__(
            optimizer,
            noise_multiplier=multiplier,
            max_grad_norm=settings.max_grad_norm,
            expected_batch_size=settings.expected_batch_size,  # Opacus says int, and divides by it
        )
        self._noise = noise
        self.steps_taken = self.noisy_steps = 0

    def add_noise(self) -> None:
        """`p.grad` = clipped sum + noise_multiplier * max_grad_norm * noise."""
        std = self.noise_multiplier * self.max_grad_norm if self.noise_multiplier else 0.0
        for p in self.params:
            noise = std * self._noise(0, p.shape, p.device) if std else 0.0
            p.grad = (p.summed_grad + noise).view_as(p)
        self.noisy_steps += std > 0
        self.steps_taken += 1


class ReferenceModule(lightning.LightningModule):
    """Trains one shadow from the tokens up."""

    def __init__(
        self, model: Any, data: TrainingData, settings: TrainingSettings, noise: ShadowNoise, *, shadow: int, pad: int
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.model, self.non_finite = model, 0
        self._data, self._settings, self._noise, self._shadow, self._pad = data, settings, noise, shadow, pad
        self._labels = torch.from_numpy(data.labels)
        self.dp_optimizer: ReferenceOptimizer | None = None

    def configure_optimizers(self) -> ReferenceOptimizer:
        s, k = self._settings, len(self._data.members)
        clip = s.dp.max_grad_norm if np.isfinite(s.dp.max_grad_norm) else 1.0
        trained = {n: p for n, p in self.model.named_parameters() if p.requires_grad}
        head = [p for n, p in trained.items() if ".head." in n]
        rest = [p for n, p in trained.items() if ".head." not in n]
        rates = (per_shadow(s.optimizer.head_learning_rate, k, "head_learning_rate")[self._shadow] / clip,
                 per_shadow(s.optimizer.learning_rate, k, "learning_rate")[self._shadow])  # fmt: skip
        parts: list[Any] = [torch.optim.SGD(head, lr=rates[0], momentum=s.optimizer.head_momentum)]
        parts += [torch.optim.Adam(rest, lr=rates[1])] if rest else []
        multiplier = per_shadow(s.dp.noise_multiplier, k, "noise_multiplier")[self._shadow]
        self.dp_optimizer = ReferenceOptimizer(SideBySide(parts), s.dp, multiplier, self._noise)
        return self.dp_optimizer

    def training_step(self, batch: Batch, batch_idx: int) -> None:  # noqa: ARG002
        outer: Any = self.optimizers()
        optimizer = outer.optimizer  # Lightning's wrapper counts steps, and hides signal_skip_step
        optimizer.zero_grad()
        *most, last = batch.chunks(self._settings.optimizer.chunk)
        for chunk in most:
            self._per_unit_gradients(chunk, optimizer)
            optimizer.signal_skip_step(do_skip=True)
            optimizer.step()
            optimizer.zero_grad()
        self._per_unit_gradients(last, optimizer)
        optimizer.signal_skip_step(do_skip=False)
        outer.step()

    def _per_unit_gradients(self, chunk: Batch, optimizer: ReferenceOptimizer) -> None:
        """Opacus' gradients of records, averaged by unit: `grad_sample` of shape (units, ...)."""
        units, places = torch.nonzero(chunk.weights[0] > 0, as_tuple=True)
        rows, weights = chunk.index[0][units, places], chunk.weights[0][units, places]
        n_units = int(chunk.present.sum())
        if len(rows):
            ids, mask = padded(self._data.packed, rows, self._pad)
            logits = self.model(
                ids.to(self.device), mask.to(self.device), self._data.packed.features[rows].to(self.device)
            )
            functional.cross_entropy(logits, self._labels[rows].to(self.device), reduction="sum").backward()  # type: ignore[no-untyped-call]
        bad = torch.zeros(n_units, dtype=torch.bool, device=self.device)
        for p in optimizer.params:
            by_unit = torch.zeros(n_units, *p.shape, device=self.device)
            if len(rows):
                scaled = p.grad_sample * weights.view(-1, *[1] * p.dim()).to(self.device)
                by_unit.index_add_(0, units.to(self.device), scaled)
            p.grad_sample = by_unit
            bad |= ~torch.isfinite(by_unit.flatten(1)).all(1)
        self.non_finite += int(bad.sum())
        for p in optimizer.params:
            p.grad_sample[bad] = 0.0

    def on_train_end(self) -> None:
        if not all(bool(torch.isfinite(p).all()) for p in self.model.parameters() if p.requires_grad):
            raise TrialError(
                "the trained parameters must be finite, but some are not; lower the learning rate.",
                cause="non-finite parameters",
            )


class ReferenceShadows:
    """K trained models that share all that is frozen: one classifier, and what each shadow trained.

    Args:
        model: Wrapped by Opacus.
        states: One dictionary a shadow.
        pad: Padding token.
    """

    def __init__(self, model: Any, states: list[dict[str, Tensor]], *, pad: int) -> None:
        self.model, self.states, self._pad = model, states, pad

    @torch.no_grad()
    def log_probs(self, packed: Packed, *, chunk: int = 64) -> Tensor:
        """Log-probabilities of every shadow on every text, shape (K, n, C), nats."""
        order = torch.from_numpy(np.argsort([len(i) for i in packed.ids], kind="stable"))
        out = []
        self.model.eval()
        for state in self.states:
            _load(self.model, state)
            parts = []
            for rows in torch.split(order, chunk):
                ids, mask = padded(packed, rows, self._pad)
                parts.append(self.model(ids, mask, packed.features[rows]).log_softmax(-1))
            told = torch.cat(parts)
            out.append(torch.empty_like(told).index_copy_(0, order, told))
        return torch.stack(out)


def train_reference(data: TrainingData, settings: TrainingSettings, frozen: Frozen, stream: Stream) -> Trained:
    """As `moo.models.training.train`, on the reference path."""
    if len(data.packed.ids) != len(data.labels):
        raise InputError(
            "engine='opacus' reads tokens: packed.ids must hold one text a label; see moo.models.trunk.token_ids."
        )
    started, pad = time.perf_counter(), int(frozen.base.tokenizer.pad_token_id)
    fitted = [_one(data, settings, frozen, stream, shadow=shadow, pad=pad) for shadow in range(len(data.members))]
    optimizers = [m.dp_optimizer for m in fitted if m.dp_optimizer is not None]
    private = [o.noisy_steps for o in optimizers if o.noise_multiplier] or [0]
    states = [{n: p.detach().clone() for n, p in m.model.named_parameters() if p.requires_grad} for m in fitted]
    return Trained(
        bank=ReferenceShadows(fitted[-1].model, states, pad=pad),
        steps=min(o.steps_taken for o in optimizers),
        non_finite=sum(m.non_finite for m in fitted),
        seconds=time.perf_counter() - started,
        noisy_steps=min(private),
        expected_batch_size=float(optimizers[-1].expected_batch_size),
        sampler=PoissonBatches.sampler,
        chunk=settings.optimizer.chunk,
    )


def _one(
    data: TrainingData, settings: TrainingSettings, frozen: Frozen, stream: Stream, *, shadow: int, pad: int
) -> ReferenceModule:
    """One shadow, fitted and checked."""
    rank = int(per_shadow(settings.lora_rank, len(data.members), "lora_rank")[shadow])
    model = GradSampleModule(_classifier(data, settings, frozen, rank), loss_reduction="sum")
    model.train()  # Opacus' hooks sleep in evaluation mode; dropout is off by its probability
    _initialise(model, settings, frozen, stream("init", shadow))
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    module = ReferenceModule(model, data, settings, ShadowNoise([stream("noise", shadow)]), shadow=shadow, pad=pad)
    batches = PoissonBatches(
        units=data.units,
        lengths=data.packed.lengths,
        members=data.members[shadow : shadow + 1],
        sample_rate=settings.sample_rate,
        steps=settings.steps,
        generators=[stream("sampling", shadow)],
    )
    fit(module, PoissonDataModule(batches), settings)
    _check_moves(model.cpu(), before)
    return module


def _classifier(data: TrainingData, settings: TrainingSettings, frozen: Frozen, rank: int) -> Classifier:
    encoder = None
    if settings.depth.adapted_layers or settings.adaptation != "lora":
        model = frozen.base.model
        shared = {} if settings.adaptation == "full" else {id(p): p for p in model.get_input_embeddings().parameters()}
        with hushed():
            encoder = _adapted(copy.deepcopy(model, shared), settings, frozen, rank)
    biased = not (settings.depth.head == "stock" and frozen.causal)
    out = Classifier(
        encoder, frozen, n_frozen=data.packed.features.shape[1], n_classes=data.n_classes, biased=biased
    ).float()
    for module in out.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return out


def _adapted(encoder: Any, settings: TrainingSettings, frozen: Frozen, rank: int) -> Any:
    if settings.adaptation == "prefix":
        prefix = peft.PrefixTuningConfig(task_type="FEATURE_EXTRACTION", num_virtual_tokens=rank)
        return peft.get_peft_model(encoder, prefix)
    if settings.adaptation == "full":
        encoder.requires_grad_(True)
        encoder.get_input_embeddings().requires_grad_(False)
        return encoder
    family, top = family_of(frozen.base.model), int(encoder.config.num_hidden_layers)
    config = peft.LoraConfig(
        r=rank,
        lora_alpha=settings.lora_alpha,  # type: ignore[arg-type] # PEFT says int, and divides it by the rank
        lora_dropout=0.0,
        target_modules=None if family is None else family.peft_targets(settings.depth.targets),
        layers_to_transform=list(range(top - settings.depth.adapted_layers, top)),
        layers_pattern=None if family is None else family.blocks.rpartition(".")[2],
        fan_in_fan_out=encoder.config.model_type == "gpt2",
    )
    return peft.get_peft_model(encoder, config)


def _initialise(model: Any, settings: TrainingSettings, frozen: Frozen, rng: np.random.Generator) -> None:
    """As the bank starts: A uniform from the shadow's stream, in the order of the bank's layers; B and head zero."""
    seed = torch.Generator().manual_seed(int(rng.integers(2**63)))
    named = {n: p for n, p in model.named_parameters() if p.requires_grad}
    for name in _in_order([n for n in named if ".lora_A." in n], settings, frozen):
        p = named[name]
        p.data.copy_((torch.rand(p.shape, generator=seed) * 2 - 1) * p.shape[1] ** -0.5)
    for name, p in named.items():
        if ".lora_B." in name or ".head." in name:
            p.data.zero_()
        elif "prompt_encoder" in name:
            p.data.copy_(torch.randn(p.shape, generator=seed) * 0.02)


def _in_order(names: list[str], settings: TrainingSettings, frozen: Frozen) -> Iterator[str]:
    family = family_of(frozen.base.model)
    if family is None or not names:
        yield from names
        return
    n = int(frozen.base.model.config.num_hidden_layers)
    for block in range(n - settings.depth.adapted_layers, n):
        for path in family.targets(settings.depth.targets):
            yield next(x for x in names if f"{family.blocks}.{block}.{path}.lora_A." in x)


def _check_moves(model: Any, before: dict[str, Tensor]) -> None:
    for name, p in model.named_parameters():
        same = torch.equal(p.detach(), before[name].cpu())
        if p.requires_grad and same:
            raise TrialError(f"every adapter must move, but {name} did not.", cause="adapter did not move")
        if not p.requires_grad and not same:
            raise TrialError(f"the frozen model must not move, but {name} did.", cause="base weights moved")


def _load(model: Any, state: dict[str, Tensor]) -> None:
    for name, p in model.named_parameters():
        if name in state:
            p.data.copy_(state[name])


def padded(packed: Packed, rows: Tensor, pad: int) -> tuple[Tensor, Tensor]:
    """Token ids and mask of some texts, each (n, L), padded behind to the longest."""
    texts = [packed.ids[int(i)] for i in rows]
    ids = torch.full((len(texts), max(map(len, texts))), pad)
    mask = torch.zeros_like(ids)
    for j, text in enumerate(texts):
        ids[j, : len(text)] = torch.tensor(text)
        mask[j, : len(text)] = 1
    return ids, mask
