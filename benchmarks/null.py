"""Does the attack's interval cover one half where there is nothing to find: trained shadows, records that none of them saw.

python -m benchmarks.null [--studies 200] [--pool 1000] [--unseen 600]

Each study trains four shadows without DP on halves of its own of the pool, and scores other reviews, whose membership is a coin that no
training saw. The head alone is trained, so that hundreds of studies take minutes; texts and their losses are real. Studies share texts.
"""

import argparse
import dataclasses
import math

import numpy as np

from benchmarks.handwritten import Recipe
from benchmarks.setting import by_engine, pairs, ready
from moo.evidence import MembershipEvidence
from moo.models.module import log_probs
from moo.objectives.membership.risk import auc

ATTACKS = ("pair_reference", "loss", "base", "lira_offline")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("studies", 200), ("pool", 1000), ("unseen", 600)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    n, m = options.pool, options.unseen
    recipe = Recipe(layers=1, steps=25, sample_rate=0.5, max_grad_norm=math.inf, expected_batch_size=n / 4)
    at = ready(4 * (n + m), recipe)
    recipe = dataclasses.replace(recipe, layers=0)
    rng = np.random.default_rng(0)
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in ATTACKS}
    for study in range(options.studies):
        rows = rng.permutation(len(at.labels))[: n + m]
        own = dataclasses.replace(at, labels=at.labels[rows], packed=at.packed.take(rows))
        bank = by_engine(own, recipe, pairs(n, seed=2 * study), study).bank
        told = log_probs(bank, own.packed).numpy()[:, n:]
        losses = -np.take_along_axis(told, own.labels[None, n:, None], axis=2)[..., 0].astype(float)
        evidence = MembershipEvidence(losses=losses, members=pairs(m, seed=2 * study + 1), units=np.arange(m))
        for name, values in found.items():
            area = auc(evidence, attack=name)
            values.append((area.value, area.stderr))
    for name, values in found.items():
        area, error = np.array(values).T
        covered = np.abs(area - 0.5) <= 1.96 * error
        print(
            f"{name:16} mean AUC {area.mean():.4f} (stderr {area.std(ddof=1) / len(area) ** 0.5:.4f})  "
            f"95 % intervals cover .5 in {covered.mean():.3f} of {len(area)}"
        )


if __name__ == "__main__":
    main()
