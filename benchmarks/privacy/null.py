"""Coverage of the attack's interval where nothing can be found: records that no shadow saw.

python -m benchmarks.privacy.null [--studies 200] [--pool 1000] [--unseen 600] [--shadows 4] [--noise 0]

Each study trains its shadows, without DP or with gradients clipped at 1 and noise of --noise times
that, on its own halves of the pool, and scores other reviews, with a coin that no training saw as
their membership. The interval should cover one half. The head alone is trained, so that hundreds of
studies take minutes; texts and their losses are real. Studies share texts. Their own pool is
attacked as well; its truth is the mean over the studies.
"""

import argparse
import dataclasses
import math

import numpy as np

from benchmarks.engine.handwritten import Recipe
from benchmarks.setting import by_engine, pairs, ready
from moo.core.evidence import MembershipEvidence
from moo.models.bank.lightning_module import log_probs
from moo.objectives.membership.risk import auc

ATTACKS = ("pair_reference", "loss", "base", "lira_offline")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("studies", 200), ("pool", 1000), ("unseen", 600), ("shadows", 4)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--noise", type=float, default=0.0, help="noise multiplier; 0 trains without DP")
    options = parser.parse_args()
    n, m, k = options.pool, options.unseen, options.shadows
    recipe = Recipe(
        layers=1,
        steps=25,
        sample_rate=0.5,
        max_grad_norm=1.0 if options.noise else math.inf,
        noise_multiplier=options.noise,
        expected_batch_size=n / 4,
    )
    at = ready(4 * (n + m), recipe)
    recipe = dataclasses.replace(recipe, layers=0)
    rng = np.random.default_rng(0)
    found = {(part, name): np.empty((options.studies, 4)) for part in ("unseen", "pool") for name in ATTACKS}
    right = []
    for study in range(options.studies):
        rows = rng.permutation(len(at.labels))[: n + m]
        own = dataclasses.replace(at, labels=at.labels[rows], packed=at.packed.take(rows))
        halves, coins = pairs(n, seed=2 * study, shadows=k), pairs(m, seed=2 * study + 1, shadows=k)
        outputs = log_probs(by_engine(own, recipe, halves, study).bank, own.packed).numpy()
        right.append((outputs[:, n:].argmax(axis=2) == own.labels[n:]).mean())
        losses = -np.take_along_axis(outputs, own.labels[None, :, None], axis=2)[..., 0].astype(float)
        for part, here, members in (("unseen", losses[:, n:], coins), ("pool", losses[:, :n], halves)):
            evidence = MembershipEvidence(losses=here, members=members, units=np.arange(members.shape[1]))
            for name in ATTACKS:
                area = auc(evidence, attack=name, private=bool(options.noise) or part == "unseen")
                found[part, name][study] = area.value, area.stderr, area.half, area.upper
    print(
        f"K = {k}; shadows are right on {np.mean(right):.3f} of the unseen records (untrained ones would be all ties)"
    )
    for (part, name), values in found.items():
        area, error, half, upper = values.T
        truth = 0.5 if part == "unseen" else area.mean()
        covered, below = (np.abs(area - truth) <= half).mean(), (truth <= upper).mean()
        print(
            f"{part:7} {name:15} mean AUC {area.mean():.4f}, standard deviation {area.std(ddof=1):.4f}, "
            f"mean squared stderr^.5 {np.sqrt((error**2).mean()):.4f}; 95 % intervals cover {truth:.3f} in "
            f"{covered:.3f} of {len(area)}, upper bounds in {below:.3f}"
        )


if __name__ == "__main__":
    main()
