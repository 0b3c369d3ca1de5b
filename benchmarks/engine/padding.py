"""Cost of padding in the deep lane: computed token places per sampled token, by layout.

python -m benchmarks.engine.padding [--data reviews recommendation] [--units record user] [--rates .5 .1 .02]
    [--records 2000] [--steps 20] [--shadows 4] [--at-once 8] [--time] [--json]

Batches are those of the sampler, on halves of a pool; nothing is trained. Each way does what those
before it do:

padded   Chunks of whole units, padded to the longest text of all shadows in the chunk, rounded up; a shadow that
         drew fewer units than another has empty places last, among units of many records.
engine   Empty places come first, and chunks in which no shadow has a unit are left out.
rows     In a chunk, rows without a record are left out; as many are kept as the shadow with the most has.
tokens   Tokens one after another, without padding, up to those of the shadow with the most, rounded up.

The places are those computed by layers that see each token alone; "pairs" are those of attention,
without rounding for "tokens". A chunk holds as many records at all depths, so that depth does not
change them. With --time, microseconds per record of the thread's processor time: three blocks of
e5-small forward and backward to the gradients that LoRA's factors are made of, on random
activations. Packed tokens are laid out for attention alone. Turns alternate; the least of each is
printed.
"""

import argparse
import itertools
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import AttentionInterface

from benchmarks.engine.depth_bench import MODELS, POOL
from moo.data.catalogue import load_records
from moo.models.bank.batched_attention import batched
from moo.models.bank.deep_lane import DeepLane
from moo.models.bank.feature_scaling import constants
from moo.models.bank.lightning_module import OptimizerSettings
from moo.models.bank.lora import LoraLinear, LoraShape
from moo.models.dp.poisson_sampling import Batch, PoissonBatches
from moo.models.pretrained.architectures import blocks_of, cut_of
from moo.models.pretrained.loading import BaseModel, load_base
from moo.models.trunk.encode import token_ids
from moo.models.trunk.packed import rounded_up

Ints = NDArray[np.int64]

LENGTHS = {"reviews": 64, "recommendation": 96}
WAYS = ("padded", "engine", "rows", "tokens")
# Adapted layers; the last one is the fast lane's.
DEPTH = 4


@dataclass(frozen=True)
class Chunk:
    """Rows computed at a time.

    Attributes:
        lengths: Shape (K, P). Tokens of each row.
        real: Shape (K, P). True for rows with a record.
    """

    lengths: Ints
    real: NDArray[np.bool_]

    @property
    def width(self) -> int:
        """Return the padded length of a row."""
        return rounded_up(int(self.lengths.max()))

    @property
    def rows(self) -> Ints:
        """Return lengths (K, R) of the rows with a record; a shadow with fewer repeats its first."""
        most = int(self.real.sum(1).max())
        kept = [own[real] for own, real in zip(self.lengths, self.real, strict=True)]
        return np.stack([np.append(own, np.full(most - len(own), own[0] if len(own) else 1)) for own in kept])

    @property
    def tokens(self) -> int:
        """Return the tokens of the shadow with the most, rounded up."""
        return rounded_up(int(np.where(self.real, self.lengths, 0).sum(1).max()))


def chunks(batch: Batch, lengths: Ints, at_once: int, way: str) -> Iterator[Chunk]:
    """Yield a batch's chunks in a way; `Chunk` separates the last two ways."""
    for chunk in (_empty_last(batch) if way == "padded" else batch).chunks(at_once):
        yield Chunk(lengths[chunk.index.flatten(1).numpy()], (chunk.weights.flatten(1) > 0).numpy())


def _empty_last(batch: Batch) -> Batch:
    """Move places without a unit to the end."""
    order = torch.argsort((~batch.present).int(), dim=1, stable=True)
    index, weights = (t.gather(1, order[..., None].expand_as(t)) for t in (batch.index, batch.weights))
    sizes = (weights > 0).sum(-1).amax(0).clamp(min=1).cummax(0).values
    return Batch(index, weights, batch.present.gather(1, order), tuple(sizes.tolist()))


def computed(chunk: Chunk, way: str) -> tuple[int, int]:
    """Return token places and pairs of tokens of a chunk in a way."""
    if way == "tokens":
        return len(chunk.lengths) * chunk.tokens, int((np.where(chunk.real, chunk.lengths, 0) ** 2).sum())
    rows = chunk.rows if way == "rows" else chunk.lengths
    return rows.size * chunk.width, rows.size * chunk.width**2


