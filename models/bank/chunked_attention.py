"""What the fast lane asks of all tokens, a stretch of records at a time, so that tokens are looked at within the CPU's cache."""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from moo.models.bank.lora import split_axis
from moo.models.trunk.packed import RecordBatch, TokenChunk


class ChunkedAttention(torch.autograd.Function):
    """softmax(probe . tokens) tokens, a stretch of records at a time.

    The tokens are laid out once more for the backward pass: a copy within the cache costs less than a large one read from memory.
    """

    @staticmethod
    def forward(ctx: Any, probe: Tensor, laid_out: Tensor | None, x: RecordBatch) -> Tensor:
        """Looked for (K, H, P, Q, d), in the working precision, to contexts (K, P, QH, d).

        Args:
            ctx: Keeps the weights.
            probe: What each head of each query looks for.
            laid_out: All tokens in the working precision, where their gradient may be wanted; else None.
            x: The records.
        """
        k, h, p, q, d = probe.shape
        out, weights = probe.new_empty(k, p, q * h, d), []
        for part, tokens, mask in _laid_out(x, laid_out, probe.dtype):
            by_record = _by_record(probe[:, :, part], len(tokens))
            scores = (by_record @ tokens.mT).masked_fill_(~mask[..., None, :], -math.inf)
            weights.append(scores.softmax(-1))
            out[:, part] = _by_shadow(weights[-1] @ tokens, k)
        ctx.x, ctx.shape = x, probe.shape
        kept_probe = probe if ctx.needs_input_grad[1] else None  # as large as all contexts: kept where it is needed
        ctx.save_for_backward(kept_probe, laid_out, *weights)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        probe, laid_out, *weights = ctx.saved_tensors
        k, h, p, q, d = ctx.shape
        for_probe, for_tokens = grad.new_empty(h, k, p, q, d).transpose(0, 1), None  # by head first, as it was made
        for (part, tokens, _), a in zip(_laid_out(ctx.x, laid_out, grad.dtype), weights, strict=True):
            g = _merge_shadows(grad[:, part], len(tokens))
            slopes = torch._softmax_backward_data(g @ tokens.mT, a, -1, a.dtype)
            back = _by_shadow(slopes @ tokens, k)
            for_probe[:, :, part] = back.view(k, -1, q, h, d).permute(0, 3, 1, 2, 4)
            if ctx.needs_input_grad[1]:  # all at once
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
    """(K, H, p, Q, d) to (n, p, ., d), record after record."""
    k, h, p, q, d = probe.shape
    return _merge_shadows(probe.permute(0, 2, 3, 1, 4).reshape(k, p, q * h, d), n)


def _merge_shadows(by_shadow: Tensor, n: int) -> Tensor:
    """Where all shadows look at the same tokens (n = 1 < K), their heads become heads of one batch: (K, p, m, d) to (1, p, Km, d)."""
    return by_shadow.contiguous() if len(by_shadow) == n else by_shadow.transpose(0, 1).flatten(1, 2)[None]


def _by_shadow(x: Tensor, k: int) -> Tensor:
    """Back from `_shared`."""
    return x if len(x) == k else split_axis(x[0], 1, (k, -1)).transpose(0, 1)


def mean_of_tokens(x: RecordBatch) -> Tensor:
    """Mean over a text's tokens: shape (K, P, d)."""
    out = []
    for _, tokens, mask in x.token_chunks():
        share = (mask / mask.sum(-1, keepdim=True)).to(tokens.dtype)
        out.append((share[..., None, :] @ tokens).float().squeeze(-2))
    return torch.cat(out, dim=1)
