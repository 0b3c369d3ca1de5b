"""What the reference path trains: a Hugging Face model adapted by PEFT, under a linear head, started as the bank starts."""

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
import peft
import torch
from torch import Tensor, nn
from torch.nn import functional

from moo.errors import InputError
from moo.models.bank import Frozen
from moo.models.blocks import blocks_of, family_of
from moo.models.pretrained import hushed
from moo.models.run import TrainingData, TrainingSettings


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


def classifier_of(data: TrainingData, settings: TrainingSettings, frozen: Frozen, rank: int) -> Classifier:
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
    if settings.adaptation == "bottleneck":
        return _with_bottlenecks(encoder, settings.depth.adapted_layers or 1, rank)
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


class Bottleneck(nn.Module):
    """x + up(gelu(down(x))) behind a frozen block (Pfeiffer et al. 2021), which PEFT has not. Starts as the identity."""

    def __init__(self, hidden: int, width: int) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(hidden, width), nn.Linear(width, hidden)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.up(functional.gelu(self.down(x)))
        return out


def _with_bottlenecks(encoder: Any, layers: int, width: int) -> Any:
    """The model with a bottleneck behind each of its top blocks, all else frozen."""
    if family_of(encoder) is None:
        raise InputError(
            f"adaptation='bottleneck' needs a model of a known family, but got {type(encoder).__name__}; use 'lora' or 'prefix'."
        )
    encoder.requires_grad_(False)
    for block in list(blocks_of(encoder))[-layers:]:
        block.bottleneck = Bottleneck(int(encoder.config.hidden_size), width)
        block.register_forward_hook(_behind)
    return encoder


def _behind(block: Any, _: Any, out: Any) -> Any:
    """A block's output, or the first of several, through its bottleneck."""
    return (block.bottleneck(out[0]), *out[1:]) if isinstance(out, tuple) else block.bottleneck(out)


def initialise(model: Any, settings: TrainingSettings, frozen: Frozen, rng: np.random.Generator) -> None:
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
        elif ".bottleneck.down.weight" in name:
            p.data.copy_((torch.rand(p.shape, generator=seed) * 2 - 1) * p.shape[1] ** -0.5)
        elif ".bottleneck." in name:
            p.data.zero_()


def _in_order(names: list[str], settings: TrainingSettings, frozen: Frozen) -> Iterator[str]:
    family = family_of(frozen.base.model)
    if family is None or not names:
        yield from names
        return
    n = int(frozen.base.model.config.num_hidden_layers)
    for block in range(n - settings.depth.adapted_layers, n):
        for path in family.targets(settings.depth.targets):
            yield next(x for x in names if f"{family.blocks}.{block}.{path}.lora_A." in x)