def drawn(data: str, unit: str, rate: float, options: argparse.Namespace) -> tuple[list[Batch], Ints]:
    """Return some batches, and the lengths of all records."""
    records = load_records(data, n_records=options.records)
    ids, _ = token_ids(load_base(MODELS[data]), records.texts, max_length=LENGTHS[data])
    lengths = np.array([len(row) for row in ids], dtype=np.int64)
    rng = np.random.default_rng(0)
    pool = rng.random(records.n_units) < POOL
    coins = rng.random((-(-options.shadows // 2), records.n_units)) < 0.5
    halves = np.stack([side for row in coins for side in (row & pool, ~row & pool)])[: options.shadows]
    batches = PoissonBatches(
        units=records.units if unit == "user" else np.arange(len(lengths)),
        lengths=lengths,
        members=halves[:, records.units],
        sample_rate=rate,
        steps=options.steps,
        generators=[np.random.default_rng([1, k]) for k in range(len(halves))],
    )
    return list(batches), lengths


class Blocks:
    """Blocks of a deep lane below its last, for padded rows or tokens one after another."""

    def __init__(self, base: BaseModel, n_shadows: int) -> None:
        shape = LoraShape(
            ranks=(8,) * n_shadows, alpha=16.0, generators=[torch.Generator().manual_seed(k) for k in range(n_shadows)]
        )
        cut = cut_of(base.model, adapted_layers=DEPTH)
        lane = DeepLane(base, constants(base, max_length=64, cut=cut), cut, targets="query_value", shape=shape)
        self.dtype = torch.bfloat16 if base.low_precision else torch.float32
        self._lane, self._model = lane, lane.model
        drawn = torch.randn(max(LENGTHS.values()), base.hidden, generator=torch.Generator().manual_seed(0))
        # Tokens of every record.
        self._tokens = drawn.to(self.dtype)
        self._layers = [m for m in lane.model.modules() if isinstance(m, LoraLinear)]
        self._places: Places | None = None
        AttentionInterface.register("moo_packed", self._attention)
        self._ways = {False: self._model.config._attn_implementation, True: "moo_packed"}

    def run(self, lengths: Ints, *, packed: int = 0) -> list[Tensor]:
        """Return gradients at the taps.

        Args:
            lengths: Shape (K, P). Tokens of each row, 0 for no record.
            packed: Number of packed tokens; 0 pads.
        """
        k, p = lengths.shape
        self._model.config._attn_implementation = self._ways[packed > 0]
        width = rounded_up(int(lengths.max()))
        mask = torch.arange(width) < torch.from_numpy(lengths)[..., None]
        added = torch.where(mask, 0.0, torch.finfo(self.dtype).min).to(self.dtype).view(k * p, 1, 1, width)
        state = self._tokens[:width].expand(k * p, -1, -1)
        used = mask.view(k * p, width, 1)
        self._places = at = Places(mask, added, packed) if packed else None
        if at is not None:
            state = state.flatten(0, 1).index_select(0, at.back).view(k, packed, -1)
            used = (torch.arange(packed) < mask.flatten(1).sum(1, keepdim=True))[..., None]
        for layer in self._layers:
            layer.capture = True
        self._lane._hidden = state
        for block in blocks_of(self._model):
            out = block(state, attention_mask=None if packed else added)
            state = out[0] if isinstance(out, tuple) else out
            self._lane._hidden = state
        return list(torch.autograd.grad((state * used).sum(), [layer.tap for layer in self._layers]))

    def _attention(
        self, module: Any, query: Tensor, key: Tensor, value: Tensor, _: Any, **how: Any
    ) -> tuple[Tensor, None]:
        at = self._places
        assert at is not None
        k, heads, tokens, width = query.shape
        asked, keys, values = (
            _moved(x.transpose(1, 2).reshape(k * tokens, -1), at.there, at.back, None)
            .view(*at.shape, heads, width)
            .transpose(1, 2)
            for x in (query, key, value)
        )
        out, _ = batched(module, asked, keys, values, at.added, **how)
        packed = _moved(out.reshape(-1, heads * width), at.back, at.there, at.mask)
        return packed.view(k, tokens, heads, width), None


class Places:
    """Places of packed tokens in padded rows, and back."""

    def __init__(self, mask: Tensor, added: Tensor, tokens: int) -> None:
        k, p, width = mask.shape
        flat = mask.view(k, -1)
        within = (flat.cumsum(1) - 1).clamp(min=0)
        self.there = (within + torch.arange(k)[:, None] * tokens).flatten()
        back = torch.zeros(k, tokens, dtype=torch.long)
        for i, own in enumerate(flat):
            found = own.nonzero().squeeze(1)
            back[i, : len(found)] = found + i * p * width
        self.back, self.added, self.mask, self.shape = back.flatten(), added, mask.view(-1, 1), (k * p, width)


class _Moved(torch.autograd.Function):
    """Rows moved from one layout to another; the gradient outside the mask is zero."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, there: Tensor, back: Tensor, mask: Tensor | None) -> Tensor:
        ctx.back, ctx.mask = back, mask
        return x.index_select(0, there)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        out = grads[0].index_select(0, ctx.back)
        return out if ctx.mask is None else out.masked_fill_(~ctx.mask, 0.0), None, None, None


def _moved(x: Tensor, there: Tensor, back: Tensor, mask: Tensor | None) -> Tensor:
    out: Tensor = _Moved.apply(x, there, back, mask)  # type: ignore[no-untyped-call]
    return out


def microseconds(blocks: Blocks, batches: Sequence[Batch], lengths: Ints, at_once: int) -> dict[str, float]:
    """Return microseconds per record, by way."""
    found: dict[str, list[float]] = {way: [] for way in WAYS}
    records = sum(int((b.weights > 0).sum()) for b in batches)
    for turn in range(3):
        for way in WAYS:
            started = time.thread_time()
            for chunk in (c for b in batches for c in chunks(b, lengths, at_once, way)):
                _forward_backward(blocks, chunk, way)
            # The first turn compiles products.
            if turn:
                found[way].append(1e6 * (time.thread_time() - started) / records)
    return {way: min(times) for way, times in found.items()}


def _some(batches: Sequence[Batch], least: int = 200) -> list[Batch]:
    """Return the first batches that hold at least `least` records."""
    held = np.cumsum([int((b.weights > 0).sum()) for b in batches])
    return list(batches[: int(np.searchsorted(held, least)) + 1])


def _forward_backward(blocks: Blocks, chunk: Chunk, way: str) -> None:
    if way == "tokens":
        blocks.run(np.where(chunk.real, chunk.lengths, 0), packed=chunk.tokens)
    else:
        blocks.run(chunk.rows if way == "rows" else chunk.lengths)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", choices=tuple(LENGTHS), default=list(LENGTHS))
    parser.add_argument("--units", nargs="+", choices=("record", "user"), default=["record", "user"], help="of privacy")
    parser.add_argument("--rates", type=float, nargs="+", default=[0.5, 0.1, 0.02], help="share of units in a batch")
    parser.add_argument("--records", type=int, default=2000)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--shadows", type=int, default=4)
    parser.add_argument("--at-once", type=int, default=OptimizerSettings().chunk // DeepLane.chunk_divisor)
    parser.add_argument("--time", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    blocks = Blocks(load_base("e5-small"), options.shadows) if options.time else None
    for data in options.data:
        for unit, rate in itertools.product(options.units, options.rates):
            batches, lengths = drawn(data, unit, rate, options)
            row: dict[str, Any] = {"data": data, "unit": unit, "rate": rate, "length": round(float(lengths.mean()), 1)}
            tokens = sum(int(lengths[b.index[b.weights > 0].numpy()].sum()) for b in batches)
            pairs = sum(int((lengths[b.index[b.weights > 0].numpy()] ** 2).sum()) for b in batches)
            for way in WAYS:
                made = [computed(c, way) for b in batches for c in chunks(b, lengths, options.at_once, way)]
                row[way] = round(sum(m[0] for m in made) / tokens, 2)
                row[f"{way} pairs"] = round(sum(m[1] for m in made) / pairs, 2)
            if blocks is not None:
                row |= {
                    f"{w} us": round(t)
                    for w, t in microseconds(blocks, _some(batches), lengths, options.at_once).items()
                }
            print(json.dumps(row) if options.json else "  ".join(f"{n} {v}" for n, v in row.items()), flush=True)


if __name__ == "__main__":
    main()
