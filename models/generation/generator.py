"""Causal language models, fine-tuned by LoRA with or without DP.

One text is one record; its loss is the mean over its tokens after the first. Training is that of
the Opacus engine: Opacus' gradients of single texts, the mean over a unit's, clipping, noise from a
secret stream, Poisson batches through Lightning's fit.
"""

import copy
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import peft
import torch
import transformers
from numpy.typing import NDArray
from opacus import GradSampleModule
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoModelForCausalLM, AutoTokenizer

from moo.core.errors import InputError
from moo.models.dp.observed import Observed
from moo.models.dp.optimizer import ShadowNoise
from moo.models.dp.poisson_sampling import PoissonBatches, PoissonDataModule
from moo.models.pretrained.architectures import family_of
from moo.models.pretrained.hf_folder import silence_transformers
from moo.models.pretrained.loading import REGISTRY, fetch_model, pick_device
from moo.models.reference.lightning_module import ReferenceModule
from moo.models.reference.shadows import pad_token_ids
from moo.models.training.fit import fit
from moo.models.training.settings import Stream, TrainingData, TrainingSettings
from moo.models.trunk.packed import Packed

Ids = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Generator:
    """Causal model with its head, and its tokenizer.

    Attributes:
        model: Model in evaluation mode.
        tokenizer: Tokenizer with a padding token.
        device: Device of the model.
    """

    model: Any
    tokenizer: Any
    device: torch.device

    def ids(self, texts: Sequence[str]) -> tuple[Ids, ...]:
        """Return token ids of each text, without special tokens."""
        return tuple(tuple(self.tokenizer(t, add_special_tokens=False)["input_ids"]) for t in texts)


@dataclass(frozen=True, kw_only=True)
class TrainedGenerator:
    """Fine-tuned generator with a record of its training, as `Trained` is for shadows.

    Attributes:
        generator: Fine-tuned model.
        observed: Steps, noise and batches as they reached the training.
        non_finite: Number of unit gradients that were not finite and contributed zero.
        expected_batch_size: Divisor of the sums.
    """

    generator: Generator
    observed: Observed
    non_finite: int
    expected_batch_size: float

    @property
    def steps(self) -> int:
        """Return the optimizer steps taken."""
        return self.observed.steps

    @property
    def noisy_steps(self) -> int:
        """Return the number of steps in which every tensor had its noise."""
        return self.observed.noisy_steps


