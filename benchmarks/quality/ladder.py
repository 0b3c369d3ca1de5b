"""Value of side networks over cached activations, trained next to the head.

python -m benchmarks.quality.ladder [--data recommendation reviews]
    [--ways head "1 query, 2 dropped" means "pooled 32" ...] [options of benchmarks.engine.depth]
    [--out build/ladder.jsonl]

No gradient passes through the trunk. "means" shows the head the frozen means of every second layer,
"copies" as many copies of the whole model's mean in their place: larger features walk faster,
whatever they hold. "pooled r" puts a perceptron of width r between. "query w" and "block w" read
token states: those of the layers named by their distance to the top (3 is what "1 query, 2 dropped"
reads) are projected to width w, summed, and pass one small transformer block, for all tokens
("block") or for their mean alone, which queries as a learned query does ("query"). All come in
addition to the whole model's frozen mean, are shifted and scaled by their values on public texts
before they have learned anything, and start with zero weights in the head, so that a model starts
as the head alone.

Splits, halves, draws, recipes and columns are those of `benchmarks.engine.depth`, and so are its
ways, for a comparison on one machine.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.engine import depth
from benchmarks.engine.depth_bench import Bench, Conditions, Recipe, Run
from moo.models.bank.bank import Bank, BankConfig, Depth
from moo.models.bank.feature_scaling import constants
from moo.models.bank.lightning_module import BankModule
from moo.models.bank.lora import Pair
from moo.models.dp.optimizer import ShadowNoise
from moo.models.dp.poisson_sampling import PoissonBatches, PoissonDataModule
from moo.models.pretrained.architectures import Cut, n_blocks
from moo.models.training.fit import fit
from moo.models.training.settings import Stream, TrainingData, TrainingSettings
from moo.models.trunk.cache import TrunkCache
from moo.models.trunk.constants import QUERY_SIZE, public_texts
from moo.models.trunk.packed import Activations, Packed, RecordBatch, Workspace

# Width of a head of the side block.
PER_HEAD = 16


@dataclass(frozen=True, kw_only=True)
class Side:
    """Side network.

    Attributes:
        kind: Kind; see the module's docstring.
        width: Width of its layers.
        size: Size of its features on public texts, relative to a whole model's mean of size 1.
        below: Blocks, counted from the top, with inputs that it reads; empty for every second one.
    """

    kind: Literal["means", "copies", "pooled", "query", "block"]
    width: int = 0
    size: float = QUERY_SIZE
    below: tuple[int, ...] = ()

    @property
    def by_token(self) -> bool:
        """Return True if the network reads token states."""
        return self.kind in ("query", "block")

    @property
    def widens(self) -> bool:
        """Return True if the head alone is trained."""
        return self.kind in ("means", "copies")


SIDES = {
    "means": Side(kind="means", size=1.0),
    "means of half the size": Side(kind="means"),
    "copies": Side(kind="copies", size=1.0),
    "pooled 16": Side(kind="pooled", width=16),
    "pooled 64": Side(kind="pooled", width=64),
    "query 32 of 3": Side(kind="query", width=32, below=(3,)),
    "query 64 of 3": Side(kind="query", width=64, below=(3,)),
    "query 32 of 3, 1": Side(kind="query", width=32, below=(3, 1)),
    "query 64 of 3, 1": Side(kind="query", width=64, below=(3, 1)),
    "query 64 of 5, 3, 1": Side(kind="query", width=64, below=(5, 3, 1)),
    "block 32 of 3": Side(kind="block", width=32, below=(3,)),
    "block 32 of 3, 1": Side(kind="block", width=32, below=(3, 1)),
    "block 64 of 3, 1": Side(kind="block", width=64, below=(3, 1)),
}


class Linear(nn.Module):
    """x -> W x of K shadows in the input's precision; keeps the tensors of its factors.

    Maps (K, P, m, n_in) to (K, P, m, n_out).
    """

    def __init__(self, n_in: int, n_out: int, generators: Sequence[torch.Generator]) -> None:
        super().__init__()
        drawn = [torch.randn(n_out, n_in, generator=g) * n_in**-0.5 for g in generators]
        self.weight = nn.Parameter(torch.stack(drawn))
        self.taken: tuple[Tensor, Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Return W x, shape (K, P, m, n_out)."""
        weight = self.weight.detach().to(x.dtype)
        out = (x.expand(len(weight), *x.shape[1:]).flatten(1, 2) @ weight.mT).view(len(weight), *x.shape[1:3], -1)
        if torch.is_grad_enabled():
            self.taken = x, out if out.requires_grad else out.requires_grad_()
        return out


