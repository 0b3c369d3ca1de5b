"""Bank of K shadow models with LoRA and head each, as one batch on a shared frozen trunk.

A lane computes the adapted features of the records: the fast lane runs one block for the pooled
token or a few learned queries alone, the deep lane runs the top blocks for all tokens. The head
sees the frozen mean feature and the adapted features, shifted and scaled by public constants.
Without a lane, the head alone is trained.

One backward pass to the lane's taps and to the logits is enough: every per-unit gradient is a
product of these gradients and of the activations.
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from moo.core.errors import InputError
from moo.core.validate import one_of
from moo.models.bank.deep_lane import DeepLane
from moo.models.bank.fast_lane import FastLane
from moo.models.bank.lora import LoraShape, Pair, rank_view, split_axis
from moo.models.dp.clipping import Factors
from moo.models.dp.losses import logit_gradients, losses
from moo.models.pretrained.architectures import TARGETS, Cut, Targets, cut_of, is_causal, supports_fast_lane
from moo.models.pretrained.loading import BaseModel
from moo.models.trunk.constants import Constants
from moo.models.trunk.packed import Activations, Packed, RecordBatch, Workspace

Head = Literal["with_mean", "stock"]
HEADS: tuple[Head, ...] = ("with_mean", "stock")


@dataclass(frozen=True, kw_only=True)
class Depth:
    """Part of the model that is adapted.

    Attributes:
        adapted_layers: Blocks that carry LoRA, counted from the top; 0 trains the head alone.
        layers_dropped: Blocks above them that are left out.
        n_queries: Learned query tokens that read one adapted block in place of the pooled token; 0
            for none.
        targets: Linear layers that carry LoRA.
        head: Input of the classifier. "with_mean": the frozen mean feature and the adapted one.
            "stock": the adapted pooled token alone, as in the classifiers of Hugging Face; it
            exports in PEFT's format, at some cost in accuracy.

    Raises:
        InputError: If a value is out of range, or two of them cannot be combined.
    """

    adapted_layers: int = 0
    layers_dropped: int = 0
    n_queries: int = 0
    targets: Targets = "query_value"
    head: Head = "with_mean"

    def __post_init__(self) -> None:
        one_of(TARGETS, targets=self.targets)
        one_of(HEADS, head=self.head)
        if self.head == "stock" and (self.layers_dropped or self.n_queries):
            raise InputError(
                "layers_dropped and n_queries must be 0 with head='stock', got {layers_dropped} and {n_queries}; "
                "use head='with_mean'.",
                layers_dropped=self.layers_dropped,
                n_queries=self.n_queries,
            )
        for name in ("adapted_layers", "layers_dropped", "n_queries"):
            if getattr(self, name) < 0:
                raise InputError("depth.{name} must be >= 0, got {value!r}.", name=name, value=getattr(self, name))
        if self.n_queries and self.adapted_layers != 1:
            raise InputError(
                "adapted_layers must be 1 with learned queries, got {adapted_layers}; or use n_queries=0.",
                adapted_layers=self.adapted_layers,
            )


@dataclass(frozen=True, kw_only=True)
class Frozen:
    """Frozen parts of the base model that a bank needs at one depth.

    Attributes:
        base: Base model.
        cut: Its live blocks.
        constants: Public shift and scale at that cut.
    """

    base: BaseModel
    cut: Cut
    constants: Constants

    @property
    def causal(self) -> bool:
        """Return True for a decoder, which is pooled at its last token."""
        return is_causal(self.base.model)


@dataclass(frozen=True, kw_only=True)
class BankConfig:
    """Shape of the bank.

    Attributes:
        ranks: LoRA rank of each of the K shadows, >= 1.
        n_classes: Number of classes C, >= 2.
        depth: Part of the model that is adapted.
        lora_alpha: Scale: a shadow's LoRA is multiplied by lora_alpha / rank.
        biased: True if the head has a bias; the stock head of decoders has none.
    """

    ranks: tuple[int, ...]
    n_classes: int
    depth: Depth
    lora_alpha: float
    biased: bool = True


class Bank(nn.Module):
    """Trainable parameters of K shadows (leading axis K), and the forward pass they share.

    Args:
        config: Shape of the bank.
        frozen: Base model at that depth; None for the head alone.
        n_mean: Width of the frozen features that the head sees.
        generators: One per shadow; draws its initial LoRA. The head starts at zero.
    """

    def __init__(
        self, config: BankConfig, frozen: Frozen | None, n_mean: int, generators: list[torch.Generator]
    ) -> None:
        super().__init__()
        self.config = config
        shape = LoraShape(ranks=config.ranks, alpha=config.lora_alpha, generators=generators)
        self.lane = _lane(config.depth, frozen, shape)
        k, width = len(config.ranks), n_mean + (0 if self.lane is None else self.lane.n_features)
        self.head_weight = nn.Parameter(torch.zeros(k, config.n_classes, width))
        self.head_bias = nn.Parameter(torch.zeros(k, config.n_classes, 1), requires_grad=config.biased)

    @property
    def n_shadows(self) -> int:
        """Return the number K of shadows."""
        return len(self.config.ranks)

    def chunk_records(self, chunk: int) -> int:
        """Return the records of each shadow computed at a time for a given chunk, >= 1."""
        return max(1, chunk // (1 if self.lane is None else self.lane.chunk_divisor))

    def trainable(self) -> dict[str, nn.Parameter]:
        """Return the shadows' parameters by name, leading axis K, without the frozen ones."""
        return {name: p for name, p in self.named_parameters() if p.requires_grad}

    def frozen_state(self) -> dict[str, Tensor]:
        """Return every tensor that training must not change."""
        trained = self.trainable()
        return {name: t for name, t in self.state_dict().items() if name not in trained}

    def shadow_parameters(self, shadow: int) -> dict[str, Tensor]:
        """Return one shadow's parameters as views of the bank's, cut to its rank."""
        return {n: view[0] for n, view in self.parameter_views(slice(shadow, shadow + 1)).items()}

    def parameter_views(self, shadows: slice) -> dict[str, Tensor]:
        """Return parameters of neighbouring shadows of one rank as views, cut to the rank."""
        rank = self.config.ranks[shadows.start]
        return {n: rank_view(n, p.detach(), shadows, rank) for n, p in self.trainable().items()}

    def materialise(self, packed: Packed, index: Tensor, workspace: Workspace) -> RecordBatch:
        """Lay out the records at `index` in the form that this bank reads.

        Args:
            packed: Activations of all texts.
            index: Shape (K, P), or (1, P) if all shadows read the same records.
            workspace: Memory for the tokens; the result is valid until it is used again.
        """
        if isinstance(self.lane, FastLane):
            return packed.sampled_rows(index, workspace=workspace)
        return packed.gather(index, tokens=self.lane is not None, workspace=workspace)

    def forward(self, x: RecordBatch) -> Tensor:
        """Return logits of shape (K, P, C).

        Args:
            x: Records laid out as (K, P), or as (1, P) if all shadows read the same ones.
        """
        return self.head(self.features(x))

    def features(self, x: RecordBatch, *, capture: bool = False) -> Tensor:
        """Return the features that the head sees, shape (K, P, width)."""
        if self.lane is None:
            return x.features
        if isinstance(self.lane, DeepLane):
            assert isinstance(x, Activations)
            adapted = self.lane.run(x, capture=capture)
        else:
            adapted = self.lane.run(x, capture=capture)
        return torch.cat([x.features.expand(len(adapted), -1, -1), adapted], dim=-1)

    def head(self, features: Tensor) -> Tensor:
        """Return logits of features, shape (K, P, C)."""
        return features @ self.head_weight.mT + self.head_bias.mT

    def record_factors(self, x: RecordBatch, labels: Tensor) -> tuple[dict[str, Pair], Tensor]:
        """Return gradient factors and loss of each record, from one backward pass.

        Args:
            x: Records laid out as (K, P).
            labels: Shape (K, P); see `moo.models.dp.losses`.

        Returns:
            Parameter name -> (left, right), each (K, P, m, .), or (K, P, lead, m, .) for a
            parameter split by head or query; and losses of shape (K, P) in nats.
        """
        if self.lane is None:
            with torch.no_grad():
                logits = self.head(x.features)
                g = logit_gradients(logits, labels)
            return self._head_factors(g, x.features), losses(logits, labels)
        with torch.enable_grad():
            features = self.features(x, capture=True)
            logits = self.head(features)
            loss = losses(logits, labels)
            g, *rest = torch.autograd.grad(loss.sum(), [logits, *self.lane.taps()])
        with torch.no_grad():
            adapted = {f"lane.{n}": pair for n, pair in self.lane.factors(rest).items()}
            return self._head_factors(g, features.detach()) | adapted, loss.detach()

    def _head_factors(self, g: Tensor, features: Tensor) -> dict[str, Pair]:
        out = {"head_weight": (g[..., None, :], features[..., None, :])}
        return out | {"head_bias": (g[..., None, :], torch.ones_like(g[..., None, :1]))} if self.config.biased else out


