"""Attention in few, large operations, for the short texts of a CPU's batches.

torch's fused kernel is made for long texts: at 40 tokens its forward pass takes two to three times
as long, its backward pass more than ten times (measured). The function is registered with
transformers, so masks, rotary embeddings and projections remain the model's code.
"""

from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface, eager_mask

NAME = "moo_batched"


def batched(
    # transformers hands it over
    module: Any,  # noqa: ARG001
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Compute softmax(scaling Q K^T + mask) V, without dropout.

    Args:
        module: Calling layer; transformers passes it, unused.
        query: Shape (n, heads, L, d).
        key, value: Shape (n, heads or a divisor of them, S, d); each is shared by the heads of a
            group.
        attention_mask: Added to the scores, shape (n, 1, 1 or L, S), or None.
        scaling: Factor of the scores, d^-1/2 by default.

    Returns:
        Shape (n, L, heads, d), in the values' precision, and no weights.
    """
    n, heads, length, width = query.shape
    groups = heads // key.shape[1]
    query, key = query.to(value.dtype), key.to(value.dtype)
    if groups > 1:
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    added = query.new_zeros(()) if attention_mask is None else attention_mask.to(query.dtype).expand(n, heads, -1, -1)
    if attention_mask is not None:
        added = added.flatten(0, 1)
    scores = torch.baddbmm(
        added, query.flatten(0, 1), key.flatten(0, 1).mT, alpha=width**-0.5 if scaling is None else scaling
    )
    out = scores.softmax(-1) @ value.flatten(0, 1)
    return out.view(n, heads, length, -1).transpose(1, 2), None


AttentionInterface.register(NAME, batched)
AttentionMaskInterface.register(NAME, eager_mask)
