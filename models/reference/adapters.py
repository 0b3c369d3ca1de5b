"""Models of the Opacus engine: adapted by PEFT, with a linear head, initialised as a bank."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import peft
import torch
from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING
from torch import Tensor, nn
from torch.nn import functional

from moo.core.errors import InputError
from moo.models.bank.bank import Depth, Frozen
from moo.models.dp.optimizer import per_shadow
from moo.models.pretrained.architectures import blocks_of, family_of, sample_token_ids
from moo.models.pretrained.hf_folder import silence_transformers
from moo.models.training.settings import Adaptation, TrainingData, TrainingSettings


class Classifier(nn.Module):
    """Linear head on the adapted model's pooled token and the frozen features, scaled publicly.

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
        """Return logits of shape (n, C).

        Args:
            ids, mask: Token ids and mask, shape (n, L).
            features: Frozen features, shape (n, .).
        """
        if self.encoder is None:
            alone: Tensor = self.head(features)
            return alone
        top = self.encoder(input_ids=ids, attention_mask=mask).last_hidden_state.float()
        last = mask.sum(1) - 1 if self._causal else torch.zeros(len(ids), dtype=torch.long, device=ids.device)
        pooled = top[torch.arange(len(ids), device=ids.device), last]
        out: Tensor = self.head(torch.cat([features, (pooled - self.shift) * self.scale], dim=1))
        return out


@dataclass(frozen=True, kw_only=True)
class AdapterSpec:
    """Trainable part of one shadow of the Opacus engine, apart from the base model.

    Attributes:
        depth: Part of the model that is adapted.
        adaptation: Kind of adapter; see `moo.models.training.settings.TrainingSettings`.
        rank: LoRA rank, number of virtual tokens or width of bottlenecks.
        alpha: Scale: LoRA is multiplied by alpha / rank.
        n_frozen: Width of the frozen features that the head sees.
        n_classes: Number of classes C.
    """

    depth: Depth
    adaptation: Adaptation
    rank: int
    alpha: float
    n_frozen: int
    n_classes: int


def adapter_spec(data: TrainingData, settings: TrainingSettings) -> AdapterSpec:
    """Return the trainable part of each shadow of a training.

    Raises:
        InputError: If the Opacus engine has no such models.
    """
    ranks, depth = set(per_shadow(settings.lora_rank, len(data.members), "lora_rank")), settings.depth
    if len(ranks) != 1 or depth.layers_dropped or depth.n_queries:
        raise InputError(
            "engine='opacus' trains shadows of one rank on the whole model, without learned queries, got "
            "lora_rank={lora_rank} and {depth}; use engine='bank'.",
            lora_rank=settings.lora_rank,
            depth=depth,
        )
    return AdapterSpec(
        depth=depth,
        adaptation=settings.adaptation,
        rank=int(ranks.pop()),
        alpha=settings.lora_alpha,
        n_frozen=data.packed.features.shape[1],
        n_classes=data.n_classes,
    )


def build_classifier(shape: AdapterSpec, frozen: Frozen) -> Classifier:
    """Build the model of one shadow, uninitialised; at adapted_layers = 0 the head alone.

    Word embeddings are never trained and share the base model's memory; the copy may move to
    another device without them.

    Raises:
        InputError: If neither PEFT nor this module has such an adapter for the model.
    """
    encoder = None
    if shape.depth.adapted_layers:
        words = frozen.base.model.get_input_embeddings().parameters()
        with silence_transformers():
            own = copy.deepcopy(frozen.base.model, {id(p): nn.Parameter(p.data, requires_grad=False) for p in words})
            encoder = _adapted(own, shape)
    biased = not (shape.depth.head == "stock" and frozen.causal)
    out = Classifier(encoder, frozen, n_frozen=shape.n_frozen, n_classes=shape.n_classes, biased=biased).float()
    for module in out.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return out


def _adapted(encoder: Any, shape: AdapterSpec) -> Any:
    if shape.adaptation == "full":
        return _all_but_embeddings(encoder)
    if shape.adaptation == "bottleneck":
        return _with_bottlenecks(encoder, shape.depth.adapted_layers, shape.rank)
    if shape.adaptation == "lora":
        return peft.get_peft_model(encoder, _lora(encoder, shape))
    try:
        prefix = peft.PrefixTuningConfig(task_type="FEATURE_EXTRACTION", num_virtual_tokens=shape.rank)
        return peft.get_peft_model(encoder, prefix)
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise InputError(
            "adaptation must be 'lora' or 'full' on {type}, got 'prefix', which PEFT does not offer for it ({error}).",
            type=type(encoder).__name__,
            error=error,
        ) from error


def _lora(encoder: Any, shape: AdapterSpec) -> peft.LoraConfig:
    family, top, depth = family_of(encoder), int(encoder.config.num_hidden_layers), shape.depth
    alike: dict[str, Any] = {"r": shape.rank, "lora_alpha": shape.alpha, "lora_dropout": 0.0}
    if family is None:
        return peft.LoraConfig(target_modules=layers_of_unknown(encoder, depth), **alike)
    return peft.LoraConfig(
        target_modules=family.peft_targets(depth.targets),
        layers_to_transform=list(range(top - depth.adapted_layers, top)),
        layers_pattern=family.blocks.rpartition(".")[2],
        fan_in_fan_out=encoder.config.model_type == "gpt2",
        **alike,
    )