def check_depth(model: Any, depth: Depth) -> Cut:
    """Return the live blocks of a depth on the bank.

    Raises:
        InputError: If the model has too few blocks, or no block that learned queries could read.
    """
    if depth.n_queries and not supports_fast_lane(model):
        raise InputError(
            "n_queries must be 0 on {type}: learned queries need an encoder of bert, roberta, xlm-roberta or "
            "distilbert, got {n_queries}; use n_queries=0.",
            n_queries=depth.n_queries,
            type=type(model).__name__,
        )
    return cut_of(model, adapted_layers=depth.adapted_layers, layers_dropped=depth.layers_dropped)


def _lane(depth: Depth, frozen: Frozen | None, shape: LoraShape) -> FastLane | DeepLane | None:
    if not depth.adapted_layers:
        return None
    if frozen is None:
        raise InputError(
            "frozen must be a base model at adapted_layers={adapted_layers}, got None; load one.",
            adapted_layers=depth.adapted_layers,
        )
    base, constants, cut = frozen.base, frozen.constants, frozen.cut
    wanted = check_depth(base.model, depth)
    if cut != wanted:
        raise InputError("cut must be that of the depth, {wanted}, got {cut}; use check_depth.", wanted=wanted, cut=cut)
    if depth.adapted_layers == 1 and supports_fast_lane(base.model):
        return FastLane(base, constants, cut, targets=depth.targets, shape=shape, n_queries=depth.n_queries)
    return DeepLane(base, constants, cut, targets=depth.targets, shape=shape)


