"""Audit against a whole trade-off curve in one run, canary by canary.

An (epsilon, delta) pair says little of a Gaussian mechanism; its curve says all, and the same
guesses refute more. Which curves are tried is the caller's: of the Gaussian mechanism
(`moo.privacy.tradeoff`), or of the training run that is claimed.

Source: Mahloujifar, Melis and Chaudhuri 2025, "Auditing f-Differential Privacy in One Run",
arXiv:2410.22235, Theorem 8 and Algorithm 3 with an alphabet of two: a canary is in or out.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from moo.core import validate
from moo.core.errors import InputError
from moo.core.evidence import Bools, Floats
from moo.objectives.auditing.audit import check_counts
from moo.privacy.tradeoff import Curve, gaussian_dp

# Shares of the canaries that are guessed: fixed before, each at a third of the error allowed.
LADDER = (
    0.1,
    1 / 3,
    1.0,
)


@dataclass(frozen=True, kw_only=True)
class Guessed:
    """An auditor's guesses.

    Attributes:
        canaries: m, each entered by its own fair coin.
        guesses: r, that were not abstained from.
        correct: v of them were right.
    """

    canaries: int
    guesses: int
    correct: int


def guess(scores: Floats, included: Bools, n_guesses: int) -> Guessed:
    """Count right guesses: "in" for the highest scores, "out" for the lowest, half each.

    The auditor abstains in between.

    Canaries with the same score are taken in an order of chance: in their own, all of one kind
    might come first.

    Args:
        scores: Shape (m,). Higher means "more likely in".
        included: Shape (m,). The coins.
        n_guesses: From 2 to m, made even; fixed before the scores are seen.

    Raises:
        InputError: If the scores hold NaN, a side of the coins is empty, or there are fewer
            canaries than guesses.
    """
    _check_coins(scores, included)
    validate.in_range(2, len(scores), n_guesses=n_guesses)
    half = n_guesses // 2
    shuffled = np.random.default_rng(0).permutation(len(scores))
    order = shuffled[np.argsort(scores[shuffled], kind="stable")]
    right = int(included[order[-half:]].sum()) + int((~included[order[:half]]).sum())
    return Guessed(canaries=len(scores), guesses=2 * half, correct=right)


def _check_coins(scores: Floats, included: Bools) -> None:
    if scores.ndim != 1 or included.shape != scores.shape or included.dtype != np.bool_:
        raise InputError(
            "scores must have shape (m,) and included must be a mask of the same shape, got {shape} "
            "and {dtype} of {mask_shape}.",
            shape=scores.shape,
            dtype=included.dtype,
            mask_shape=included.shape,
        )
    if np.isnan(scores).any():
        raise InputError(
            "scores must have no NaN, got {count}; the training has diverged.",
            count=int(np.isnan(scores).sum()),
        )
    if included.all() or not included.any():
        raise InputError(
            "included must have canaries on both sides, got {count} of {n_included} in; plant more.",
            count=int(included.sum()),
            n_included=len(included),
        )


def refutes(found: Guessed, curve: Curve, *, beta: float) -> bool:
    """Return True if the curve gives so many right guesses a probability below beta.

    With p_i the probability of exactly i right guesses of r, right_i = sum over j >= i of j p_j / m
    and wrong_i = sum over j >= i of (r - j) p_j / m: the curve asks wrong_i >= g(right_(i+1)). Were
    the tail beyond `correct` as probable as beta, all p_i together would have to be above 1: then
    it is not.

    Args:
        found: The guesses.
        curve: Of the mechanism that is doubted.
        beta: In (0, 1); one minus the confidence.
    """
    check_counts(found.canaries, found.guesses, found.correct)
    if not 0 < beta < 1:
        raise validate.argument_error("{name} must be above 0 and below 1", "beta", beta)
    right = beta * found.correct / found.canaries
    wrong = beta * (found.guesses - found.correct) / found.canaries
    for i in range(found.correct - 1, -1, -1):
        more = max(wrong, curve.least(min(1.0, right)))
        right += i / (found.guesses - i) * (more - wrong)
        wrong = more
        if right + wrong > found.guesses / found.canaries:
            return True
    return False


def curve_p_value(found: Guessed, curve: Curve) -> float:
    """Return the largest probability of so many right guesses under a mechanism on the curve.

    It is the least beta that refutes the curve.

    Args as in `refutes`.
    """
    check_counts(found.canaries, found.guesses, found.correct)
    low, high = 1e-12, 1.0 - 1e-12
    if refutes(found, curve, beta=low):
        return low
    if not refutes(found, curve, beta=high):
        return 1.0
    for _ in range(60):
        middle = math.sqrt(low * high)
        if refutes(found, curve, beta=middle):
            high = middle
        else:
            low = middle
    return high


def curve_epsilon(
    found: Guessed,
    *,
    delta: float,
    confidence: float = 0.95,
    family: Callable[[float], Curve] | None = None,
    largest: float = 100.0,
) -> float:
    """Return a lower bound of epsilon within a family of mechanisms, at the confidence.

    0 where nothing is refuted.

    Args:
        found: The guesses.
        delta: Of the bound, in (0, 1).
        confidence: In (0, 1).
        family: From epsilon to the curve of the member that is (epsilon, delta)-DP; the Gaussian
            mechanism by default.
        largest: Where the search ends.
    """
    validate.in_range(1e-9, 1 - 1e-9, confidence=confidence)
    member = family if family is not None else lambda epsilon: gaussian_dp(epsilon, delta)
    return largest_refuted(lambda e: refutes(found, member(e), beta=1 - confidence), largest=largest)


def largest_refuted(refuted: Callable[[float], bool], *, largest: float) -> float:
    """Return the largest refuted epsilon, to 1e-4 and from below.

    Smaller ones are refuted as well.
    """
    low, high = 0.0, largest
    if not refuted(1e-4):
        return 0.0
    if refuted(largest):
        return largest
    while high - low > 1e-4:
        middle = (low + high) / 2
        low, high = (middle, high) if refuted(middle) else (low, middle)
    return low


def ladder(scores: Floats, included: Bools) -> tuple[Guessed, ...]:
    """Return the guesses at each share of `LADDER`.

    Where one of them refutes at beta over their number, beta is the error of all.

    Raises:
        InputError: As `guess` does.
    """
    _check_coins(scores, included)
    most = 2 * (len(scores) // 2)
    return tuple(guess(scores, included, max(2, 2 * round(share * most / 2))) for share in LADDER)
