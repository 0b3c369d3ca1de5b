"""The last layer of a BERT-shaped encoder, opened up so that only its pooled token is computed."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from moo.errors import InputError
from moo.models.base_models import BaseModel
from moo.models.scaling import Constants
from moo.models.trunk import last_block


class FrozenLayer(nn.Module):
    """The layer's own weights, in steps between which LoRA can be added. Holds no trainable parameter."""

    key_weight: Tensor
    value_weight: Tensor
    value_bias: Tensor
    shift: Tensor
    feature_scale: Tensor

    def __init__(self, block: Any, *, heads: int, constants: Constants) -> None:
        super().__init__()
        own = block.attention.self
        self.hidden: int = own.query.in_features
        self.heads = heads
        self.own_query = own.query
        self.after_attention = block.attention.output
        self.intermediate = block.intermediate
        self.output = block.output
        self.register_buffer("key_weight", own.key.weight.detach().view(heads, -1, self.hidden).clone())
        self.register_buffer("value_weight", own.value.weight.detach().view(heads, -1, self.hidden).clone())
        self.register_buffer("value_bias", own.value.bias.detach().view(heads, -1).clone())
        self.register_buffer("shift", torch.from_numpy(constants.first_shift))
        self.register_buffer("feature_scale", torch.from_numpy(constants.first_scale))
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> "FrozenLayer":  # noqa: ARG002 - the dropout of a frozen layer stays off
        return super().train(False)

    def query(self, first: Tensor) -> Tensor:
        """Frozen query of the pooled token: shape (K, P, d)."""
        out: Tensor = self.own_query(first)
        return out

    def attend(self, q: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        """Attention-weighted mean of the layer's inputs, per head: shape (K, P, H, d).

        No key is formed: scores = tokens (W_k^T q); the key's bias shifts all scores alike, so the softmax drops it.

        Args:
            q: Shape (K, P, d).
            tokens: Shape (K, P, L, d), or (1, P, L, d) where all shadows look at the same records.
            mask: Shape (K, P, L) or (1, P, L).
        """
        per_head = q.reshape(*q.shape[:-1], self.heads, -1)
        looked_for = torch.einsum("kphd,hde->kphe", per_head, self.key_weight) / math.sqrt(self.hidden / self.heads)
        shared = len(q) > 1 and len(tokens) == 1
        if shared:  # all shadows' heads become heads of one batch, so that the tokens are not copied K times
            looked_for = looked_for.transpose(0, 1).flatten(1, 2)[None]
        scores = (looked_for @ tokens.mT).masked_fill(~mask[..., None, :], -math.inf)
        context = scores.softmax(-1) @ tokens
        return context[0].reshape(context.shape[1], len(q), self.heads, -1).transpose(0, 1) if shared else context

    def values(self, context: Tensor) -> Tensor:
        """Frozen value projection of the contexts: shape (K, P, H, d / H)."""
        return torch.einsum("kphe,hde->kphd", context, self.value_weight) + self.value_bias

    def finish(self, first: Tensor, attended: Tensor) -> Tensor:
        """Output projection, norms and feed-forward of the pooled token: shape (K, P, d)."""
        after = self.after_attention(attended, first)
        out: Tensor = self.output(self.intermediate(after), after)
        return out

    def standardise(self, pooled: Tensor) -> Tensor:
        return (pooled - self.shift) * self.feature_scale


def frozen_layer(base: BaseModel, constants: Constants) -> FrozenLayer:
    """Open the last layer of a BERT-shaped model.

    Raises:
        InputError: If the model's blocks are not BERT-shaped.
    """
    block = last_block(base.model)
    if block is None or not hasattr(getattr(block, "attention", None), "self"):
        raise InputError(
            f"adapted_layers=1 needs a BERT-shaped encoder, but got {type(base.model).__name__}; use adapted_layers=0."
        )
    return FrozenLayer(block, heads=base.model.config.num_attention_heads, constants=constants)
