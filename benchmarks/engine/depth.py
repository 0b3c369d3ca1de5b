"""Does depth pay? Accuracy, AUC, attack AUC and cost by depth, with and without DP, by the engine that trials use.

python -m benchmarks.depth [--data recommendation reviews] [--ways head pooled ...] [--epsilons inf 8] [--seeds 2] [--records 0]
                           [--halvings 0 2 4] [--whole] [--by-record] [--minutes 50] [--out build/depth.jsonl] [--json]

A row is one training at one setting. It is appended to --out as soon as it is measured; what stands there is not trained again, so a
run that was ended goes on where it was. All of seed 0 is measured before seed 1, cheap depths first, and no row is begun after
--minutes; run it again for the rest.

Four shadows of a trial are trained on complementary halves of the pool's users; with --whole, --shadows models on all of the pool,
which says more of accuracy and nothing of the attack. Tests are on other users. A seed draws split, halves and noise anew, the same
for all rows, so that the gain over the head alone is paired: its standard error is over test users (of the paired difference) and over
shadows. Without DP a batch is a fiftieth of the users, with it a tenth; with --halvings it is what a study's trials train with, half of
the users in 25 steps, halved so many times, and gains are over the head alone at the first of them. Seconds are of processor time, so
that other work on the machine changes them little; the trunk is computed once and kept in --cache. Splits and noise come from fixed
seeds here: for measurement, never for release.
"""

import argparse
import dataclasses
import itertools
import json
import math
import resource
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.paired import gain
from moo.core.evidence import MembershipEvidence, UtilityEvidence
from moo.data.catalogue import Records, load_records
from moo.models.bank.bank import Bank, Depth, Frozen
from moo.models.bank.feature_scaling import constants
from moo.models.bank.lightning_module import OptimizerSettings, log_probs
from moo.models.dp.optimizer import DPSettings
from moo.models.pretrained.architectures import Cut, cut_of, n_blocks
from moo.models.pretrained.loading import BaseModel, load_base
from moo.models.train import Stream, TrainingData, TrainingSettings, train
from moo.models.trunk.cache import TrunkCache
from moo.models.trunk.constants import Constants
from moo.models.trunk.packed import Packed
from moo.objectives.membership.risk import auc as attack_auc
from moo.objectives.utility.accuracy import accuracy, auc
from moo.privacy.calibration import calibrate_noise

