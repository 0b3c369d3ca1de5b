"""Membership risk with references from one shared pool, against fresh populations.

python -m benchmarks.privacy.population [--studies 200] [--shadows 4 8] [--settings weak strong private] [--share .05]

A study trains K shadows on halves of one pool, in complementary pairs, so the references of an
attack hold the same records as its target. Here logistic heads on features of two normal classes
are trained in this way, and attacked with references from fresh populations as well. In all three
columns every target is trained on a random sample of the population; its members are that sample,
its non-members are other records of the population.

- halves: our estimate. References are the other pairs' shadows, halves of the target's own pool.
- unseen: the same targets and records, with as many references, in pairs on fresh pools in which no
  scored record is.
- added: references on fresh pools to which the scored records, a `--share` of the pool, are added
  by coins; targets likewise. The attack is that of the first column (half of its references saw the
  record), with a twentieth of the pool in common.

The attack "loss" has no references and must show no difference. The differences of the mean
advantage follow, halves less each of the others, with their standard errors in brackets, and the
standard error that a single study states. ADR 22 defines the advantage of the first column.
"""

import argparse
import math
from dataclasses import dataclass

import numpy as np

from moo.core.evidence import Bools, Floats, MembershipEvidence
from moo.objectives.membership.attacks.registry import attack_scores
from moo.objectives.membership.risk import membership_risk
from moo.objectives.membership.uncertainty import shadow_aucs

