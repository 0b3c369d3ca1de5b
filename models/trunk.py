"""The frozen trunk: a base model run once per text, and its last layer opened up for the fast lane."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from moo.errors import InputError
from moo.models.base_models import BaseModel

BATCH_TOKENS = 2048  # tokens in a batch of the trunk; with lengths in steps of 8, batches have few, fixed shapes
LENGTH_STEP = 8


@dataclass(frozen=True)
class Activations:
    """Cached activations of records laid out as (K, P).

    Attributes:
        features: Shape (K, P, F), fp32. Frozen mean-pooled top layer, shifted and scaled by public constants.
        tokens: Shape (K, P, L, d), fp32. Inputs of the last layer; None at depth 0.
        mask: Shape (K, P, L). True at real tokens; None at depth 0.
    """

    features: Tensor
    tokens: Any = None
    mask: Any = None


class FrozenLayer(nn.Module):
    """The last layer of a BERT-shaped encoder, for the pooled token only. Holds no trainable parameter."""

    def __init__(self, block: Any, *, heads: int, shift: Tensor, scale: Tensor) -> None:
        super().__init__()
        own = block.attention.self
        self.block = block.float().requires_grad_(False).eval()
        self.hidden = own.query.in_features
        self.heads = heads
        self.register_buffer("key_weight", own.key.weight.detach().view(heads, -1, self.hidden).clone())
        self.register_buffer("value_weight", own.value.weight.detach().view(heads, -1, self.hidden).clone())
        self.register_buffer("shift", shift)
        self.register_buffer("feature_scale", scale)

    def train(self, mode: bool = True) -> "FrozenLayer":  # noqa: ARG002 - a frozen layer's dropout stays off
        return super().train(False)

    def query(self, first: Tensor) -> Tensor:
        out: Tensor = self.block.attention.self.query(first)
        return out

    def attend(self, q: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        """Attention-weighted mean of the layer's inputs, per head: shape (K, P, H, d)."""
        per_head = q.unflatten(-1, (self.heads, -1))
        key_weight: Tensor = self.key_weight  # type: ignore[assignment]
        looked_for = torch.einsum("kphd,hde->kphe", per_head, key_weight) / math.sqrt(self.hidden / self.heads)
        scores = (looked_for @ tokens.mT).masked_fill(~mask[..., None, :], -math.inf)
        return scores.softmax(-1) @ tokens

    def values(self, context: Tensor) -> Tensor:
        """Frozen value projection of the contexts: shape (K, P, H, d / H)."""
        value_weight: Tensor = self.value_weight  # type: ignore[assignment]
        bias = self.block.attention.self.value.bias.view(self.heads, -1)
        return torch.einsum("kphe,hde->kphd", context, value_weight) + bias

    def finish(self, first: Tensor, attended: Tensor) -> Tensor:
        """Output projection, norms and feed-forward of the pooled token: shape (K, P, d)."""
        after = self.block.attention.output(attended, first)
        out: Tensor = self.block.output(self.block.intermediate(after), after)
        return out

    def standardise(self, pooled: Tensor) -> Tensor:
        return (pooled - self.shift) * self.feature_scale  # type: ignore[operator]


def frozen_layer(base: BaseModel) -> FrozenLayer:
    """Open the last layer of a BERT-shaped model.

    Raises:
        InputError: If the model's blocks are not BERT-shaped.
    """
    block = last_block(base.model)
    if block is None or not hasattr(getattr(block, "attention", None), "self"):
        raise InputError(
            f"adapted_layers=1 needs a BERT-shaped encoder, but got {type(base.model).__name__}; use adapted_layers=0."
        )
    constants = base.constants
    return FrozenLayer(
        block,
        heads=base.model.config.num_attention_heads,
        shift=torch.from_numpy(constants.first_shift),
        scale=torch.from_numpy(constants.first_scale),
    )


def last_block(model: Any) -> Any:
    """The top block of an encoder, or None where there is no block list that moo knows."""
    layers = getattr(getattr(model, "encoder", None), "layer", None)
    return None if layers is None else layers[-1]


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """The trunk's output for some texts.

    Attributes:
        tokens: One array (length, d) a text: the inputs of the last layer.
        mean: Shape (n, d), fp32. Mean of the top layer over tokens.
        first: Shape (n, d), fp32. First token of the top layer.
        truncated: Texts longer than max_length.
    """

    tokens: list[NDArray[np.float32]]
    mean: NDArray[np.float32]
    first: NDArray[np.float32]
    truncated: int


def encode(base: BaseModel, texts: Sequence[str], *, max_length: int, progress: Any = None) -> Encoded:
    """Run the frozen model once per text, sorted by length, in batches of fixed shapes.

    Args:
        base: The loaded base model.
        texts: n texts.
        max_length: Tokens kept of each text.
        progress: Called with the number of texts done after every batch.
    """
    ids: list[list[int]] = base.tokenizer(list(texts), truncation=False, verbose=False)["input_ids"]
    lengths = np.array([min(len(i), max_length) for i in ids])
    tokens: list[NDArray[np.float32]] = [np.empty((0, 0), np.float32)] * len(ids)
    width = base.model.config.hidden_size
    mean, first = np.empty((len(ids), width), np.float32), np.empty((len(ids), width), np.float32)
    order = np.argsort(lengths, kind="stable")
    padded = -(-lengths // LENGTH_STEP) * LENGTH_STEP
    done = 0
    for length in np.unique(padded):
        bucket = order[padded[order] == length]
        size = max(1, BATCH_TOKENS // int(length))
        for start in range(0, len(bucket), size):
            rows = bucket[start : start + size]
            top, below = _run(base, [ids[i] for i in rows], lengths[rows], int(length), size)
            for j, i in enumerate(rows):
                n = lengths[i]
                tokens[i] = below[j, :n]
                mean[i], first[i] = top[j, :n].mean(0), top[j, 0]
            done += len(rows)
            if progress is not None:
                progress(done)
    return Encoded(tokens=tokens, mean=mean, first=first, truncated=sum(len(i) > max_length for i in ids))


def _run(
    base: BaseModel, ids: list[list[int]], lengths: NDArray[Any], length: int, size: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Top layer and inputs of the last block, (rows, length, d), of one batch filled up to `size` rows."""
    pad = base.tokenizer.pad_token_id
    closing = base.tokenizer.sep_token_id
    batch = torch.full((size, length), pad, dtype=torch.long)
    mask = torch.zeros((size, length), dtype=torch.long)
    mask[:, 0] = 1
    for j, (row, n) in enumerate(zip(ids, lengths, strict=True)):
        kept = row[:n] if len(row) <= n or closing is None else [*row[: n - 1], closing]
        batch[j, :n] = torch.tensor(kept)
        mask[j, :n] = 1
    block, caught = last_block(base.model), []
    hook = None
    if block is not None:
        hook = block.register_forward_pre_hook(lambda _, args: caught.append(args[0]))
    device = base.device
    try:
        with torch.no_grad(), torch.autocast(device.type, dtype=base.compute_dtype, enabled=base.low_precision):
            top = base.model(input_ids=batch.to(device), attention_mask=mask.to(device)).last_hidden_state
    finally:
        if hook is not None:
            hook.remove()
    below = caught[0] if caught else top
    n = len(ids)
    return top[:n].float().cpu().numpy(), below[:n].float().cpu().numpy()


def standardise(values: NDArray[np.float32], shift: NDArray[np.float32], scale: NDArray[np.float32]) -> Tensor:
    """Shift and scale by public constants: fp32, same shape."""
    return torch.from_numpy((values - shift) * scale)


