"""Permutation test of a leak: the attack's AUC under permuted rows of the membership matrix."""

import dataclasses
import itertools
import math
from collections.abc import Iterator

import numpy as np

from moo.core import validate
from moo.core.evidence import Floats, Ints, MembershipEvidence
from moo.objectives.membership.risk import Level, scored
from moo.objectives.membership.uncertainty import Attack, shadow_aucs


def row_permutations(n_pairs: int, n_draws: int, rng: np.random.Generator) -> Iterator[Ints]:
    """Return orders of the 2 x n_pairs rows that keep pairs together.

    All of them if they are at most n_draws, else as many draws.

    Pairs change places with pairs, and the two halves of a pair with each other: n_pairs! x
    2^n_pairs orders, 8 at K = 4 and 384 at K = 8. The order that changes nothing is among them when
    all are listed.
    """
    if math.factorial(n_pairs) * 2**n_pairs <= n_draws:
        for order in itertools.permutations(range(n_pairs)):
            for swap in itertools.product((0, 1), repeat=n_pairs):
                yield _rows(2 * np.array(order) + np.array(swap))
        return
    for _ in range(n_draws):
        yield _rows(2 * rng.permutation(n_pairs) + rng.integers(0, 2, n_pairs))


def _rows(first: Ints) -> Ints:
    rows: Ints = np.stack([first, first ^ 1], axis=1).reshape(-1)
    return rows


def permutation_null(
    evidence: MembershipEvidence,
    attack: Attack,
    n_draws: int,
    rng: np.random.Generator,
    *,
    level: Level = "record",
) -> Floats:
    """Return the mean AUC of an attack under permuted rows of the membership matrix.

    Pairs are kept.

    Where nothing leaks, every such matrix was as likely as the true one. The attack is run again on
    each, since its references depend on the matrix. Rows move whole, so that what the records of
    one training have in common stays together.

    Args:
        evidence: Losses, membership and units.
        attack: From evidence to scores of shape (K, n).
        n_draws: Permutations at most; see `row_permutations`.
        rng: Their source.
        level: As in `auc`.

    Returns:
        Shape (n_draws,), or shorter where there are fewer permutations.

    Raises:
        InputError: If n_draws < 1.
    """
    validate.in_range(1, 10**9, n_draws=n_draws)
    values = []
    for rows in row_permutations(len(evidence.members) // 2, n_draws, rng):
        shuffled = dataclasses.replace(evidence, members=evidence.members[rows])
        values.append(shadow_aucs(*scored(shuffled, attack, level)[:2]).mean())
    return np.array(values)


def permutation_p_value(
    evidence: MembershipEvidence,
    attack: Attack,
    *,
    n_draws: int = 999,
    rng: np.random.Generator | None = None,
    level: Level = "record",
) -> float:
    """Return the p-value of an AUC where nothing leaks; exact if all permutations were listed.

    The smallest there can be is 1/8 at K = 4, 1/384 at K = 8 and 1 / (n_draws + 1) beyond: four
    shadows cannot show a leak this way, eight can.

    Args:
        evidence, attack: As in `permutation_null`.
        n_draws: As there.
        rng: As there; a fixed seed unless given.
        level: As there.

    Source:
        Phipson and Smyth 2010, "Permutation P-values Should Never Be Zero".
    """
    found = float(shadow_aucs(*scored(evidence, attack, level)[:2]).mean())
    n_pairs = len(evidence.members) // 2
    null = permutation_null(evidence, attack, n_draws, rng or np.random.default_rng(0), level=level)
    reached = int((null >= found - 1e-12).sum())
    if math.factorial(n_pairs) * 2**n_pairs <= n_draws:
        return reached / len(null)
    return (1 + reached) / (1 + len(null))