ATTACKS = ("pair_reference", "lira_offline", "loss")


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Population, pool and training.

    Attributes:
        pool: Records of a pool; a shadow trains on half.
        dims: Features of a record.
        steps: Steps of full-batch gradient descent, with momentum .9.
        rate: Step size.
        distance: Distance of the two classes' means, in standard deviations.
        noise: Noise multiplier, with gradients clipped at 1; 0 trains without either.
    """

    pool: int = 400
    dims: int = 48
    steps: int = 40
    rate: float = 0.2
    distance: float = 2.0
    noise: float = 0.0


SETTINGS = {
    "weak": Setting(dims=24),
    "strong": Setting(dims=96, steps=60),
    "private": Setting(dims=96, noise=4.0, rate=0.5),
}


@dataclass(frozen=True)
class Records:
    """Records of a population.

    Attributes:
        features: Shape (n, dims).
        signs: Sign of the class, shape (n,).
    """

    features: Floats
    signs: Floats

    def __add__(self, other: "Records") -> "Records":
        return Records(np.concatenate([self.features, other.features]), np.concatenate([self.signs, other.signs]))


def draw(rng: np.random.Generator, n: int, at: Setting) -> Records:
    """Draw n records of the population."""
    signs = rng.choice(np.array([-1.0, 1.0], dtype=np.float32), n)
    features = rng.standard_normal((n, at.dims), dtype=np.float32)
    features[:, 0] += signs * at.distance / 2
    return Records(features, signs)


def coins(rng: np.random.Generator, n: int, pairs: int = 1) -> Bools:
    """Return complementary halves by coins, shape (2 x pairs, n)."""
    rows = rng.random((pairs, n)) < 0.5
    return np.stack([rows, ~rows], axis=1).reshape(2 * pairs, n)


def trained(rng: np.random.Generator, records: Records, members: Bools, at: Setting) -> Floats:
    """Train a head on each row of `members` (shape (k, n)) and return its weights, shape (dims, k)."""
    signs, inside = records.signs[:, None], members.T.astype(np.float32)
    norms = np.linalg.norm(records.features, axis=1, keepdims=True)
    weights: Floats = np.zeros((at.dims, len(members)), dtype=np.float32)
    velocity: Floats = np.zeros_like(weights)
    for _ in range(at.steps):
        slopes: Floats = -signs / (1.0 + np.exp(signs * (records.features @ weights)))
        if at.noise:
            slopes = slopes * np.minimum(1.0, 1.0 / (np.abs(slopes) * norms))
        total = records.features.T @ (slopes * inside)
        total += at.noise * rng.standard_normal(total.shape, dtype=np.float32)
        velocity = 0.9 * velocity + total / (at.pool / 2)
        weights = weights - at.rate * velocity
    return weights


def losses(records: Records, weights: Floats) -> Floats:
    """Return the loss of each head on each record in nats, shape (k, n)."""
    found: Floats = np.logaddexp(0.0, -records.signs[:, None] * (records.features @ weights)).T.astype(float)
    return found


def evidence(found: Floats, members: Bools) -> MembershipEvidence:
    return MembershipEvidence(losses=found, members=members, units=np.arange(members.shape[1]))


def halves_and_unseen(rng: np.random.Generator, k: int, at: Setting) -> Floats:
    """Run one study, and attack its targets with references that share nothing with them.

    Returns:
        Shape (3, attacks): our advantage, its standard error, the advantage under fresh references.
    """
    pool = draw(rng, at.pool, at)
    members = coins(rng, at.pool, k // 2)
    own = losses(pool, trained(rng, pool, members, at))
    fresh = []
    for _ in range(k // 2 - 1):
        other = draw(rng, at.pool, at)
        fresh.append(losses(pool, trained(rng, other, coins(rng, at.pool), at)))
    out = np.empty((3, len(ATTACKS)))
    for i, attack in enumerate(ATTACKS):
        risk = membership_risk(evidence(own, members), attack, private=bool(at.noise))
        areas = []
        for first in range(0, k, 2):
            pair = members[first : first + 2]
            # the other rows' sides only say which references an offline attack takes: no record is in any of them
            sides = np.concatenate([pair, coins(rng, at.pool, k // 2 - 1)])
            scores = attack_scores(evidence(np.concatenate([own[first : first + 2], *fresh]), sides), attack)
            areas.append(shadow_aucs(scores[:2], pair).mean())
        out[:, i] = risk.value, risk.stderr, 2 * np.mean(areas) - 1
    return out


def added(rng: np.random.Generator, k: int, at: Setting, share: float) -> Floats:
    """Return our advantage where pairs share only their scored records, shape (attacks,)."""
    scored = draw(rng, round(share * at.pool), at)
    n = len(scored.signs)
    rows, sides = [], []
    for _ in range(k // 2):
        pool = scored + draw(rng, at.pool - n, at)
        members = coins(rng, at.pool)
        rows.append(losses(scored, trained(rng, pool, members, at)))
        sides.append(members[:, :n])
    seen = evidence(np.concatenate(rows), np.concatenate(sides))
    return np.array([membership_risk(seen, attack).value for attack in ATTACKS])


@dataclass(frozen=True, kw_only=True)
class Bias:
    """Mean advantages over studies and their differences, each with its standard error.

    Attributes:
        halves, unseen, added: Columns of the module's docstring.
        over_unseen, over_added: Halves less the other column.
        stated: Standard error that a single study states, root of the mean square.
    """

    halves: tuple[float, float]
    unseen: tuple[float, float]
    added: tuple[float, float]
    over_unseen: tuple[float, float]
    over_added: tuple[float, float]
    stated: float


def biases(at: Setting, *, k: int, studies: int, share: float, seed: int = 0) -> dict[str, Bias]:
    """Measure every attack; `added` scores few records a study, so it takes studies in proportion."""
    rng = np.random.default_rng([seed, k])
    both = np.stack([halves_and_unseen(rng, k, at) for _ in range(studies)])
    apart = np.stack([added(rng, k, at, share) for _ in range(round(studies / share / 2))])
    found = {}
    for i, attack in enumerate(ATTACKS):
        ours, stated, unseen = both[:, :, i].T
        one, other = mean(ours), mean(apart[:, i])
        found[attack] = Bias(
            halves=one,
            unseen=mean(unseen),
            added=other,
            over_unseen=mean(ours - unseen),
            over_added=(one[0] - other[0], math.hypot(one[1], other[1])),
            stated=math.sqrt((stated**2).mean()),
        )
    return found


def mean(values: Floats) -> tuple[float, float]:
    """Return mean and standard error."""
    return float(values.mean()), float(values.std(ddof=1) / math.sqrt(len(values)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=200)
    parser.add_argument("--shadows", type=int, nargs="+", default=[4, 8])
    parser.add_argument("--settings", nargs="+", choices=tuple(SETTINGS), default=list(SETTINGS))
    parser.add_argument("--share", type=float, default=0.05)
    options = parser.parse_args()
    print(
        f"{'setting':9}{'K':>3} {'attack':15}{'halves':>8}{'unseen':>8}{'added':>8}"
        f"{'- unseen':>17}{'- added':>17}{'stated':>8}"
    )
    for name in options.settings:
        for k in options.shadows:
            for attack, b in biases(SETTINGS[name], k=k, studies=options.studies, share=options.share).items():
                gaps = "".join(f"{d:+9.4f} ({e:.4f})" for d, e in (b.over_unseen, b.over_added))
                print(
                    f"{name:9}{k:3} {attack:15}{b.halves[0]:8.3f}{b.unseen[0]:8.3f}{b.added[0]:8.3f}"
                    f"{gaps}{b.stated:8.4f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
