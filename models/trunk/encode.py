"""Frozen trunk: the base model run once per text.

The output keeps the inputs of the first live block and the pooled output of the whole model.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from moo.models.pretrained.architectures import Cut, blocks_of, first_input, is_causal, n_blocks, without_blocks_from
from moo.models.pretrained.loading import BaseModel

# Tokens in a batch; with lengths in steps of 8, batches have few, fixed shapes.
BATCH_TOKENS = 1024
LENGTH_STEP = 8

Floats = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """Trunk output of n texts.

    Attributes:
        tokens: Inputs of the first live block, one array (length, d) per text.
        mean: Shape (n, d). Mean over tokens of the whole model's frozen output, blocks above the
            cut included: a head that sees it never has less than the head alone.
        pooled: Shape (n, d). First token of that output, or the last one of a decoder.
        truncated: Shape (n,). True for texts longer than max_length.
    """

    tokens: list[Floats]
    mean: Floats
    pooled: Floats
    truncated: NDArray[np.bool_]


@dataclass(frozen=True)
class _Batch:
    """Texts that run through the model together.

    Attributes:
        rows: Texts, as positions in the caller's list.
        length: Tokens per text, padding included.
        size: Number of texts, filling included: results may depend on the shape of a batch, never
            on the other texts in it.
    """

    rows: NDArray[np.intp]
    length: int
    size: int


def encode(
    base: BaseModel,
    texts: Sequence[str],
    *,
    max_length: int,
    cut: Cut | None = None,
    progress: Callable[[int], None] | None = None,
) -> Encoded:
    """Run the frozen model once per text, sorted by length, in batches of fixed shapes.

    Args:
        base: Loaded base model.
        texts: n texts.
        max_length: Tokens kept of each text, closing token included.
        cut: Live blocks; by default the last one.
        progress: Called after every batch with the number of texts in it.
    """
    cut = last_cut(base) if cut is None else cut
    causal = is_causal(base.model)
    ids, truncated = token_ids(base, texts, max_length=max_length)
    lengths = np.array([len(i) for i in ids], dtype=np.intp)
    tokens: list[Floats] = [np.empty((0, base.hidden), np.float32)] * len(ids)
    mean, pooled = np.empty((len(ids), base.hidden), np.float32), np.empty((len(ids), base.hidden), np.float32)
    for batch in _batches(lengths, base.positions):
        top, below = _run(base, base.model, [ids[i] for i in batch.rows], lengths[batch.rows], batch, cut.start)
        for j, i in enumerate(batch.rows):
            tokens[i] = below[j, : lengths[i]]
            mean[i] = top[j, : lengths[i]].mean(0)
            pooled[i] = top[j, lengths[i] - 1 if causal else 0]
        if progress is not None:
            progress(len(batch.rows))
    return Encoded(tokens=tokens, mean=mean, pooled=pooled, truncated=truncated)


def states_below(base: BaseModel, texts: Sequence[str], *, max_length: int, stop: int) -> list[Floats]:
    """Return the model's output, final norm included, without the blocks from `stop` on.

    Returns:
        One array (length, d) per text.
    """
    ids, _ = token_ids(base, texts, max_length=max_length)
    lengths = np.array([len(i) for i in ids], dtype=np.intp)
    out: list[Floats] = [np.empty((0, base.hidden), np.float32)] * len(ids)
    for batch in _batches(lengths, base.positions):
        rows = [ids[i] for i in batch.rows]
        top, _ = _run(base, without_blocks_from(base.model, stop), rows, lengths[batch.rows], batch, 0)
        for j, i in enumerate(batch.rows):
            out[i] = top[j, : lengths[i]]
    return out


def token_ids(
    base: BaseModel, texts: Sequence[str], *, max_length: int
) -> tuple[tuple[tuple[int, ...], ...], NDArray[np.bool_]]:
    """Return token ids cut to max_length, closing token kept, and a mask of the cut texts.

    Returns:
        Ids of each of the n texts, and an array of shape (n,), true where a text was cut.
    """
    found = base.tokenizer(list(texts), truncation=False, verbose=False)["input_ids"] if texts else []
    closing, out = base.tokenizer.sep_token_id, []
    for row in found:
        cut = row[:max_length] if len(row) <= max_length or closing is None else [*row[: max_length - 1], closing]
        # Decoders give an empty text no token at all.
        out.append(tuple(cut) or (base.tokenizer.pad_token_id,))
    return tuple(out), np.array([len(row) > max_length for row in found], dtype=bool)


def last_cut(base: BaseModel) -> Cut:
    """Return the last block alone; the empty cut if the model's blocks are not known."""
    n = n_blocks(base.model)
    return Cut(max(0, n - 1), n)


def _batches(lengths: NDArray[np.intp], most: int | None) -> Iterator[_Batch]:
    """Yield texts of about one length together, padded to a multiple of `LENGTH_STEP`.

    Args:
        lengths: Shape (n,). Tokens of each text.
        most: Largest number of tokens that the model can read; padding stops there. None for no
            limit.
    """
    padded = -(-lengths // LENGTH_STEP) * LENGTH_STEP
    padded = padded if most is None else np.minimum(padded, np.maximum(lengths, most))
    order = np.argsort(lengths, kind="stable")
    for length in np.unique(padded):
        bucket = order[padded[order] == length]
        size = max(1, BATCH_TOKENS // int(length))
        for start in range(0, len(bucket), size):
            yield _Batch(bucket[start : start + size], int(length), size)


def _run(
    base: BaseModel, model: Any, ids: Sequence[Sequence[int]], lengths: NDArray[np.intp], batch: _Batch, start: int
) -> tuple[Floats, Floats]:
    """Run one batch, filled up to its size, and return model output and inputs of block `start`.

    Returns:
        Two arrays of shape (rows, length, d).
    """
    inputs = torch.full((batch.size, batch.length), base.tokenizer.pad_token_id, dtype=torch.long)
    mask = torch.zeros((batch.size, batch.length), dtype=torch.long)
    mask[:, 0] = 1
    for j, (row, n) in enumerate(zip(ids, lengths, strict=True)):
        inputs[j, :n] = torch.tensor(row)
        mask[j, :n] = 1
    caught: list[torch.Tensor] = []
    device = base.device
    hook = (
        blocks_of(model)[start].register_forward_pre_hook(
            lambda _, args, kwargs: caught.append(first_input(args, kwargs)), with_kwargs=True
        )
        if n_blocks(model)
        else None
    )
    try:
        with torch.no_grad(), torch.autocast(device.type, dtype=torch.bfloat16, enabled=base.low_precision):
            top = model(input_ids=inputs.to(device), attention_mask=mask.to(device)).last_hidden_state
    finally:
        if hook is not None:
            hook.remove()
    below = caught[0] if caught else top
    return top[: len(ids)].float().cpu().numpy(), below[: len(ids)].float().cpu().numpy()
