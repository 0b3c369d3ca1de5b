"""Membership attacks on simulated shadows: bias, spread, coverage, power and speed.

python -m benchmarks.privacy.risk [--seeds 100] [--sides 500 2000] [--shadows 4 8 16]
    [--noise gaussian skewed] [--effects 0 .3 1] [--attacks loss ...] [--speed]

The truth of an attack is known: its AUC at the same K: in closed form where there is one, else the
mean over separate studies, each with a separate population, none of them among the studies judged.
`+-t` is its standard error, which has to be small compared with `sd`. Power is also given per
trained shadow.
"""

import argparse
import itertools
import math
import time
from collections.abc import Callable

import numpy as np
from scipy.stats import norm

from moo.core.evidence import Bools, Floats, MembershipEvidence, Population
from moo.objectives.membership import choice, risk
from moo.objectives.membership.attacks.registry import ATTACKS, attack_scores

POPULATION, TRUTH_STUDIES, TRUTH_RECORDS, EFFECTS = 400, 150, 4000, (0.0, 0.3, 1.0)
Draw = Callable[[np.random.Generator, int, Bools, float], tuple[Floats, Floats]]


def gaussian(rng: np.random.Generator, k: int, members: Bools, effect: float) -> tuple[Floats, Floats]:
    """Draw logit confidences that are normal over texts and trainings.

    A member's is `effect` standard deviations of a training higher.
    """
    hard = rng.normal(1.0, 1.0, members.shape[1])
    logits = hard + 0.5 * rng.normal(size=(k, members.shape[1])) + 0.5 * effect * members
    return np.logaddexp(0.0, -logits), np.logaddexp(0.0, -hard)


def skewed(rng: np.random.Generator, k: int, members: Bools, effect: float) -> tuple[Floats, Floats]:
    """Draw losses with skewed noise and a leak on each text's own scale.

    The place of the leak through the label matters to an attack that can use it.
    """
    n = members.shape[1]
    hard, scale = rng.gamma(0.5, 2.0, n), 0.3 * rng.lognormal(0.0, 1.0, n)
    losses = hard + scale * rng.gamma(1.0, 1.0, (k, n)) - effect * scale * members
    return np.maximum(losses, 1e-3), hard + 0.05


NOISES: dict[str, Draw] = {"gaussian": gaussian, "skewed": skewed}


def evidence(draw: Draw, seed: int, *, k: int, records: int, effect: float) -> MembershipEvidence:
    """Return a whole K x n matrix of one study, each record its own unit."""
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


def measured(e: MembershipEvidence, name: str) -> tuple[float, float, float, str]:
    """Return AUC, standard error, 95 % half-width and name of an attack, or of the one chosen."""
    if name == choice.CHOSEN:
        chosen = choice.choose(e)
        e, name = chosen.evidence, chosen.attack
    area = risk.auc(e, attack=name)
    return area.value, area.stderr, area.half, name


def closed_form(noise: str, attack: str, *, k: int, effect: float) -> float | None:
    """Return the true AUC where both sides' scores are normal; None elsewhere.

    That is for `gaussian`'s logits, alone or less a mean of K/2 - 1 of them.
    """
    variance = {"loss": 1.0 + 0.25, "lira_offline": 0.25 + 0.25 / (k / 2 - 1)}.get(attack)
    if not effect:
        return 0.5
    return None if variance is None or noise != "gaussian" else float(norm.cdf(0.5 * effect / math.sqrt(2 * variance)))


def truths(noise: str, *, k: int, effect: float, attacks: list[str]) -> dict[str, tuple[float, float]]:
    """Return the true AUC of each attack, and its standard error."""
    known = {a: (v, 0.0) for a in attacks if (v := closed_form(noise, a, k=k, effect=effect)) is not None}
    open_ones = [a for a in attacks if a not in known]
    if not open_ones:
        return known
    studies = (
        evidence(NOISES[noise], 10**6 + s, k=k, records=TRUTH_RECORDS, effect=effect) for s in range(TRUTH_STUDIES)
    )
    found = np.array([[measured(e, a)[0] for a in open_ones] for e in studies])
    errors = found.std(axis=0, ddof=1) / math.sqrt(TRUTH_STUDIES)
    return known | dict(zip(open_ones, zip(found.mean(axis=0), errors, strict=True), strict=True))


