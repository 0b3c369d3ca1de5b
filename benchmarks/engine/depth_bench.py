"""Bench of `benchmarks.engine.depth`: one data set on one base model, trained at some depths."""

import dataclasses
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from moo.core.evidence import MembershipEvidence, UtilityEvidence
from moo.data.catalogue import Records
from moo.models.bank.bank import Bank, Depth, Frozen
from moo.models.bank.feature_scaling import constants
from moo.models.bank.lightning_module import OptimizerSettings, log_probs
from moo.models.dp.optimizer import DPSettings
from moo.models.pretrained.architectures import Cut, cut_of, n_blocks
from moo.models.pretrained.loading import BaseModel
from moo.models.train import Stream, TrainingData, TrainingSettings, train
from moo.models.trunk.cache import TrunkCache
from moo.models.trunk.constants import Constants
from moo.models.trunk.packed import Packed
from moo.privacy.calibration import calibrate_noise

# Share of users that the shadows are drawn from.
POOL = 0.7
DELTA, ALL = 1e-5, 99
MODELS = {"recommendation": "minilm-l6", "profiling": "minilm-l6", "reviews": "e5-small"}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Settings of a training.

    Attributes:
        steps: Optimizer steps.
        sample_rate: Share of users in a batch.
        learning_rate: Step size of LoRA and queries (Adam).
        clip: Largest norm of a user's gradient.
    """

    steps: int
    sample_rate: float
    learning_rate: float
    clip: float = 0.3

    @property
    def head_learning_rate(self) -> float:
        """Return a rate with which the head walks as far in all recipes: 1.5 a step at 25 steps."""
        return 1.5 * 25 / self.steps

    def halved(self, times: int) -> "Recipe":
        """Return the recipe with batches halved and steps doubled, `times` times."""
        return dataclasses.replace(self, steps=self.steps * 2**times, sample_rate=self.sample_rate / 2**times)


@dataclass(frozen=True, kw_only=True)
class Way:
    """Depth with its rank."""

    depth: Depth
    rank: int = 8


def _queries(n: int, dropped: int) -> Way:
    return Way(depth=Depth(adapted_layers=1, n_queries=n, layers_dropped=dropped))


WAYS = {
    "head": Way(depth=Depth()),
    "pooled": Way(depth=Depth(adapted_layers=1)),
    "1 query": _queries(1, 0),
    "1 query, 1 dropped": _queries(1, 1),
    "1 query, 2 dropped": _queries(1, 2),
    "1 query, 3 dropped": _queries(1, 3),
    "4 queries, 2 dropped": _queries(4, 2),
    "2 layers": Way(depth=Depth(adapted_layers=2)),
    "4 layers": Way(depth=Depth(adapted_layers=4)),
    "all layers": Way(depth=Depth(adapted_layers=ALL)),
}


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """Conditions of a training, the same for all ways that are compared.

    Attributes:
        epsilon: Target of DP; infinite trains without DP.
        seed: Seed of split, halves and noise.
        shadows: Number of shadows.
        whole: True to train every shadow on the whole pool.
        by_record: True if the unit of privacy is the record.
    """

    epsilon: float
    seed: int
    shadows: int
    whole: bool
    by_record: bool


@dataclass
class Bench:
    """One data set on one base model: its trunk by cut, and the runs on it."""

    base: BaseModel
    records: Records
    cache: Path
    max_length: int = 96
    _packed: dict[Cut, tuple[Packed, Constants, float]] = field(default_factory=dict)

    def depth(self, way: Way) -> Depth:
        """Return the way's depth, with no more layers than there are."""
        return dataclasses.replace(way.depth, adapted_layers=min(n_blocks(self.base.model), way.depth.adapted_layers))

    def trunk(self, depth: Depth) -> tuple[Cut, Packed, Constants, float]:
        """Return a depth's cut, activations and constants, and the seconds that they took."""
        cut = cut_of(self.base.model, adapted_layers=depth.adapted_layers, layers_dropped=depth.layers_dropped)
        if cut not in self._packed:
            public = constants(self.base, max_length=self.max_length, cut=cut)
            started = time.process_time()
            kept = TrunkCache(self.cache, b"benchmark", self.base, max_length=self.max_length, cut=cut)
            packed = kept.packed(self.records.texts, public)
            # One at a time: they are large.
            self._packed = {cut: (packed, public, time.process_time() - started)}
        return (cut, *self._packed[cut])

    def run(self, name: str, recipe: Recipe, at: Conditions) -> "Run":
        """Train some shadows in a way and measure them; see `measured`."""
        way = WAYS[name]
        depth = self.depth(way)
        cut, packed, public, trunk_seconds = self.trunk(depth)
        frozen = Frozen(base=self.base, cut=cut, constants=public)

        def fit(data: TrainingData, settings: TrainingSettings, stream: Stream) -> Bank:
            own = dataclasses.replace(settings, depth=depth, lora_rank=way.rank)
            bank: Bank = train(data, own, frozen, stream).bank
            return bank

        return self.measured(packed, fit, recipe, at, trunk_seconds=trunk_seconds)

    def measured(
        self,
        packed: Packed,
        fit: Callable[[TrainingData, TrainingSettings, Stream], Bank],
        recipe: Recipe,
        at: Conditions,
        *,
        trunk_seconds: float,
    ) -> "Run":
        """Train some shadows on these activations by `fit`, and measure them."""
        rng = np.random.default_rng([at.seed, 7])
        pool = rng.random(self.records.n_units) < POOL
        coins = rng.random((-(-at.shadows // 2), self.records.n_units)) < 0.5
        halves = np.stack([side for row in coins for side in (row, ~row)])[: at.shadows]
        members = (halves | at.whole)[:, self.records.units]
        inside, outside = (np.flatnonzero(rows) for rows in (pool[self.records.units], ~pool[self.records.units]))
        users = np.unique(self.records.units[inside], return_inverse=True)[1]
        data = TrainingData(
            packed=packed.take(inside),
            labels=self.records.labels[inside],
            units=np.arange(len(inside)) if at.by_record else users,
            members=members[:, inside],
            n_classes=len(self.records.classes),
        )
        settings = self._settings(recipe, at)
        started = time.process_time()
        bank = fit(data, settings, lambda purpose, k: np.random.default_rng([at.seed, len(purpose), k]))
        cpu = time.process_time() - started
        outputs = log_probs(bank, packed).numpy().astype(np.float64)
        losses = -outputs[:, inside][:, np.arange(len(inside)), data.labels]
        return Run(
            utility=UtilityEvidence(
                log_probs=outputs[:, outside], labels=self.records.labels[outside], units=self.records.units[outside]
            ),
            membership=None if at.whole else MembershipEvidence(losses=losses, members=data.members, units=data.units),
            seconds=cpu,
            microseconds=1e6 * cpu / (data.members.sum() * recipe.sample_rate * recipe.steps),
            trunk_seconds=trunk_seconds,
        )

    def _settings(self, recipe: Recipe, at: Conditions) -> TrainingSettings:
        n = len(self.records) if at.by_record else self.records.n_units
        expected = max(1.0, (1.0 if at.whole else 0.5) * POOL * n)
        noise = 0.0
        if math.isfinite(at.epsilon):
            noise = calibrate_noise(
                target_epsilon=at.epsilon, delta=DELTA, sample_rate=recipe.sample_rate, steps=recipe.steps
            )
        return TrainingSettings(
            depth=Depth(),
            lora_rank=1,
            lora_alpha=16.0,
            sample_rate=recipe.sample_rate,
            steps=recipe.steps,
            dp=DPSettings(
                noise_multiplier=noise,
                max_grad_norm=recipe.clip if noise else math.inf,
                expected_batch_size=recipe.sample_rate * expected,
            ),
            optimizer=OptimizerSettings(
                learning_rate=recipe.learning_rate, head_learning_rate=recipe.head_learning_rate
            ),
            accelerator="cpu",
        )


@dataclass(frozen=True, kw_only=True)
class Run:
    """Result of one training of four shadows; seconds are of processor time."""

    utility: UtilityEvidence
    membership: MembershipEvidence | None
    seconds: float
    microseconds: float
    trunk_seconds: float