def layers_of_unknown(encoder: Any, depth: Depth) -> list[str]:
    """Return the names of the linear layers that carry LoRA in a model of no known family.

    Its blocks are the list with as many modules as the model has layers. Without such a list, as in
    ALBERT with its shared weights, all layers at once are adapted, or none. "all_linear" takes the
    linear layers of the top blocks; the other targets take those among them that PEFT targets in
    such a model.

    Raises:
        InputError: If there are no such layers.
    """
    kind, n = type(encoder).__name__, int(encoder.config.num_hidden_layers)
    if depth.adapted_layers > n:
        raise InputError(
            "adapted_layers must be <= {n}, the model's layers, got {adapted_layers}; lower it.",
            n=n,
            adapted_layers=depth.adapted_layers,
        )
    lists = [name for name, m in encoder.named_modules() if isinstance(m, nn.ModuleList) and len(m) == n]
    if not lists and depth.adapted_layers < n:
        raise InputError(
            "adapted_layers must be {n} or 0 on {kind}, got {adapted_layers}: its layers share weights, or "
            "form no list.",
            adapted_layers=depth.adapted_layers,
            kind=kind,
            n=n,
        )
    inside = tuple(f"{lists[0]}.{i}." for i in range(n - depth.adapted_layers, n)) if lists else ("",)
    weights = {
        name: m.weight
        for name, m in encoder.named_modules()
        if name.startswith(inside) and (isinstance(m, nn.Linear) or type(m).__name__ == "Conv1D")
    }
    found = [name for name, seen in zip(weights, _reached(encoder, list(weights.values())), strict=True) if seen]
    if depth.targets != "all_linear":
        known = TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING.get(encoder.config.model_type, [])
        found = [name for name in found if name.endswith(tuple(f".{end}" for end in known))]
    if not found:
        raise InputError(
            "targets must be 'all_linear' on {kind}, got {targets!r}: PEFT knows no such layers in it; in a "
            "study set lora_targets.",
            targets=depth.targets,
            kind=kind,
        )
    return found


def _all_but_embeddings(encoder: Any) -> Any:
    """Train every parameter that the last states depend on, except embeddings.

    Position embeddings are looked up once for a whole batch, so no record would have its own
    gradient there.
    """
    encoder.requires_grad_(True)
    for module in encoder.modules():
        if isinstance(module, nn.Embedding):
            module.requires_grad_(False)
    trained = [p for p in encoder.parameters() if p.requires_grad]
    for p, seen in zip(trained, _reached(encoder, trained), strict=True):
        p.requires_grad_(seen)
    return encoder


def _reached(encoder: Any, parameters: list[Tensor]) -> list[bool]:
    """Return True for each parameter that the last states depend on (no pooler's, say)."""
    before = [p.requires_grad for p in parameters]
    for p in parameters:
        p.requires_grad_(True)
    ids = sample_token_ids(encoder, 4)
    top = encoder(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
    found = torch.autograd.grad(top.sum(), parameters, allow_unused=True)
    for p, was in zip(parameters, before, strict=True):
        p.requires_grad_(was)
    return [gradient is not None for gradient in found]


class Bottleneck(nn.Module):
    """x + up(gelu(down(x))) behind a frozen block, which PEFT lacks. Starts as the identity.

    Source: Pfeiffer et al. 2021.
    """

    def __init__(self, hidden: int, width: int) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(hidden, width), nn.Linear(width, hidden)

    def forward(self, x: Tensor) -> Tensor:
        """Return x + up(gelu(down(x)))."""
        out: Tensor = x + self.up(functional.gelu(self.down(x)))
        return out


def _with_bottlenecks(encoder: Any, layers: int, width: int) -> Any:
    """Return the frozen model with a bottleneck behind each of its top blocks."""
    if family_of(encoder) is None:
        raise InputError(
            "adaptation must be 'lora' or 'prefix' on {type}, got 'bottleneck', which needs a known family.",
            type=type(encoder).__name__,
        )
    encoder.requires_grad_(False)
    for block in list(blocks_of(encoder))[-layers:]:
        block.bottleneck = Bottleneck(int(encoder.config.hidden_size), width)
        block.register_forward_hook(_behind)
    return encoder


def _behind(block: Any, _: Any, out: Any) -> Any:
    """Pass a block's output, or the first of several, through its bottleneck."""
    return (block.bottleneck(out[0]), *out[1:]) if isinstance(out, tuple) else block.bottleneck(out)


def initialise(model: Any, settings: TrainingSettings, frozen: Frozen, rng: np.random.Generator) -> None:
    """Initialise as a bank: A uniform from the shadow's stream in bank order, B and head zero."""
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