def load_generator(name: str, *, accelerator: str = "auto") -> Generator:
    """Load a causal model by name, folder or hub id; safetensors only, no remote code.

    Raises:
        InputError: If there is no such causal model.
    """
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    source: str | Path = fetch_model(name) if name in REGISTRY else name
    try:
        with silence_transformers():
            model: Any = AutoModelForCausalLM.from_pretrained(
                source, use_safetensors=True, trust_remote_code=False, dtype=torch.float32
            )
            tokenizer: Any = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    except (OSError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        raise InputError(
            "model must be a causal one with safetensors weights, got {name!r} ({first}); name another.",
            name=name,
            first=first,
        ) from error
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    device = pick_device(accelerator)
    return Generator(model=model.to(device).eval(), tokenizer=tokenizer, device=device)


class GeneratorModule(ReferenceModule):
    """Training of one generator; a text's loss is the mean over its tokens after the first."""

    def record_losses(self, rows: Tensor) -> Tensor:
        """Return the mean loss over each text's tokens after the first, shape (n,), nats."""
        ids, mask = pad_token_ids(self._data.packed, rows, self._pad)
        ids, mask = ids.to(self.device), mask.to(self.device)
        logits = self.model(input_ids=ids, attention_mask=mask).logits
        each = token_losses(logits, ids) * mask[:, 1:]
        return each.sum(1) / mask[:, 1:].sum(1)


def train_generator(
    generator: Generator, texts: Sequence[Ids], units: NDArray[np.int64], settings: TrainingSettings, stream: Stream
) -> TrainedGenerator:
    """Fine-tune the top `depth.adapted_layers` layers by LoRA.

    Args:
        generator: Base generator; not changed.
        texts: Token ids of n texts, each of at least two tokens.
        units: Shape (n,). Unit of privacy of each text.
        settings: Settings of the training; head and lanes do not apply here.
        stream: (purpose, 0) -> a secret generator; purposes are "init", "sampling" and "noise".

    Raises:
        InputError: If a text is too short, or no layer is adapted.
        TrialError: If the parameters became non-finite.
    """
    short = [i for i, t in enumerate(texts) if len(t) < 2]
    if short or not len(texts):
        raise InputError(
            "texts must have at least two tokens each, but {n_short} of {n_texts} are shorter; leave them out.",
            n_short=len(short),
            n_texts=len(texts),
        )
    if settings.depth.adapted_layers < 1:
        raise InputError("adapted_layers must be >= 1 for a generator, got 0; its head is not trained.")
    model = GradSampleModule(_with_lora(generator, settings, stream), loss_reduction="sum")
    model.train()
    data = _data(texts, units)
    noise = ShadowNoise([stream("noise", 0)])
    module = GeneratorModule(model, data, settings, noise, shadow=0, pad=int(generator.tokenizer.pad_token_id))
    batches = PoissonBatches(
        units=data.units,
        lengths=data.packed.lengths,
        members=data.members,
        sample_rate=settings.sample_rate,
        steps=settings.steps,
        generators=[stream("sampling", 0)],
    )
    fit(module, PoissonDataModule(batches), settings)
    optimizer: Any = module.dp_optimizer
    trained = model._module.to(generator.device).eval()
    model.remove_hooks()
    return TrainedGenerator(
        generator=dataclasses.replace(generator, model=trained),
        observed=module.observer.observed(),
        non_finite=module.non_finite,
        expected_batch_size=float(optimizer.expected_batch_size),
    )


def _with_lora(generator: Generator, settings: TrainingSettings, stream: Stream) -> Any:
    """Add LoRA to the top layers: A uniform from the secret stream, B zero, dropout off."""
    inner = generator.model.base_model
    family, top = family_of(inner), int(generator.model.config.num_hidden_layers)
    if family is None or not isinstance(settings.lora_rank, int):
        raise InputError(
            "A generator must be a known decoder with one lora_rank, got {type}, {lora_rank!r}; name another.",
            type=type(inner).__name__,
            lora_rank=settings.lora_rank,
        )
    config = peft.LoraConfig(
        r=settings.lora_rank,
        # PEFT declares int, and divides it by the rank.
        lora_alpha=settings.lora_alpha,  # type: ignore[arg-type]
        lora_dropout=0.0,
        target_modules=family.peft_targets(settings.depth.targets),
        layers_to_transform=list(range(max(0, top - settings.depth.adapted_layers), top)),
        layers_pattern=family.blocks.rpartition(".")[2],
        fan_in_fan_out=generator.model.config.model_type == "gpt2",
    )
    with silence_transformers():
        adapted = peft.get_peft_model(copy.deepcopy(generator.model), config)
    seed = torch.Generator().manual_seed(int(stream("init", 0).integers(2**63)))
    for name, p in adapted.named_parameters():
        if ".lora_A." in name:
            p.data.copy_((torch.rand(p.shape, generator=seed) * 2 - 1) * p.shape[1] ** -0.5)
    for layer in adapted.modules():
        if isinstance(layer, nn.Dropout):
            layer.p = 0.0
    return adapted


def _data(texts: Sequence[Ids], units: NDArray[np.int64]) -> TrainingData:
    """Return texts in the form of the Opacus engine: token ids alone."""
    n, lengths = len(texts), torch.tensor([0, *map(len, texts)])
    packed = Packed(features=torch.zeros(n, 0), tokens=torch.zeros(0, 0), offsets=lengths.cumsum(0), ids=tuple(texts))
    zeros = torch.zeros(n, dtype=torch.long).numpy()
    return TrainingData(
        packed=packed, labels=zeros, units=units, members=torch.ones(1, n, dtype=torch.bool).numpy(), n_classes=1
    )


def token_losses(logits: Tensor, ids: Tensor) -> Tensor:
    """Return the loss of each token after the first in nats, shape (n, L - 1)."""
    return functional.cross_entropy(logits[:, :-1].mT, ids[:, 1:], reduction="none")
