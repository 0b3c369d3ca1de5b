"""The frozen trunk: a base model run once per text, stopping at the inputs of its last layer and its frozen output."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from moo.models.base_models import BaseModel

BATCH_TOKENS = 1024  # tokens in a batch; with lengths in steps of 8, batches have few, fixed shapes
LENGTH_STEP = 8

Floats = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """The trunk's output for n texts.

    Attributes:
        tokens: One array (length, d) a text: the inputs of the last layer.
        mean: Shape (n, d). Mean of the top layer over tokens.
        first: Shape (n, d). First token of the top layer.
        truncated: Shape (n,). True for texts longer than max_length.
    """

    tokens: list[Floats]
    mean: Floats
    first: Floats
    truncated: NDArray[np.bool_]


@dataclass(frozen=True)
class _Batch:
    rows: NDArray[np.intp]  # texts, as positions in the caller's list
    length: int  # tokens, padding included
    size: int  # texts, filling included: results may depend on a batch's shape, never on its company


def last_block(model: Any) -> Any:
    """The top block of an encoder, or None where there is no block list that moo knows."""
    layers = getattr(getattr(model, "encoder", None), "layer", None)
    return None if layers is None else layers[-1]


def encode(
    base: BaseModel, texts: Sequence[str], *, max_length: int, progress: Callable[[int], None] | None = None
) -> Encoded:
    """Run the frozen model once per text, sorted by length, in batches of fixed shapes.

    Args:
        base: The loaded base model.
        texts: n texts.
        max_length: Tokens kept of each text, closing token included.
        progress: Called after every batch with the number of texts in it.
    """
    ids: list[list[int]] = base.tokenizer(list(texts), truncation=False, verbose=False)["input_ids"] if texts else []
    lengths = np.array([min(len(i), max_length) for i in ids], dtype=np.intp)
    tokens: list[Floats] = [np.empty((0, base.hidden), np.float32)] * len(ids)
    mean, first = np.empty((len(ids), base.hidden), np.float32), np.empty((len(ids), base.hidden), np.float32)
    for batch in _batches(lengths):
        top, below = _run(base, [ids[i] for i in batch.rows], lengths[batch.rows], batch)
        for j, i in enumerate(batch.rows):
            tokens[i] = below[j, : lengths[i]]
            mean[i], first[i] = top[j, : lengths[i]].mean(0), top[j, 0]
        if progress is not None:
            progress(len(batch.rows))
    truncated = np.array([len(i) > max_length for i in ids], dtype=bool)
    return Encoded(tokens=tokens, mean=mean, first=first, truncated=truncated)


def _batches(lengths: NDArray[np.intp]) -> Iterator[_Batch]:
    padded = -(-lengths // LENGTH_STEP) * LENGTH_STEP
    order = np.argsort(lengths, kind="stable")
    for length in np.unique(padded):
        bucket = order[padded[order] == length]
        size = max(1, BATCH_TOKENS // int(length))
        for start in range(0, len(bucket), size):
            yield _Batch(bucket[start : start + size], int(length), size)


def _run(base: BaseModel, ids: list[list[int]], lengths: NDArray[np.intp], batch: _Batch) -> tuple[Floats, Floats]:
    """Top layer and inputs of the last block, each (rows, length, d), of one batch filled up to its size."""
    closing = base.tokenizer.sep_token_id
    inputs = torch.full((batch.size, batch.length), base.tokenizer.pad_token_id, dtype=torch.long)
    mask = torch.zeros((batch.size, batch.length), dtype=torch.long)
    mask[:, 0] = 1
    for j, (row, n) in enumerate(zip(ids, lengths, strict=True)):
        kept = row[:n] if len(row) <= n or closing is None else [*row[: n - 1], closing]
        inputs[j, :n] = torch.tensor(kept)
        mask[j, :n] = 1
    caught: list[torch.Tensor] = []
    block = last_block(base.model)
    hook = None if block is None else block.register_forward_pre_hook(lambda _, args: caught.append(args[0]))
    device = base.device
    try:
        with torch.no_grad(), torch.autocast(device.type, dtype=torch.bfloat16, enabled=base.low_precision):
            top = base.model(input_ids=inputs.to(device), attention_mask=mask.to(device)).last_hidden_state
    finally:
        if hook is not None:
            hook.remove()
    below = caught[0] if caught else top
    return top[: len(ids)].float().cpu().numpy(), below[: len(ids)].float().cpu().numpy()
