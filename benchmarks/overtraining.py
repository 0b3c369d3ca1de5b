"""Shadows that are over-trained on purpose, on the real engine and real reviews: does the attack see it, and a null stay a null?

python -m benchmarks.overtraining [--records 1600] [--epochs 60] [--rank 32] [--layers 1] [--rate 3e-3] [--folder build/over]
python -m benchmarks.overtraining --records 4000 --epochs 12.5 --rank 8 --rate 1e-3   # the status quo of the default study
"""

import argparse
import dataclasses
import math
import tempfile
import time
from pathlib import Path

from moo.objectives.membership.attacks import ATTACKS
from moo.objectives.membership.choice import possible
from moo.objectives.membership.risk import auc
from moo.privacy.keys import StudyKey
from moo.records import TrialParams
from moo.studies.base import StudySpec, TrainingSpec, load_spec
from moo.studies.prepare import Prepared
from moo.studies.trial import run_trial


def study(*, records: int, epochs: float, shadows: int) -> StudySpec:
    """The default study, with as many passes over a shadow's half as asked for."""
    training = TrainingSpec(n_shadows=shadows, steps=round(2 * epochs), sample_rate=0.5, target_delta=1e-5)
    return dataclasses.replace(load_spec("reviews"), n_records=records, training=training)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=1600)
    parser.add_argument("--epochs", type=float, default=60)
    parser.add_argument("--rank", type=int, default=32)
    parser.add_argument("--layers", type=int, default=1)
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--shadows", type=int, default=4)
    parser.add_argument("--folder", type=Path, help="keeps key and activations for the next call")
    o = parser.parse_args()
    params = TrialParams(
        target_epsilon=math.inf, masking_level=0, lora_rank=o.rank, learning_rate=o.rate, adapted_layers=o.layers
    )
    with tempfile.TemporaryDirectory() as folder:
        home = o.folder or Path(folder)
        home.mkdir(parents=True, exist_ok=True)
        key = StudyKey.load_or_create(home / "study.key")
        prepared = Prepared(study(records=o.records, epochs=o.epochs, shadows=o.shadows), key, home)
        started = time.perf_counter()
        evidence = run_trial(params, prepared, number=0)
    texts = evidence.membership.losses.shape[1]
    print(
        f"{texts} texts in the pool, half of them in each of K = {o.shadows}; {o.epochs:g} epochs, rank {o.rank}, depth {o.layers}, "
        f"learning rate {o.rate:g}; {time.perf_counter() - started:.0f} s"
    )
    print(f"{'attack':24}{'AUC by record':>18}{'by user':>18}{'null':>18}")
    for name in ATTACKS:
        if name not in possible(evidence.membership):
            continue
        measured = [
            auc(evidence.membership, attack=name),
            auc(evidence.membership, attack=name, level="user"),
            auc(evidence.unseen, attack=name),
        ]
        print(f"{name:24}" + "".join(f"{m.value:>9.3f} +- {m.stderr:.3f}" for m in measured))


if __name__ == "__main__":
    main()
