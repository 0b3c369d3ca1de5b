"""Attacks on shadows that are over-trained on purpose, on the real engine and real reviews.

python -m benchmarks.privacy.overtraining [--records 2100] [--pool 1000] [--epochs 60] [--rank 32] [--layers 1]
    [--rate 3e-3] [--keys 3]

The status quo of the default study:

python -m benchmarks.privacy.overtraining --records 4000 --pool 0 --epochs 12.5 --rank 8 --rate 1e-3

The attack should see the over-training, and find nothing in unseen records. Each key draws its own
split, halves, batches and initial factors.
"""

import argparse
import dataclasses
import math
import tempfile
import time
from pathlib import Path

import numpy as np

from moo.core.errors import InputError
from moo.core.evidence import TrialEvidence
from moo.core.trial_record import TrialParams
from moo.objectives.membership.attacks.registry import ATTACKS
from moo.objectives.membership.choice import possible
from moo.objectives.membership.risk import auc
from moo.privacy.keys import StudyKey
from moo.studies.setup.prepared import PreparedStudy, prepare_study
from moo.studies.spec.study import StudySpec, load_spec
from moo.studies.spec.training import TrainingSpec
from moo.studies.trial.plan import plan_trial
from moo.studies.trial.run import run_trial


def study(*, records: int, epochs: float, shadows: int) -> StudySpec:
    """Return the default study with `epochs` passes over a shadow's half."""
    training = TrainingSpec(n_shadows=shadows, steps=round(2 * epochs), sample_rate=0.5, target_delta=1e-5)
    return dataclasses.replace(load_spec("reviews"), n_records=records, training=training)


def with_pool(prepared: PreparedStudy, records: int) -> PreparedStudy:
    """Return the study with exactly `records` texts in its pool; 0 leaves it unchanged.

    The last customer's texts are cut short.

    Raises:
        InputError: If the pool is smaller.
    """
    pool = prepared.data.parts["pool"]
    if len(pool) < records:
        raise InputError("pool must be >= {records}, got {n} texts; raise --records.", records=records, n=len(pool))
    if not records:
        return prepared
    pool = pool.take(np.arange(records))
    parts = {**prepared.data.parts, "pool": pool}
    return prepared.on(dataclasses.replace(prepared.data, parts=parts, expected_units=max(1, pool.n_units // 2)))


def one(params: TrialParams, spec: StudySpec, pool: int, folder: Path) -> dict[str, float]:
    """Run a study under a fresh key, print every attack, and return the AUC of each by record."""
    prepared = with_pool(prepare_study(spec, StudyKey.load_or_create(folder / "study.key"), folder), pool)
    started = time.perf_counter()
    evidence = run_trial(plan_trial(params, prepared), prepared, number=0)
    sizes = " and ".join(str(e.losses.shape[1]) for e in (evidence.membership, evidence.unseen))
    print(f"\n{sizes} texts in the pool and unseen, {time.perf_counter() - started:.0f} s")
    return table(evidence)


def table(evidence: TrialEvidence) -> dict[str, float]:
    """Print one line per attack, and return its AUC by record."""
    print(f"{'attack':24}{'AUC by record':>18}{'by user':>18}{'null':>18}")
    found = {}
    for name in ATTACKS:
        if name not in possible(evidence.membership):
            continue
        measured = [
            auc(evidence.membership, attack=name),
            auc(evidence.membership, attack=name, level="user"),
            auc(evidence.unseen, attack=name),
        ]
        found[name] = measured[0].value
        print(f"{name:24}" + "".join(f"{m.value:>9.3f} +- {m.stderr:.3f}" for m in measured), flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=2100, help="read; some are dropped for want of consent")
    parser.add_argument("--pool", type=int, default=1000, help="texts in the pool; 0 takes the split's own")
    parser.add_argument("--epochs", type=float, default=60)
    parser.add_argument("--rank", type=int, default=32)
    parser.add_argument("--layers", type=int, default=1)
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--shadows", type=int, default=4)
    parser.add_argument("--keys", type=int, default=3)
    o = parser.parse_args()
    params = TrialParams(
        target_epsilon=math.inf, masking_level=0, lora_rank=o.rank, learning_rate=o.rate, adapted_layers=o.layers
    )
    spec = study(records=o.records, epochs=o.epochs, shadows=o.shadows)
    print(f"K = {o.shadows}; {o.epochs:g} epochs, rank {o.rank}, depth {o.layers}, learning rate {o.rate:g}")
    found = []
    for _ in range(o.keys):
        with tempfile.TemporaryDirectory() as folder:
            found.append(one(params, spec, o.pool, Path(folder)))
    for name in found[0]:
        print(
            f"{name:24}" + "".join(f"{f[name]:9.3f}" for f in found) + f"  mean {np.mean([f[name] for f in found]):.3f}"
        )
    least = min(f["pair_reference"] - f["loss"] for f in found)
    print(f"pair reference less plain loss, the least over the keys: {least:.3f}")


if __name__ == "__main__":
    main()