def table(
    noise: str, names: list[str], truth: dict[str, tuple[float, float]], *, k: int, side: int, effect: float, seeds: int
) -> None:
    """Print one line per attack.

    The attack chosen on one half has the truth of the attack that was chosen in each study.
    """
    draws = (evidence(NOISES[noise], s, k=k, records=2 * side, effect=effect) for s in range(seeds))
    found = [[measured(e, a) for a in names] for e in draws]
    print(f"\n{noise}, effect {effect:g}, K = {k}, {side} a side, {seeds} studies")
    print(
        f"{'attack':24}{'truth':>8}{'+-t':>8}{'bias':>9}{'+-':>8}{'sd':>8}{'stderr':>8}"
        f"{'cover':>7}{'power':>7}{'z^2/K':>8}"
    )
    for i, attack in enumerate(names):
        values, errors, halves = (np.array([row[i][part] for row in found], dtype=float) for part in (0, 1, 2))
        true = np.array([truth[row[i][3]][0] for row in found])
        doubt = float(np.mean([truth[row[i][3]][1] for row in found]))
        off, sd = values - true, values.std(ddof=1)
        covered = (np.abs(off) <= halves).mean()
        power = (values - 1.645 * errors > 0.5).mean()
        per_shadow = ((values.mean() - 0.5) / sd) ** 2 / k if effect else 0.0
        print(
            f"{attack:24}{true.mean():8.4f}{doubt:8.4f}{off.mean():+9.4f}{off.std(ddof=1) / math.sqrt(seeds):8.4f}"
            f"{sd:8.4f}{math.sqrt((errors**2).mean()):8.4f}{covered:7.3f}{power:7.2f}{per_shadow:8.2f}",
            flush=True,
        )


def speed() -> None:
    """Print seconds of 10,000 targets x 16 shadows: scores, and the AUC with its standard error."""
    e = evidence(skewed, 0, k=16, records=10_000, effect=0.3)
    print("\n10,000 targets x 16 shadows, seconds\nattack                   scores  AUC and stderr")
    for name in ATTACKS:
        started = time.perf_counter()
        attack_scores(e, name)
        scored = time.perf_counter()
        risk.auc(e, attack=name)
        print(f"{name:24}{scored - started:7.3f}{time.perf_counter() - scored:16.3f}")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--seeds", type=int, default=100)
    options.add_argument("--sides", type=int, nargs="+", default=[500, 2000])
    options.add_argument("--shadows", type=int, nargs="+", default=[4, 8, 16])
    options.add_argument("--noise", nargs="+", choices=tuple(NOISES), default=list(NOISES))
    options.add_argument("--effects", type=float, nargs="+", default=list(EFFECTS))
    options.add_argument("--attacks", nargs="+", choices=(*ATTACKS, choice.CHOSEN), default=[*ATTACKS, choice.CHOSEN])
    options.add_argument("--speed", action="store_true", help="speed alone")
    chosen = options.parse_args()
    if not chosen.speed:
        for noise, effect, k in itertools.product(chosen.noise, chosen.effects, chosen.shadows):
            attacks = [a for a in chosen.attacks if a != choice.CHOSEN and ATTACKS[a].min_shadows <= k]
            truth = truths(noise, k=k, effect=effect, attacks=attacks)
            for side in chosen.sides:
                names = attacks + [choice.CHOSEN] * (choice.CHOSEN in chosen.attacks)
                table(noise, names, truth, k=k, side=side, effect=effect, seeds=chosen.seeds)
    speed()


if __name__ == "__main__":
    main()
