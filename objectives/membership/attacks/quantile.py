"""Membership by quantile regression on unseen records; no other shadow needed."""

import numpy as np

from moo.core import validate
from moo.core.errors import InputError
from moo.core.evidence import Floats, Population
from moo.objectives.membership.attacks.references import logit_confidence
from moo.objectives.membership.checks import check_matrix

QUARTILES = (0.25, 0.5, 0.75)
# Records that three coefficients a quartile are fitted on, at the least.
MIN_POPULATION = 20


def quantile_regression(losses: Floats, base_losses: Floats, population: Population) -> Floats:
    """Return the excess of a shadow's confidence over the median of unseen records.

    Unseen records that are as hard; in their interquartile ranges.

    On the population, the quartiles of the shadow's logit confidence are regressed on that of the
    base head and its square; a record's score is its distance from the median that its own hardness
    predicts, over the predicted range. One regression for each shadow and quartile: no shadow
    refers to another.

    Args:
        losses: Shape (K, n), nats.
        base_losses: Shape (n,), nats.
        population: Of m >= 20 records, with base_losses.

    Returns:
        Shape (K, n); higher means "more likely a member".

    Raises:
        InputError: If an array is unfit; the argument is named.

    Source:
        Bertran, Tang, Roth, Kearns, Morgenstern and Wu 2023, "Scalable Membership Inference Attacks
        via Quantile Regression", with the base model's confidence as the covariate and quartiles
        for its Gaussian.
    """
    check_matrix("losses", losses, losses.shape)
    check_matrix("base_losses", base_losses, losses.shape[1:])
    if population.base_losses is None:
        raise InputError("population.base_losses must be given, got None; the regression needs its covariate.")
    m = len(population.base_losses)
    if m < MIN_POPULATION:
        raise InputError(
            "population must have {min_population} records or more, got {m}.", min_population=MIN_POPULATION, m=m
        )
    check_matrix("population.base_losses", population.base_losses, (m,))
    check_matrix("population.losses", population.losses, (len(losses), m))
    seen, unseen = _basis(base_losses, population.base_losses), _basis(population.base_losses, population.base_losses)
    known = logit_confidence(population.losses)
    low, median, high = (fit_quantile(unseen, known, q) @ seen.T for q in QUARTILES)
    usual = np.subtract(*np.quantile(known, [0.75, 0.25], axis=1))[:, None]
    # Quartiles may cross far from the population.
    spread = np.maximum(high - low, 0.1 * np.where(usual > 0, usual, 1.0))
    score: Floats = (logit_confidence(losses) - median) / spread
    return score


def fit_quantile(basis: Floats, values: Floats, quantile: float, *, steps: int = 60) -> Floats:
    """Return coefficients of linear quantile regressions on one basis, many at a time.

    Majorise and minimise: each step is a weighted least squares in which a residual r weighs 1 /
    (|r| + a little).

    Args:
        basis: Shape (m, d).
        values: Shape (K, m): one regression a row.
        quantile: In (0, 1).
        steps: Taken by all.

    Returns:
        Shape (K, d).

    Raises:
        InputError: If the quantile is out of bounds, or the values are not finite or of another
            length.

    Source:
        Hunter and Lange 2000, "Quantile Regression via an MM Algorithm".
    """
    if not 0 < quantile < 1:
        raise validate.argument_error("{name} must be above 0 and below 1", "quantile", quantile)
    check_matrix("values", values, (len(values), len(basis)))
    scale = np.std(values, axis=1, keepdims=True)
    little = 1e-3 * np.where(scale > 0, scale, 1.0)
    coefficients = np.linalg.lstsq(basis, values.T, rcond=None)[0].T
    eye = np.eye(basis.shape[1])
    for _ in range(steps):
        weights = 1.0 / (np.abs(values - coefficients @ basis.T) + little)
        gram = np.einsum("km,md,me->kde", weights, basis, basis, optimize=True)
        # A covariate without spread stays solvable.
        gram += 1e-9 * np.trace(gram, axis1=1, axis2=2)[:, None, None] * eye
        pull = (weights * values + (2 * quantile - 1)) @ basis
        coefficients = np.linalg.solve(gram, pull[..., None])[..., 0]
    return coefficients


def _basis(base_losses: Floats, scaled_by: Floats) -> Floats:
    """Return one, base confidence and its square, shape (n, 3).

    In standard deviations of the population's.
    """
    x, known = logit_confidence(base_losses), logit_confidence(scaled_by)
    z = (x - known.mean()) / (known.std() or 1.0)
    basis: Floats = np.stack([np.ones_like(z), z, z**2], axis=1)
    return basis
