"""Lower bound of a training step: the work that no engine can leave out.

For the chunks of a real batch: laying out the cached tokens, and the products with frozen matrices,
forward and to the inputs' gradient, in the trunk's precision. Attention, norms, activations, LoRA,
clipping and the update come on top.
"""

import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.engine.handwritten import Recipe
from benchmarks.setting import Ready
from moo.models.bank.deep_lane import DeepLane
from moo.models.dp.poisson_sampling import Batch, PoissonBatches
from moo.models.trunk.packed import Workspace

# Inputs, outputs, and True if the inputs' gradient is needed.
Shape = tuple[int, int, bool]


def floor(
    at: Ready,
    recipe: Recipe,
    members: NDArray[np.bool_],
    *,
    repeats: int = 3,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Return microseconds per example-step of gather and both products, and their sum.

    Each is the least of the repeats. The gather lays out a whole chunk in one piece; in pieces that
    stay in the cache it takes less.
    """
    config = at.frozen.base.model.config
    d, wide = at.frozen.base.hidden, config.intermediate_size
    work = torch.bfloat16 if at.frozen.base.low_precision else torch.float32
    rows = np.arange(members.shape[1])
    batches = PoissonBatches(
        units=rows,
        lengths=at.packed.lengths[rows],
        members=members,
        sample_rate=recipe.sample_rate,
        steps=repeats,
        generators=[np.random.default_rng(k) for k in range(len(members))],
    )
    weights = {shape: torch.randn(shape[1], shape[0]).to(work) for shape in ((d, d), (d, wide), (wide, d))}
    chunk = recipe.optimizer.chunk // (DeepLane.chunk_divisor if recipe.layers > 1 else 1)
    # Kept, as in training: fresh memory would be paid for page by page.
    found, workspace = [], Workspace()
    for batch in batches:
        examples = int(batch.present.sum())
        seconds = _one(at, batch.chunks(chunk), recipe.layers, weights, clock, workspace)
        found.append({name: 1e6 * s / examples for name, s in seconds.items()})
    least = {name: min(row[name] for row in found) for name in found[0]}
    return {**least, "floor_us": sum(least.values())}


def _one(
    at: Ready,
    chunks: Iterator[Batch],
    layers: int,
    weights: dict[tuple[int, int], Tensor],
    clock: Callable[[], float],
    workspace: Workspace,
) -> dict[str, float]:
    seconds = {"gather_us": 0.0, "forward_us": 0.0, "input_gradient_us": 0.0}
    for part in chunks:
        index = part.index.flatten(1)
        started = clock()
        tokens = at.packed.gather(index, tokens=True, workspace=workspace).tokens
        seconds["gather_us"] += clock() - started
        for rows, (inside, out, back) in _products(layers, index.numel(), index.numel() * tokens.shape[2], weights):
            weight = weights[inside, out]
            x, g = torch.ones(rows, inside, dtype=weight.dtype), torch.ones(rows, out, dtype=weight.dtype)
            started = clock()
            torch.nn.functional.linear(x, weight)
            seconds["forward_us"] += clock() - started
            if back:
                started = clock()
                torch.mm(g, weight)
                seconds["input_gradient_us"] += clock() - started
    return seconds


def _products(
    layers: int, records: int, tokens: int, weights: dict[tuple[int, int], Tensor]
) -> Iterator[tuple[int, Shape]]:
    """Yield rows and shape of every product with a frozen matrix.

    Blocks for all tokens come first, then the last block for the pooled token.
    """
    (d, _), (_, wide), _ = weights
    for block in range(layers - 1):
        for place in ("query", "key", "value", "dense"):
            yield tokens, (d, d, block > 0 or place == "dense")
        yield tokens, (d, wide, True)
        yield tokens, (wide, d, True)
    for place in ("query", "key", "value", "dense"):
        yield records, (d, d, layers > 1 or place != "query")
    yield records, (d, wide, True)
    yield records, (wide, d, True)
