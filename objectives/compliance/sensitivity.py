"""Sensitivity of a front to the weights of the penalty, and its likeness to risk."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moo.core.errors import InputError
from moo.pareto import non_dominated

Floats = NDArray[np.floating]
Rows = Sequence[Mapping[str, Any]]
# policy: correlation from which penalty and risk are one objective under two names.
TOO_ALIKE = 0.95
# Trials below which a correlation says nothing.
_FEWEST = 5


def domain_scores(contributions: Sequence[Rows]) -> tuple[tuple[str, ...], NDArray[np.float64]]:
    """Return the largest score in each domain, of each trial.

    Args:
        contributions: Of n trials, as `evaluate` makes them.

    Returns:
        D names in order, and shape (n, D); a domain that a trial lacks scores 0 there.
    """
    found = [_largest(rows) for rows in contributions]
    names = tuple(sorted(set().union(*found))) if found else ()
    return names, np.array([[scores.get(name, 0.0) for name in names] for scores in found]).reshape(
        len(found), len(names)
    )


def _largest(rows: Rows) -> dict[str, float]:
    out: dict[str, float] = {}
    for row in rows:
        if row["kind"] == "graded":
            out[row["domain"]] = max(out.get(row["domain"], 0.0), float(row["score"]))
    return out


def kept_on_front(
    scores: Floats, others: Floats, allowed: NDArray[np.bool_], *, max_penalty: float, draws: int = 1000, seed: int = 0
) -> NDArray[np.float64]:
    """Return the share of random weightings that put each trial on the feasible front.

    Weights are drawn uniformly from all that are not negative and sum to 1, so no weighting is
    preferred.

    Args:
        scores: Shape (n, D), in [0, 1]: the largest score of each domain.
        others: Shape (n, m), minimised: the objectives other than the penalty.
        allowed: Shape (n,). Trials that every constraint but the penalty's limit allows.
        max_penalty: That limit.
        draws: How many weightings.
        seed: Of the draws; public.

    Returns:
        Shape (n,), in [0, 1].

    Raises:
        InputError: If the shapes differ, or there is no domain.
    """
    n, d = scores.shape if scores.ndim == 2 else (0, 0)
    if d == 0 or others.shape[:1] != (n,) or allowed.shape != (n,):
        raise InputError(
            "scores, others and allowed must have shapes (n, D >= 1), (n, m) and (n,), got {scores}, "
            "{others} and {allowed}.",
            scores=scores.shape,
            others=others.shape,
            allowed=allowed.shape,
        )
    weights = np.random.default_rng(seed).dirichlet(np.ones(d), draws)
    kept = np.zeros(n)
    for penalties in weights @ scores.T:
        feasible = np.flatnonzero(allowed & (penalties <= max_penalty))
        if len(feasible):
            kept[feasible] += non_dominated(np.column_stack([others[feasible], penalties[feasible]]))
    return kept / draws


def alike(penalties: Sequence[float], risks: Sequence[float]) -> float:
    """Return the Pearson correlation of penalty and risk over trials.

    NaN where fewer than five trials, or no spread, say nothing.
    """
    if len(penalties) < _FEWEST or np.ptp(penalties) == 0 or np.ptp(risks) == 0:
        return math.nan
    return float(np.corrcoef(penalties, risks)[0, 1])
