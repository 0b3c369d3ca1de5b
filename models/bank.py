"""The bank: K shadow models, each a LoRA and a head of its own, as one batch on a shared frozen trunk.

Depth 1 is the *fast lane*: LoRA on query and value of the last layer, computed for the pooled (first) token only. With
x_t the cached inputs of that layer, no key or value is ever formed:

    q      = W_q x_0 + s B_q A_q x_0
    scores = x_t . (W_k^T q)                      (the key's bias shifts all scores alike and drops out of the softmax)
    c      = sum_t softmax(scores)_t x_t          per head
    v      = W_v c + s B_v A_v c                  attention is linear in the values, so LoRA acts on c

then the layer's own output projection, feed-forward and norms. The head sees the frozen mean-pooled feature and, at
depth 1, the adapted pooled token, both shifted and scaled by public constants. Depth 0 is the head alone.

One backward pass to q, v and the logits is enough: every per-unit gradient is made of these and of the activations.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from moo.models.activations import Activations
from moo.models.clipping import Factors
from moo.models.fast_lane import FrozenLayer

LORA_NAMES = ("query_a", "query_b", "value_a", "value_b")


@dataclass(frozen=True, kw_only=True)
class BankConfig:
    """Shape of the bank.

    Attributes:
        n_shadows: K.
        n_classes: C, >= 2.
        adapted_layers: 0 (head alone) or 1 (fast lane).
        lora_rank: Rank r, >= 1.
        lora_alpha: Scale of LoRA: s = lora_alpha / lora_rank.
    """

    n_shadows: int
    n_classes: int
    adapted_layers: int
    lora_rank: int
    lora_alpha: float


class Bank(nn.Module):
    """Trainable parameters of K shadows (leading axis K), and the forward pass they share.

    Args:
        config: Shape of the bank.
        layer: The frozen layer that carries LoRA; None at depth 0.
        n_features: Width of the head's input.
        generators: One for each shadow; draws its initial LoRA A. B and the head start at zero, so that every shadow
            starts as the unmodified base model.
    """

    def __init__(
        self, config: BankConfig, layer: FrozenLayer | None, n_features: int, generators: list[torch.Generator]
    ) -> None:
        super().__init__()
        self.config = config
        self.layer = layer
        k, r = config.n_shadows, config.lora_rank
        self.head_weight = nn.Parameter(torch.zeros(k, config.n_classes, n_features))
        self.head_bias = nn.Parameter(torch.zeros(k, config.n_classes, 1))
        if layer is not None:
            d, heads = layer.hidden, layer.heads
            self.query_a = nn.Parameter(_uniform(r, d, generators))
            self.value_a = nn.Parameter(_uniform(r, d, generators))
            self.query_b = nn.Parameter(torch.zeros(k, d, r))
            self.value_b = nn.Parameter(torch.zeros(k, heads, d // heads, r))

    def trainable(self) -> dict[str, nn.Parameter]:
        """The shadows' own parameters by name; the frozen layer's are left out."""
        return {name: p for name, p in self.named_parameters() if p.requires_grad}

    @property
    def scale(self) -> float:
        return self.config.lora_alpha / self.config.lora_rank

    def forward(self, x: Activations) -> Tensor:
        """Logits, shape (K, P, C), of records laid out as (K, P)."""
        return self.head(x.features) if self.layer is None else self._fast_lane(x).logits

    def head(self, features: Tensor) -> Tensor:
        return features @ self.head_weight.mT + self.head_bias.mT

    def _fast_lane(self, x: Activations, *, capture: bool = False) -> "_Pass":
        layer = self.layer
        assert layer is not None
        first = x.tokens[..., 0, :]
        query_u = first @ self.query_a.mT
        q = layer.query(first) + self.scale * (query_u @ self.query_b.mT)
        q = q.detach().requires_grad_() if capture else q
        context = layer.attend(q, x.tokens, x.mask)  # (K, P, H, d)
        value_u = context @ self.value_a[:, None].mT  # (K, P, H, r)
        v = layer.values(context) + self.scale * torch.einsum("kphr,khdr->kphd", value_u, self.value_b)
        pooled = layer.finish(first, v.flatten(-2))
        features = torch.cat([x.features.expand(len(pooled), -1, -1), layer.standardise(pooled)], dim=-1)
        return _Pass(first, query_u, q, context, value_u, v, features, self.head(features))

    def record_factors(self, x: Activations, labels: Tensor) -> tuple[dict[str, tuple[Tensor, Tensor]], Tensor]:
        """Gradient factors of each record, and its loss, from one backward pass.

        Args:
            x: Records laid out as (K, P).
            labels: Shape (K, P).

        Returns:
            Parameter name -> (left, right), each (K, P, m, .) with m = 1, or the number of heads for the values' LoRA
            (`value_b`: (K, P, H, 1, .)); and losses of shape (K, P) in nats.
        """
        if self.layer is None:
            with torch.no_grad():
                logits = self.head(x.features)
                loss = _losses(logits, labels)
                g = logits.softmax(-1) - functional.one_hot(labels, logits.shape[-1])
            return self._head_factors(g, x.features), loss
        with torch.enable_grad():
            p = self._fast_lane(x, capture=True)
            loss = _losses(p.logits, labels)
            g_q, g_v, g = torch.autograd.grad(loss.sum(), [p.q, p.v, p.logits])
        with torch.no_grad():
            factors = self._head_factors(g, p.features)
            factors["query_a"] = (self.scale * (g_q @ self.query_b)[..., None, :], p.first[..., None, :])
            factors["query_b"] = (self.scale * g_q[..., None, :], p.query_u[..., None, :])
            back = self.scale * torch.einsum("kphd,khdr->kphr", g_v, self.value_b)
            factors["value_a"] = (back, p.context)
            factors["value_b"] = (self.scale * g_v[..., None, :], p.value_u[..., None, :])
        return {name: (a.detach(), b.detach()) for name, (a, b) in factors.items()}, loss.detach()

    @staticmethod
    def _head_factors(g: Tensor, features: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        ones = torch.ones_like(g[..., :1])
        return {
            "head_weight": (g[..., None, :], features[..., None, :]),
            "head_bias": (g[..., None, :], ones[..., None, :]),
        }


@dataclass(frozen=True)
class _Pass:
    """What one pass of the fast lane leaves for the gradients."""

    first: Tensor
    query_u: Tensor
    q: Tensor
    context: Tensor
    value_u: Tensor
    v: Tensor
    features: Tensor
    logits: Tensor


def _losses(logits: Tensor, labels: Tensor) -> Tensor:
    return functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none").view(labels.shape)


def by_unit(factor: Tensor, slots: Tensor, per_head: bool) -> Tensor:
    """Records (K, P, m, .) into units (K, U, M * m, .); per head (K, P, H, 1, .) into (K, H, U, M, .).

    Args:
        factor: One side of a record's factors.
        slots: Shape (K, U, M). Position in P of each unit's records; P (one past the last) marks an empty slot.
        per_head: True for parameters with an axis of heads.
    """
    k, n_units, m_max = slots.shape
    padded = functional.pad(factor.flatten(2), (0, 0, 0, 1))
    index = slots.reshape(k, n_units * m_max, 1)
    taken = padded.gather(1, index.expand(-1, -1, padded.shape[-1]))
    taken = taken.reshape(k, n_units, m_max, *factor.shape[2:])
    if per_head:
        return taken.squeeze(-2).permute(0, 3, 1, 2, 4)
    return taken.flatten(2, 3)


def unit_factors(records: dict[str, tuple[Tensor, Tensor]], slots: Tensor, weights: Tensor) -> dict[str, Factors]:
    """Average the records of each unit: factors by unit, ready for clipping.

    Args:
        records: As `Bank.record_factors` returns them.
        slots: Shape (K, U, M), see `by_unit`.
        weights: Shape (K, P). 1 / (records of the unit that are trained on); 0 in padded places.
    """
    out = {}
    for name, (left, right) in records.items():
        per_head = left.dim() == 5
        scaled = left * weights.reshape(*weights.shape, *[1] * (left.dim() - 2))
        out[name] = Factors(by_unit(scaled, slots, per_head), by_unit(right, slots, per_head))
    return out


def _uniform(rank: int, width: int, generators: list[torch.Generator]) -> Tensor:
    """Initial LoRA A of every shadow, shape (K, rank, width), uniform in +-1/sqrt(width)."""
    return torch.stack([(torch.rand(rank, width, generator=g) * 2 - 1) * width**-0.5 for g in generators])
