"""Every membership attack on simulated shadows with known truth: bias, spread, coverage, power for each shadow trained, speed.

python -m benchmarks.risk [--seeds 100] [--side 500] [--shadows 4 8 16] [--noise gaussian skewed] [--effects 0 .3 1] [--speed]
"""

import argparse
import math
import time
from collections.abc import Callable

import numpy as np

from moo.evidence import Bools, Floats, MembershipEvidence, Population
from moo.objectives.membership import choice, risk
from moo.objectives.membership.attacks import ATTACKS, attack_scores

POPULATION, TRUTH_RECORDS, EFFECTS = 400, 60_000, (0.0, 0.3, 1.0)
Draw = Callable[[np.random.Generator, int, Bools, float], tuple[Floats, Floats]]


def gaussian(rng: np.random.Generator, k: int, members: Bools, effect: float) -> tuple[Floats, Floats]:
    """Logit confidences that are normal over texts and trainings; a member's lies `effect` standard deviations of a training higher."""
    hard = rng.normal(1.0, 1.0, members.shape[1])
    logits = hard + 0.5 * rng.normal(size=(k, members.shape[1])) + 0.5 * effect * members
    return np.logaddexp(0.0, -logits), np.logaddexp(0.0, -hard)


def skewed(rng: np.random.Generator, k: int, members: Bools, effect: float) -> tuple[Floats, Floats]:
    """Losses with skewed noise and a leak on a scale of each text's own: where the label leaks through counts if it can."""
    n = members.shape[1]
    hard, scale = rng.gamma(0.5, 2.0, n), 0.3 * rng.lognormal(0.0, 1.0, n)
    losses = hard + scale * rng.gamma(1.0, 1.0, (k, n)) - effect * scale * members
    return np.maximum(losses, 1e-3), hard + 0.05


NOISES: dict[str, Draw] = {"gaussian": gaussian, "skewed": skewed}


def evidence(draw: Draw, seed: int, *, k: int, records: int, effect: float) -> MembershipEvidence:
    """A whole K x n matrix of one study, each record a unit of its own."""
    rng = np.random.default_rng(seed)
    members = np.stack([side for row in rng.random((k // 2, records)) < 0.5 for side in (row, ~row)])
    losses, hardness = draw(rng, k, members, effect)
    others, others_hardness = draw(rng, k, np.zeros((k, POPULATION), dtype=bool), effect)
    return MembershipEvidence(
        losses=losses,
        members=members,
        units=np.arange(records),
        base_losses=hardness,
        population=Population(losses=others, base_losses=others_hardness),
    )


def measured(e: MembershipEvidence, name: str) -> tuple[float, float]:
    """AUC and standard error of an attack by name, or of the one chosen on half of the records."""
    if name == choice.CHOSEN:
        chosen = choice.choose(e)
        e, name = chosen.evidence, chosen.attack
    area = risk.auc(e, attack=name)
    return area.value, area.stderr


def table(name: str, draw: Draw, *, k: int, side: int, effect: float, seeds: int) -> None:
    """Prints one line an attack."""
    names = [a for a in (*ATTACKS, choice.CHOSEN) if a == choice.CHOSEN or ATTACKS[a].min_shadows <= k]
    found = np.array(
        [
            [measured(e, a) for a in names]
            for e in (evidence(draw, s, k=k, records=2 * side, effect=effect) for s in range(seeds))
        ]
    )
    large = evidence(draw, 10**6, k=k, records=TRUTH_RECORDS, effect=effect)
    print(f"\n{name}, effect {effect:g}, K = {k}, {side} a side, {seeds} studies")
    print(f"{'attack':24}{'truth':>8}{'bias':>9}{'+-':>8}{'sd':>8}{'stderr':>8}{'cover':>7}{'power':>7}{'z^2/K':>8}")
    for i, attack in enumerate(names):
        values, errors = found[:, i, 0], found[:, i, 1]
        truth = 0.5 if not effect else measured(large, attack)[0]
        sd = values.std(ddof=1)
        covered = (np.abs(values - truth) <= 1.96 * errors).mean()
        power = (values - 1.645 * errors > 0.5).mean()
        per_shadow = ((values.mean() - 0.5) / sd) ** 2 / k if effect else 0.0
        print(
            f"{attack:24}{truth:8.3f}{values.mean() - truth:+9.4f}{sd / math.sqrt(seeds):8.4f}{sd:8.4f}{errors.mean():8.4f}"
            f"{covered:7.2f}{power:7.2f}{per_shadow:8.2f}",
            flush=True,
        )


def speed() -> None:
    """Seconds of 10,000 targets x 16 shadows: scores, and the AUC with its standard error."""
    e = evidence(skewed, 0, k=16, records=10_000, effect=0.3)
    print("\n10,000 targets x 16 shadows, seconds\nattack                   scores  AUC and stderr")
    for name in ATTACKS:
        started = time.perf_counter()
        attack_scores(e, name)
        scored = time.perf_counter()
        risk.auc(e, attack=name)
        print(f"{name:24}{scored - started:7.3f}{time.perf_counter() - scored:16.3f}")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--seeds", type=int, default=100)
    options.add_argument("--side", type=int, default=500)
    options.add_argument("--shadows", type=int, nargs="+", default=[4, 8, 16])
    options.add_argument("--noise", nargs="+", choices=tuple(NOISES), default=list(NOISES))
    options.add_argument("--effects", type=float, nargs="+", default=list(EFFECTS))
    options.add_argument("--speed", action="store_true", help="speed alone")
    chosen = options.parse_args()
    if not chosen.speed:
        for name in chosen.noise:
            for effect in chosen.effects:
                for k in chosen.shadows:
                    table(name, NOISES[name], k=k, side=chosen.side, effect=effect, seeds=chosen.seeds)
    speed()


if __name__ == "__main__":
    main()