class SideLane(nn.Module):
    """Side network of K shadows in place of a bank's lane: features (K, P, width).

    Args:
        side: Its shape.
        n_in: Width of its inputs.
        public: Activations of public texts, (1, n), for shift and scale.
        generators: One per shadow.
    """

    shift: Tensor
    feature_scale: Tensor

    def __init__(self, side: Side, n_in: int, public: RecordBatch, generators: Sequence[torch.Generator]) -> None:
        super().__init__()
        w, self._side, self.n_features = side.width, side, side.width
        self.chunk_divisor = 8 if side.by_token else 1
        shapes = {"first": (n_in, w), "second": (w, w)}
        if side.by_token:
            shapes = {"first": (n_in, w), "query": (w, w), "key": (w, w), "value": (w, w), "out": (w, w)}
            shapes |= {"up": (w, 2 * w), "down": (2 * w, w)}
        self.layers = nn.ModuleDict({name: Linear(i, o, generators) for name, (i, o) in shapes.items()})
        self.register_buffer("shift", torch.zeros(len(generators), 1, w))
        self.register_buffer("feature_scale", torch.ones(len(generators), 1, w))
        with torch.no_grad():
            at_first = self.run(public)
        self.shift = at_first.mean(1, keepdim=True)
        self.feature_scale = side.size / (at_first.std(1, keepdim=True).clamp_min(1e-6) * w**0.5)

    # Grad mode decides it.
    def run(self, x: RecordBatch, *, capture: bool = False) -> Tensor:  # noqa: ARG002
        """Return features, shifted and scaled, shape (K, P, width)."""
        out = self._tokens(x) if isinstance(x, Activations) else self._pooled(x)
        return (out - self.shift) * self.feature_scale

    def _pooled(self, x: RecordBatch) -> Tensor:
        hidden = functional.gelu(self.layers["first"](x.first[:, :, None]))
        out: Tensor = functional.gelu(self.layers["second"](hidden))[:, :, 0]
        return out

    def _tokens(self, x: Activations) -> Tensor:
        # (K, P, 1, L)
        share = (x.mask / x.mask.sum(-1, keepdim=True))[..., None, :]
        tokens = self.layers["first"](x.tokens).float()
        state = share @ tokens if self._side.kind == "query" else tokens
        state = state + self.layers["out"](self._attended(_normed(state), _normed(tokens), x.mask))
        state = state + self.layers["down"](functional.gelu(self.layers["up"](_normed(state))))
        out: Tensor = _normed(state) if self._side.kind == "query" else share @ _normed(state)
        return out.squeeze(2)

    def _attended(self, state: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        q, k, v = (
            self.layers[name](of).unflatten(-1, (-1, PER_HEAD)).transpose(2, 3)
            for name, of in (("query", state), ("key", tokens), ("value", tokens))
            # (K, P, heads, . , PER_HEAD)
        )
        scores = (q @ k.mT * PER_HEAD**-0.5).masked_fill(~mask[:, :, None, None], -torch.inf)
        out: Tensor = (scores.softmax(-1) @ v).transpose(2, 3).flatten(3)
        return out

    def taps(self) -> list[Tensor]:
        """Return outputs of the layers."""
        return [layer.taken[1] for layer in self._layers().values() if layer.taken is not None]

    def factors(self, grads: list[Tensor]) -> dict[str, Pair]:
        """Return gradient factors of each record by parameter, each (K, P, m, .)."""
        out = {}
        for (name, layer), g in zip(self._layers().items(), grads, strict=True):
            assert layer.taken is not None
            out[f"layers.{name}.weight"] = (g, layer.taken[0].detach())
            layer.taken = None
        return out

    def _layers(self) -> dict[str, Linear]:
        return {name: cast(Linear, layer) for name, layer in self.layers.items()}


def _normed(x: Tensor) -> Tensor:
    return functional.layer_norm(x, x.shape[-1:])


class LadderBank(Bank):
    """Bank with a side network as its lane; without one, the head alone."""

    def __init__(self, config: BankConfig, n_mean: int, lane: SideLane | None) -> None:
        super().__init__(config, None, n_mean + (0 if lane is None else lane.n_features), [])
        self.lane = cast(Any, lane)

    def materialise(self, packed: Packed, index: Tensor, workspace: Workspace) -> RecordBatch:
        """Lay out the records at `index` in the form that the side network reads."""
        return _laid_out(self.lane is not None and self.lane.chunk_divisor > 1, packed, index, workspace)


def _laid_out(by_token: bool, packed: Packed, index: Tensor, workspace: Workspace) -> RecordBatch:
    if by_token:
        return packed.gather(index, tokens=True, workspace=workspace)
    return packed.sampled_rows(index, workspace=workspace)


@dataclass
class LadderBench(Bench):
    """Bench of `benchmarks.engine.depth` with side networks."""

    _sides: dict[Any, tuple[Packed, Packed, float]] = field(default_factory=dict)

    def run(self, name: str, recipe: Recipe, at: Conditions) -> Run:
        """Train and measure some shadows in a way of this module or of `benchmarks.engine.depth`."""
        if name in depth.WAYS:
            return super().run(name, recipe, at)
        side = SIDES[name]
        packed, public, seconds = self.activations(side)

        def train(data: TrainingData, settings: TrainingSettings, stream: Stream) -> Bank:
            return _train(side, data, public, settings, stream)

        return self.measured(packed, train, recipe, at, trunk_seconds=seconds)

    def activations(self, side: Side) -> tuple[Packed, Packed, float]:
        """Return the side network's inputs for records and public texts, and the seconds taken."""
        n = n_blocks(self.base.model)
        starts = tuple(n - b for b in side.below) or tuple(range(n - 1, 0, -2))
        key = (starts, side.by_token, (side.kind, side.size) if side.widens else "")
        if key not in self._sides:
            started = time.process_time()
            both = self._read(starts, side)
            # One at a time: they are large.
            self._sides = {key: (*both, time.process_time() - started)}
        return self._sides[key]

    def _read(self, starts: Sequence[int], side: Side) -> tuple[Packed, Packed]:
        texts, width = (self.records.texts, public_texts()), self.base.hidden
        found: list[list[Packed]] = []
        for start in starts:
            cut = Cut(start, n_blocks(self.base.model))
            of = constants(self.base, max_length=self.max_length, cut=cut)
            kept = TrunkCache(self.cache, b"benchmark", self.base, max_length=self.max_length, cut=cut)
            layer = [kept.packed(t, of) for t in texts]
            layer = layer if side.by_token else [_means(p) for p in layer]
            spread, mean = torch.std_mean(layer[1].tokens.float(), dim=0)
            for p in layer:
                for rows in torch.split(p.tokens, 4096):
                    rows.copy_((rows.float() - mean) / spread.clamp_min(1e-6))
            found.append(layer)
        out = []
        for parts in zip(*found, strict=True):
            tokens = torch.cat([p.tokens for p in parts], dim=1)
            features, offsets = parts[0].features, parts[0].offsets
            if side.widens:
                lower = tokens * width**-0.5 if side.kind == "means" else features.repeat(1, len(parts))
                features, tokens = torch.cat([features, side.size * lower], dim=1), tokens[:, :0]
            out.append(Packed(features=features, tokens=tokens, offsets=offsets))
        return out[0], out[1]


def _means(packed: Packed) -> Packed:
    """Return one token per text: the mean of its tokens."""
    means = [t.float().mean(0) for t in torch.split(packed.tokens, packed.lengths.tolist())]
    return Packed(features=packed.features, tokens=torch.stack(means), offsets=torch.arange(len(means) + 1))


def _train(side: Side, data: TrainingData, public: Packed, settings: TrainingSettings, stream: Stream) -> Bank:
    """Train as `moo.models.train.train` does, with a side network as lane."""
    k = len(data.members)
    seeds = [torch.Generator().manual_seed(int(stream("init", i).integers(2**63))) for i in range(k)]
    texts = _laid_out(side.by_token, public, torch.arange(len(public.lengths))[None], Workspace())
    lane = None if side.widens else SideLane(side, data.packed.tokens.shape[1], texts, seeds)
    config = BankConfig(ranks=(1,) * k, n_classes=data.n_classes, depth=Depth(), lora_alpha=1.0)
    bank = LadderBank(config, data.packed.features.shape[1], lane)
    batches = PoissonBatches(
        units=data.units,
        lengths=data.packed.lengths,
        members=data.members,
        sample_rate=settings.sample_rate,
        steps=settings.steps,
        generators=[stream("sampling", i) for i in range(k)],
    )
    noise = ShadowNoise([stream("noise", i) for i in range(k)])
    labels = torch.from_numpy(data.labels)
    module = BankModule(bank, data.packed, labels, settings=settings.optimizer, dp=settings.dp, noise=noise)
    fit(module, PoissonDataModule(batches), settings)
    module.release()
    return bank


if __name__ == "__main__":
    ways = ["head", "1 query, 2 dropped", *SIDES]
    depth.main(LadderBench, ways, __doc__, "ladder")