def unit_factors(records: dict[str, Pair], weights: Tensor) -> dict[str, Factors]:
    """Average the records of each unit: factors by unit, ready for clipping.

    Args:
        records: Result of `Bank.record_factors` for records laid out unit after unit: P = U * M.
        weights: Shape (K, U, M). 1 / (records of the unit that are trained on); 0 in padded places,
            which must hold a record of the same unit: one factor alone is weighted, and 0 x NaN is
            NaN. Absent units may hold anything.
    """
    k, u, m = weights.shape
    out = {}
    for name, (left, right) in records.items():
        by_record = weights.reshape(k, u * m, *[1] * (left.dim() - 2))
        if left.shape[-1] <= right.shape[-1]:
            left = (left * by_record).to(left.dtype)
        else:
            right = (right * by_record).to(right.dtype)
        out[name] = Factors(_by_unit(left, u), _by_unit(right, u))
    return out


def _by_unit(side: Tensor, n_units: int) -> Tensor:
    """Reshape (K, U * M, m, .) to (K, U, M * m, .).

    With a lead axis, (K, U * M, lead, m, .) becomes (K, lead, U, M * m, .).
    """
    apart = split_axis(side, 1, (n_units, -1))
    if side.dim() == 4:
        return apart.flatten(2, 3)
    return apart.permute(0, 3, 1, 2, 4, 5).flatten(3, 4)
