"""Does depth pay? Accuracy, AUC, attack AUC and cost by depth, with and without DP, by the engine that trials use.

python -m benchmarks.depth [--data recommendation] [--model e5-small] [--records 0] [--ways head pooled ...] [--epsilons inf 8]
                           [--seeds 2] [--steps 25] [--json]

Every row trains the four shadows of a trial on complementary halves of the pool's users and tests on other users. A seed draws split,
halves and noise anew, the same for all rows, so that the gain over the head alone is paired: its standard error is over test users (of
the paired difference) and over shadows. Seconds are of processor time, so that other work on the machine changes them little; the trunk
is computed once and kept in --cache. Splits and noise come from fixed seeds here: for measurement, never for release.
"""

import argparse
import dataclasses
import json
import math
import resource
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moo.data import Records, load_records
from moo.evidence import MembershipEvidence, UtilityEvidence
from moo.models.activations import Packed
from moo.models.bank import Depth, Frozen
from moo.models.base_models import BaseModel, load_base
from moo.models.blocks import Cut, cut_of, n_blocks
from moo.models.cache import TrunkCache
from moo.models.dp import DPSettings
from moo.models.module import OptimizerSettings, log_probs
from moo.models.scaling import Constants, constants
from moo.models.training import TrainingData, TrainingSettings, train
from moo.objectives.membership.metrics import placements
from moo.objectives.membership.risk import auc as attack_auc
from moo.objectives.utility import accuracy, auc
from moo.privacy.accounting import calibrate_noise

POOL = 0.7  # share of users that the shadows are drawn from
SHADOWS, DELTA, ALL = 4, 1e-5, 99
Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Way:
    """A depth with its recipe; unset numbers are those of the command line."""

    depth: Depth
    rank: int = 8
    learning_rate: float = 1e-3
    feature_scale: float = 1.0  # of the adapted features beside the frozen mean
    optimizer: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)


