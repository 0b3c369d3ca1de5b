"""Audit of a model in one run, by canaries and guesses.

Canaries enter by coin flips, an auditor guesses the coins, too many right guesses refute epsilon.
"""

import math

import numpy as np
from scipy.optimize import brentq
from scipy.stats import binom

from moo.core import validate
from moo.core.errors import InputError

_LARGEST = 100.0


def one_run_p_value(*, canaries: int, guesses: int, correct: int, epsilon: float, delta: float) -> float:
    """Return the largest probability of so many right guesses under (epsilon, delta)-DP.

    At least so many, under any such training.

    Args:
        canaries: m >= 1 each entered by its own fair coin.
        guesses: r <= m that the auditor made; it may abstain from the others.
        correct: v <= r that were right.
        epsilon: Claimed, >= 0.
        delta: Claimed, in [0, 1).

    Source:
        Steinke, Nasr and Jagielski 2023, "Privacy Auditing with One (1) Training Run", Theorem 5.2
        and algorithm of appendix D.
    """
    check_counts(canaries, guesses, correct)
    validate.in_range(0, 1e9, epsilon=epsilon)
    validate.in_range(0, 1 - 1e-12, delta=delta)
    right = 1.0 / (1.0 + math.exp(-epsilon))
    beta = float(binom.sf(correct - 1, guesses, right))
    if not correct or not delta:
        return min(1.0, beta)
    below = np.cumsum(binom.pmf(np.arange(correct - 1, -1, -1), guesses, right))
    alpha = float((below / np.arange(1, correct + 1)).max())
    return min(1.0, beta + 2 * canaries * delta * alpha)


def one_run_epsilon(*, canaries: int, guesses: int, correct: int, delta: float, confidence: float = 0.95) -> float:
    """Return a lower bound of epsilon at the confidence; 0 where nothing is refuted.

    Args as in `one_run_p_value`; confidence in (0, 1).

    Raises:
        InputError: If the counts do not fit together, or a probability is out of bounds.
    """
    validate.in_range(1e-9, 1 - 1e-9, confidence=confidence)

    def excess(epsilon: float) -> float:
        found = one_run_p_value(canaries=canaries, guesses=guesses, correct=correct, epsilon=epsilon, delta=delta)
        return found - (1 - confidence)

    if excess(0.0) >= 0:
        return 0.0
    if excess(_LARGEST) < 0:
        return _LARGEST
    return float(brentq(excess, 0.0, _LARGEST, xtol=1e-9))


def check_counts(canaries: int, guesses: int, correct: int) -> None:
    """Refuse counts that do not fit together.

    Raises:
        InputError: Naming them.
    """
    if not 0 <= correct <= guesses <= canaries or canaries < 1:
        raise InputError(
            "Counts must satisfy 0 <= correct <= guesses <= canaries and canaries >= 1, got "
            "correct={correct}, guesses={guesses}, canaries={canaries}.",
            correct=correct,
            guesses=guesses,
            canaries=canaries,
        )
