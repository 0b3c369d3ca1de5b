"""Attention of the fast lane over all tokens, in chunks that stay in the CPU's cache."""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from moo.models.bank.lora import split_axis
from moo.models.trunk.packed import RecordBatch, TokenChunk


class ChunkedAttention(torch.autograd.Function):
    """softmax(probe . tokens) tokens, one chunk of records at a time.

    The backward pass lays the tokens out again: a copy within the cache costs less than reading a
    large one from memory.
    """

    @staticmethod
    def forward(ctx: Any, probe: Tensor, laid_out: Tensor | None, x: RecordBatch) -> Tensor:
        """Return contexts (K, P, QH, d) of probes (K, H, P, Q, d), in the working precision.

        Args:
            ctx: Autograd context; keeps the attention weights.
            probe: Effective query of each head in the space of the block's inputs.
            laid_out: All tokens in the working precision if their gradient may be needed; else
                None.
            x: Records.
        """
        k, h, p, q, d = probe.shape
        out, weights = probe.new_empty(k, p, q * h, d), []
        for part, tokens, mask in _laid_out(x, laid_out, probe.dtype):
            by_record = _by_record(probe[:, :, part], len(tokens))
            scores = (by_record @ tokens.mT).masked_fill_(~mask[..., None, :], -math.inf)
            weights.append(scores.softmax(-1))
            out[:, part] = _by_shadow(weights[-1] @ tokens, k)
        ctx.x, ctx.shape = x, probe.shape
        # As large as all contexts, so kept only if needed.
        kept_probe = probe if ctx.needs_input_grad[1] else None
        ctx.save_for_backward(kept_probe, laid_out, *weights)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Return gradients of the probes, and of the laid-out tokens if needed."""
        probe, laid_out, *weights = ctx.saved_tensors
        k, h, p, q, d = ctx.shape
        # Head first in memory, as the probe was made.
        for_probe, for_tokens = grad.new_empty(h, k, p, q, d).transpose(0, 1), None
        for (part, tokens, _), a in zip(_laid_out(ctx.x, laid_out, grad.dtype), weights, strict=True):
            g = _merge_shadows(grad[:, part], len(tokens))
            slopes = torch._softmax_backward_data(g @ tokens.mT, a, -1, a.dtype)
            back = _by_shadow(slopes @ tokens, k)
            for_probe[:, :, part] = back.view(k, -1, q, h, d).permute(0, 3, 1, 2, 4)
            # All tokens came in one chunk.
            if ctx.needs_input_grad[1]:
                for_tokens = a.mT @ g + slopes.mT @ _by_record(probe, len(tokens))
        return for_probe, for_tokens, None


def _laid_out(x: RecordBatch, laid_out: Tensor | None, dtype: torch.dtype) -> Iterator[TokenChunk]:
    if laid_out is not None:
        ((part, _, mask),) = x.token_chunks()
        yield part, laid_out, mask
        return
    for part, tokens, mask in x.token_chunks():
        yield part, tokens.to(dtype), mask


def _by_record(probe: Tensor, n: int) -> Tensor:
    """Reshape probes (K, H, p, Q, d) to (n, p, ., d), record after record."""
    k, h, p, q, d = probe.shape
    return _merge_shadows(probe.permute(0, 2, 3, 1, 4).reshape(k, p, q * h, d), n)


def _merge_shadows(by_shadow: Tensor, n: int) -> Tensor:
    """Merge the heads of all shadows where they read the same tokens (n = 1 < K).

    (K, p, m, d) becomes (1, p, Km, d); where each shadow has its own tokens (n = K), nothing
    changes.
    """
    return by_shadow.contiguous() if len(by_shadow) == n else by_shadow.transpose(0, 1).flatten(1, 2)[None]


def _by_shadow(x: Tensor, k: int) -> Tensor:
    """Undo `_merge_shadows`."""
    return x if len(x) == k else split_axis(x[0], 1, (k, -1)).transpose(0, 1)


def mean_of_tokens(x: RecordBatch) -> Tensor:
    """Return the mean over each text's tokens, shape (K, P, d)."""
    out = []
    for _, tokens, mask in x.token_chunks():
        share = (mask / mask.sum(-1, keepdim=True)).to(tokens.dtype)
        out.append((share[..., None, :] @ tokens).float().squeeze(-2))
    return torch.cat(out, dim=1)