WAYS = {
    "head": Way(depth=Depth()),
    "pooled": Way(depth=Depth(adapted_layers=1)),
    "1 query": Way(depth=Depth(adapted_layers=1, n_queries=1)),
    "1 query, 1 dropped": Way(depth=Depth(adapted_layers=1, n_queries=1, layers_dropped=1)),
    "1 query, 2 dropped": Way(depth=Depth(adapted_layers=1, n_queries=1, layers_dropped=2)),
    "4 queries, 2 dropped": Way(depth=Depth(adapted_layers=1, n_queries=4, layers_dropped=2)),
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

    def run(self, way: Way, *, epsilon: float, seed: int, steps: int, sample_rate: float, clip: float) -> "Run":
        """Train four shadows and measure them."""
        depth = self.depth(way)
        cut, packed, public, trunk_seconds = self.trunk(depth)
        rng = np.random.default_rng([seed, 7])
        pool = rng.random(self.records.n_units) < POOL
        coins = rng.random((SHADOWS // 2, self.records.n_units)) < 0.5
        members = np.stack([side for row in coins for side in (row, ~row)])[:, self.records.units]
        inside, outside = (np.flatnonzero(rows) for rows in (pool[self.records.units], ~pool[self.records.units]))
        expected = max(1.0, 0.5 * POOL * self.records.n_units)
        noise = 0.0 if math.isinf(epsilon) else calibrate_noise(
            target_epsilon=epsilon, delta=DELTA, sample_rate=sample_rate, steps=steps
        )  # fmt: skip
        settings = TrainingSettings(
            depth=depth,
            lora_rank=way.rank,
            lora_alpha=way.settings.get("lora_alpha", 16.0),
            sample_rate=sample_rate,
            steps=steps,
            dp=DPSettings(
                noise_multiplier=noise,
                max_grad_norm=clip if noise else math.inf,
                expected_batch_size=sample_rate * expected,
            ),
            optimizer=OptimizerSettings(learning_rate=way.learning_rate, **way.optimizer),
            accelerator="cpu",
            **{k: v for k, v in way.settings.items() if k != "lora_alpha"},
        )
        data = TrainingData(
            packed=packed.take(inside),
            labels=self.records.labels[inside],
            units=np.unique(self.records.units[inside], return_inverse=True)[1],
            members=members[:, inside],
            n_classes=len(self.records.classes),
        )
        quieter = dataclasses.replace(public, pooled_scale=public.pooled_scale * way.feature_scale)
        frozen = Frozen(base=self.base, cut=cut, constants=quieter)
        started = time.process_time()
        trained = train(data, settings, frozen, lambda purpose, k: np.random.default_rng([seed, len(purpose), k]))
        cpu = time.process_time() - started
        told = log_probs(trained.bank, packed).numpy().astype(np.float64)
        losses = -told[:, inside][:, np.arange(len(inside)), data.labels]
        return Run(
            utility=UtilityEvidence(
                log_probs=told[:, outside], labels=self.records.labels[outside], units=self.records.units[outside]
            ),
            membership=MembershipEvidence(losses=losses, members=data.members, units=data.units),
            seconds=cpu,
            microseconds=1e6 * cpu / (data.members.sum() * sample_rate * steps),
            trunk_seconds=trunk_seconds,
        )


@dataclass(frozen=True, kw_only=True)
class Run:
    """What one training of four shadows gave; seconds are of processor time."""

    utility: UtilityEvidence
    membership: MembershipEvidence
    seconds: float
    microseconds: float
    trunk_seconds: float


def summary(runs: Sequence[Run], heads: Sequence[Run]) -> dict[str, float]:
    """Means over seeds with standard errors, and the paired gain over the head alone."""
    two = runs[0].utility.log_probs.shape[2] == 2
    measured = {
        "accuracy": [accuracy(r.utility) for r in runs],
        "auc": [auc(r.utility) for r in runs] if two else [],
        "attack_auc": [attack_auc(r.membership) for r in runs],
    }
    out: dict[str, float] = {}
    for name, found in measured.items():
        if found:
            out[name] = float(np.mean([m.value for m in found]))
            out[f"{name}_se"] = math.sqrt(sum(m.stderr**2 for m in found)) / len(found)
    if two:
        pairs = [gain(r.utility, h.utility) for r, h in zip(runs, heads, strict=True)]
        out["auc_gain"] = float(np.mean([g for g, _ in pairs]))
        out["auc_gain_se"] = math.sqrt(sum(se**2 for _, se in pairs)) / len(pairs)
    out["seconds"] = float(np.mean([r.seconds for r in runs]))
    out["us_per_example_step"] = float(np.mean([r.microseconds for r in runs]))
    return out


def gain(mine: UtilityEvidence, other: UtilityEvidence) -> tuple[float, float]:
    """AUC minus AUC of the other on the same test records, and its standard error over users and shadows.

    Source:
        DeLong et al. 1988: the variance of a difference of AUCs through placements; summed by user, since a user's records depend.
    """
    apart = _aucs(mine) - _aucs(other)
    influence = np.mean(_influence(mine) - _influence(other), axis=0)
    by_user = np.bincount(np.unique(mine.units, return_inverse=True)[1], weights=influence)
    return float(apart.mean()), math.hypot(math.sqrt((by_user**2).sum()), apart.std(ddof=1) / math.sqrt(len(apart)))


def _placed(evidence: UtilityEvidence) -> Floats:
    """Placement of each test record under each shadow, shape (K, m)."""
    margins = evidence.log_probs[..., 1] - evidence.log_probs[..., 0]
    return np.array([placements(row, evidence.labels == 1) for row in margins], dtype=np.float64)


def _aucs(evidence: UtilityEvidence) -> Floats:
    out: Floats = _placed(evidence)[:, evidence.labels == 1].mean(1)
    return out


def _influence(evidence: UtilityEvidence) -> Floats:
    """What each record adds to the error of a shadow's AUC, shape (K, m)."""
    positive = evidence.labels == 1
    out: Floats = (_placed(evidence) - _aucs(evidence)[:, None]) / np.where(positive, positive.sum(), (~positive).sum())
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--data", default="recommendation")
    parser.add_argument("--model", default="e5-small")
    parser.add_argument("--records", type=int, default=0)
    parser.add_argument("--ways", nargs="+", choices=tuple(WAYS), default=list(WAYS))
    parser.add_argument("--epsilons", type=float, nargs="+", default=[math.inf, 8.0])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--sample-rate", type=float, default=0.5)
    parser.add_argument("--clip", type=float, default=0.3)
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "moo-benchmark-trunk")
    options = parser.parse_args()
    recipe = {"steps": options.steps, "sample_rate": options.sample_rate, "clip": options.clip}
    bench = Bench(load_base(options.model), load_records(options.data, n_records=options.records), options.cache)
    cases = [(e, s) for e in options.epsilons for s in range(options.seeds)]
    heads = {case: bench.run(WAYS["head"], epsilon=case[0], seed=case[1], **recipe) for case in cases}
    for name in options.ways:
        for epsilon in options.epsilons:
            mine = [c for c in cases if c[0] == epsilon]
            runs = [
                heads[c] if name == "head" else bench.run(WAYS[name], epsilon=c[0], seed=c[1], **recipe) for c in mine
            ]
            row = {"way": name, "epsilon": str(epsilon), **summary(runs, [heads[c] for c in mine])}
            row |= {
                "trunk_seconds": runs[0].trunk_seconds,
                "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
            }
            _show(row, as_json=options.json)


def _show(row: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(row), flush=True)
        return
    told = "  ".join(f"{k} {v:.4g}" for k, v in row.items() if isinstance(v, float))
    print(f"{row['way']:22} eps {row['epsilon']:4} {told}", flush=True)


if __name__ == "__main__":
    main()