POOL = 0.7  # share of users that the shadows are drawn from
DELTA, ALL = 1e-5, 99
MODELS = {"recommendation": "minilm-l6", "profiling": "minilm-l6", "reviews": "e5-small"}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a model is trained: steps, the share of users in a batch, and the step size of LoRA and queries by Adam."""

    steps: int
    sample_rate: float
    learning_rate: float
    clip: float = 0.3

    @property
    def head_learning_rate(self) -> float:
        """The head walks as far in all recipes: 1.5 a step at 25 steps."""
        return 1.5 * 25 / self.steps

    def halved(self, times: int) -> "Recipe":
        """Batches halved and steps doubled, so many times."""
        return dataclasses.replace(self, steps=self.steps * 2**times, sample_rate=self.sample_rate / 2**times)


PLAIN = Recipe(steps=250, sample_rate=0.02, learning_rate=1e-3)
PRIVATE = Recipe(steps=250, sample_rate=0.1, learning_rate=3e-3)
STUDY = {"steps": 25, "sample_rate": 0.5}  # of a trial whose batches are not halved


@dataclass(frozen=True, kw_only=True)
class Way:
    """A depth with its rank."""

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


@dataclass
class Bench:
    """One data set on one base model: its trunk by cut, and the runs on it."""

    base: BaseModel
    records: Records
    cache: Path
    max_length: int = 96
    _packed: dict[Cut, tuple[Packed, Constants, float]] = field(default_factory=dict)

    def depth(self, way: Way) -> Depth:
        """The way's depth, with no more layers than there are."""
        return dataclasses.replace(way.depth, adapted_layers=min(n_blocks(self.base.model), way.depth.adapted_layers))

    def trunk(self, depth: Depth) -> tuple[Cut, Packed, Constants, float]:
        """The cut of a depth, its activations and constants, and the seconds that they took."""
        cut = cut_of(self.base.model, adapted_layers=depth.adapted_layers, layers_dropped=depth.layers_dropped)
        if cut not in self._packed:
            public = constants(self.base, max_length=self.max_length, cut=cut)
            started = time.process_time()
            kept = TrunkCache(self.cache, b"benchmark", self.base, max_length=self.max_length, cut=cut)
            packed = kept.packed(self.records.texts, public)
            self._packed = {cut: (packed, public, time.process_time() - started)}  # one at a time: they are large
        return (cut, *self._packed[cut])

    def run(self, name: str, recipe: Recipe, **how: Any) -> "Run":
        """Train some shadows in a way and measure them; see `measured` for how."""
        way = WAYS[name]
        depth = self.depth(way)
        cut, packed, public, trunk_seconds = self.trunk(depth)
        frozen = Frozen(base=self.base, cut=cut, constants=public)

        def fit(data: TrainingData, settings: TrainingSettings, stream: Stream) -> Bank:
            own = dataclasses.replace(settings, depth=depth, lora_rank=way.rank)
            bank: Bank = train(data, own, frozen, stream).bank
            return bank

        return self.measured(packed, fit, recipe, trunk_seconds=trunk_seconds, **how)

    def measured(
        self,
        packed: Packed,
        fit: Callable[[TrainingData, TrainingSettings, Stream], Bank],
        recipe: Recipe,
        *,
        trunk_seconds: float,
        epsilon: float,
        seed: int,
        shadows: int,
        whole: bool,
        by_record: bool,
    ) -> "Run":
        """Train some shadows on these activations by `fit`, and measure them."""
        rng = np.random.default_rng([seed, 7])
        pool = rng.random(self.records.n_units) < POOL
        coins = rng.random((-(-shadows // 2), self.records.n_units)) < 0.5
        halves = np.stack([side for row in coins for side in (row, ~row)])[:shadows]
        members = (halves | whole)[:, self.records.units]
        inside, outside = (np.flatnonzero(rows) for rows in (pool[self.records.units], ~pool[self.records.units]))
        expected = max(1.0, (1.0 if whole else 0.5) * POOL * (len(self.records) if by_record else self.records.n_units))
        noise = 0.0 if math.isinf(epsilon) else calibrate_noise(
            target_epsilon=epsilon, delta=DELTA, sample_rate=recipe.sample_rate, steps=recipe.steps
        )  # fmt: skip
        settings = TrainingSettings(
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
        data = TrainingData(
            packed=packed.take(inside),
            labels=self.records.labels[inside],
            units=np.arange(len(inside))
            if by_record
            else np.unique(self.records.units[inside], return_inverse=True)[1],
            members=members[:, inside],
            n_classes=len(self.records.classes),
        )
        started = time.process_time()
        bank = fit(data, settings, lambda purpose, k: np.random.default_rng([seed, len(purpose), k]))
        cpu = time.process_time() - started
        told = log_probs(bank, packed).numpy().astype(np.float64)
        losses = -told[:, inside][:, np.arange(len(inside)), data.labels]
        return Run(
            utility=UtilityEvidence(
                log_probs=told[:, outside], labels=self.records.labels[outside], units=self.records.units[outside]
            ),
            membership=None if whole else MembershipEvidence(losses=losses, members=data.members, units=data.units),
            seconds=cpu,
            microseconds=1e6 * cpu / (data.members.sum() * recipe.sample_rate * recipe.steps),
            trunk_seconds=trunk_seconds,
        )


@dataclass(frozen=True, kw_only=True)
class Run:
    """What one training of four shadows gave; seconds are of processor time."""

    utility: UtilityEvidence
    membership: MembershipEvidence | None
    seconds: float
    microseconds: float
    trunk_seconds: float


def measured(run: Run, head: Run) -> dict[str, float]:
    """What one training is worth, each with its standard error, and its paired gain over the head alone."""
    two = run.utility.log_probs.shape[2] == 2
    found = {"accuracy": accuracy(run.utility)} | ({"auc": auc(run.utility)} if two else {})
    found |= {} if run.membership is None else {"attack_auc": attack_auc(run.membership)}
    out = {name: m.value for name, m in found.items()} | {f"{name}_se": m.stderr for name, m in found.items()}
    if two:
        out["gain"], out["gain_se"] = gain(run.utility, head.utility)
    return out | {"us": run.microseconds, "seconds": run.seconds, "trunk_seconds": run.trunk_seconds}


def over_seeds(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Means of rows that differ in their seed alone; standard errors of these means."""
    numbers = {n for n, v in rows[0].items() if isinstance(v, float)}
    out = {n: float(np.mean([r[n] for r in rows])) for n in numbers if not n.endswith("_se")}
    return out | {n: math.sqrt(sum(r[n] ** 2 for r in rows)) / len(rows) for n in numbers if n.endswith("_se")}


def rows_of(options: argparse.Namespace, kind: type[Bench]) -> Iterator[dict[str, Any]]:
    """Rows as they are measured, those that stand in the file left out."""
    started, done = time.monotonic(), [_key(r) for r in _read(options.out)]
    for data in options.data:
        model = options.model or MODELS[data]
        bench = kind(load_base(model), load_records(data, n_records=options.records), options.cache)
        heads: dict[tuple[float, int], Run] = {}
        halvings: list[int] = options.halvings or [0]
        rows = itertools.product(range(options.seeds), options.ways, options.epsilons, halvings)
        for seed, name, epsilon, times in rows:
            plain = math.isinf(epsilon)
            study = STUDY if options.halvings else {}
            recipe = dataclasses.replace(PLAIN if plain else PRIVATE, **study | _given(options))
            first, recipe = recipe.halved(halvings[0]), recipe.halved(times)
            how = {"epsilon": epsilon, "seed": seed, "shadows": options.shadows, "whole": options.whole}
            how["by_record"] = options.by_record
            asked = {"data": data, "model": model, "records": len(bench.records), "way": name, **how}
            row = asked | {"epsilon": str(epsilon), "recipe": dataclasses.asdict(recipe)}
            row |= {"halvings": times} if options.halvings else {}
            if _key(row) in done or time.monotonic() - started > 60 * options.minutes:
                continue
            if (epsilon, seed) not in heads:
                heads[epsilon, seed] = bench.run("head", first, **how)
            same = name == "head" and recipe == first
            run = heads[epsilon, seed] if same else bench.run(str(name), recipe, **how)
            row |= measured(run, heads[epsilon, seed])
            row["peak_gib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
            yield row


def _key(row: Mapping[str, Any]) -> dict[str, Any]:
    return {n: v for n, v in row.items() if not isinstance(v, float)}


def _given(options: argparse.Namespace) -> dict[str, float]:
    """Numbers of the recipe that the command line sets."""
    return {n: v for n in ("steps", "sample_rate", "learning_rate", "clip") if (v := getattr(options, n)) is not None}


def _read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def main(
    kind: type[Bench] = Bench, ways: Sequence[str] = tuple(WAYS), about: str | None = __doc__, out: str = "depth"
) -> None:
    """The command line over some ways.

    Args:
        kind: What trains them.
        ways: Their names; all are measured unless told otherwise.
        about: The help.
        out: Name of the file of results.
    """
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--data", nargs="+", choices=tuple(MODELS), default=["recommendation", "reviews"])
    parser.add_argument("--model", default="", help="in place of each data set's own")
    parser.add_argument("--records", type=int, default=0)
    parser.add_argument("--ways", nargs="+", choices=tuple(ways), default=list(ways))
    parser.add_argument("--epsilons", type=float, nargs="+", default=[math.inf, 8.0])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--shadows", type=int, default=4)
    parser.add_argument("--whole", action="store_true")
    parser.add_argument("--by-record", action="store_true", help="with --whole: the unit of privacy is the record")
    parser.add_argument("--halvings", type=int, nargs="+", help="of a trial's batches, each time with twice the steps")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--sample-rate", type=float)
    parser.add_argument("--learning-rate", type=float)
    parser.add_argument("--clip", type=float)
    parser.add_argument("--minutes", type=float, default=50)
    parser.add_argument("--out", type=Path, default=Path(f"build/{out}.jsonl"))
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "moo-benchmark-trunk")
    options = parser.parse_args()
    if options.by_record and not options.whole:
        parser.error("--by-record needs --whole: halves are drawn by user")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    for row in rows_of(options, kind):
        with options.out.open("a") as file:
            print(json.dumps(row), file=file)
        if options.json:
            print(json.dumps(row), flush=True)
        else:
            print(f"seed {row['seed']}: {_line(row, row)}", flush=True)
    if not options.json:
        _table(_read(options.out))


def _table(rows: list[dict[str, Any]]) -> None:
    """All that the file holds, means over seeds."""
    alike: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        alike.setdefault(json.dumps({**_key(row), "seed": None}), []).append(row)
    print()
    for same in alike.values():
        print(f"{len(same)} seeds, {_line(same[0], over_seeds(same))}")


def _line(row: Mapping[str, Any], numbers: Mapping[str, float]) -> str:
    told = [
        f"{n} {numbers[n]:.4f} ({numbers[f'{n}_se']:.4f})"
        for n in ("accuracy", "auc", "gain", "attack_auc")
        if n in numbers
    ]
    who = f"{row['shadows']} on {'all' if row['whole'] else 'halves'}" + (", by record" if row.get("by_record") else "")
    recipe = row["recipe"]
    steps = f"{recipe['steps']} x {recipe['sample_rate']:.3g}"
    return f"{row['data']}, {who}, eps {row['epsilon']}: {row['way']:22} {steps:12} {'  '.join(told)}  {numbers['us']:.0f} us"


if __name__ == "__main__":
    main()
