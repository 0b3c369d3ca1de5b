"""H(P|M): leak of a personal attribute in a model's outputs, beyond imputation without it.

An attack q(attribute | outputs, auxiliary) is fitted on some users, calibrated on others and
measured on the rest, in turn, once for each shadow. What it gains over q0(attribute | auxiliary),
the imputation, is the leakage. It complements membership: DP bounds what training on a person
reveals, not what a population teaches. It is the best attack that was run, never "the leakage".
"""

import dataclasses
import math
from dataclasses import dataclass

import numpy as np

from moo.core import validate
from moo.core.errors import InputError
from moo.core.evidence import AttributeEvidence, Bools, Floats, Ints
from moo.core.measurement import Measurement, not_assessed
from moo.core.messages import Message, joined
from moo.objectives.attribute.attack import calibrated, fit_logits, log_prior, user_features
from moo.objectives.membership.checks import check_complements
from moo.objectives.membership.uncertainty import over_shadows
from moo.objectives.statistics.clusters import unit_codes

# Two to fit on, one to calibrate on, one to measure on.
FOLDS = 4
# Users of each class at the least: five a fold.
MIN_CLASS_USERS = 20


@dataclass(frozen=True, kw_only=True)
class AttributeRisk:
    """Leak of one attribute to the best attack run; "not assessed" where it cannot be asked.

    Attributes:
        leakage: (cross-entropy of the imputation - cross-entropy of the attack) / H(P): a fraction,
            unclipped, so that it is not biased upward where nothing leaks; at most 1, below 0 where
            the attack does worse than imputing. 1 - H(P|M)/H(P) in the limit of the best attack.
        min_entropy: log2 of how much more often the attack's best guess is right than the
            imputation's, bits.
        training: Leakage on users that the shadow was trained on, minus that on users that it was
            not: the part due to training.
        p_value: Probability of so large a leakage where outputs belong to anybody (outputs permuted
            over users); NaN if not asked for.
        entropy: H(P) of the attribute over users, nats.
        imputed, attacked: Cross-entropies, nats.
    """

    leakage: Measurement
    min_entropy: Measurement
    training: Measurement
    p_value: float = math.nan
    entropy: float = math.nan
    imputed: float = math.nan
    attacked: float = math.nan


def attribute_risk(evidence: AttributeEvidence, *, n_permutations: int = 0, seed: int = 0) -> AttributeRisk:
    """Return the risk of attribute inference from the outputs of K shadows, by user.

    Args:
        evidence: Outputs, membership and the attribute.
        n_permutations: Of the null; 0 leaves the p-value out.
        seed: Of folds and permutations.

    Raises:
        InputError: If an array holds NaN or has another shape, the shadows are no pairs, a label is
            no class, or the attribute differs within a user; the argument is named.
    """
    validate.in_range(0, 100_000, n_permutations=n_permutations)
    users = _Users(evidence)
    if users.why_not:
        nothing = not_assessed(users.why_not)
        return AttributeRisk(leakage=nothing, min_entropy=nothing, training=nothing)
    rng = np.random.default_rng(seed)
    folds = _folds(users.attribute, rng)
    imputed = _fold_predictions(np.zeros((len(users.attribute), 0)), users, folds)
    attacked = np.stack([_fold_predictions(x, users, folds) for x in users.outputs])
    own = np.arange(len(users.attribute)), users.attribute
    gain = attacked[:, own[0], own[1]] - imputed[own]
    found = _leakage(gain, users)
    return AttributeRisk(
        leakage=found,
        min_entropy=_min_entropy(attacked, imputed, users),
        training=_training(gain, users),
        p_value=_p_value(found.value, users, folds, imputed[own], rng, n_permutations),
        entropy=users.entropy,
        imputed=float(-imputed[own].mean()),
        attacked=float(-attacked[:, own[0], own[1]].mean()),
    )


def combined(membership: Measurement, attribute: Measurement) -> Measurement:
    """Return the second objective with both terms: the larger of the two.

    What is part of both is never counted twice.

    Without the advantage it is not assessed: what is not known cannot be the smaller. Where the
    attribute cannot be asked, the advantage is the objective, and the note says so.

    Both are fractions: advantage of an attack on membership, leakage of an attack on an attribute.
    The larger of two noisy numbers is too large on average where they are alike, by at most .56
    times the standard error of their difference; the note names the term.
    """
    if math.isnan(membership.value):
        return membership
    if math.isnan(attribute.value):
        return dataclasses.replace(
            membership, note=_joined(membership.note, Message("attribute {note}", note=attribute.note))
        )
    if attribute.value > membership.value:
        return dataclasses.replace(attribute, note="the attribute's leakage, above the membership advantage")
    return dataclasses.replace(membership, note=_joined(membership.note, "above the attribute's leakage"))


def _joined(*notes: str) -> str:
    given = [note for note in notes if note]
    return joined("; ", given) if len(given) > 1 else given[0] if given else ""


class _Users:
    """Evidence by user: output features, auxiliary columns, attribute codes, membership."""

    def __init__(self, evidence: AttributeEvidence) -> None:
        _check(evidence)
        known = evidence.attribute >= 0
        codes, _ = unit_codes(evidence.units[known])
        _, first = np.unique(codes, return_index=True)
        values = evidence.attribute[known]
        if (values != values[first][codes]).any() or (
            evidence.members[:, known] != evidence.members[:, known][:, first[codes]]
        ).any():
            raise InputError(
                "attribute and members must be constant within a user, but some user has two values of one."
            )
        _, self.attribute = np.unique(values[first], return_inverse=True)
        self.members: Bools = evidence.members[:, known][:, first]
        counts = np.bincount(self.attribute)
        self.why_not = _why_not(evidence.name, counts)
        share = counts / counts.sum() if len(counts) else counts
        self.entropy = float(-(share * np.log(share)).sum()) if len(counts) else 0.0
        if self.why_not:
            return
        if (evidence.log_probs[:, known] == evidence.log_probs[:, known][:, :1]).all():
            self.why_not = "every record has the same outputs"
        self.outputs = np.stack([user_features(p, evidence.labels[known], codes) for p in evidence.log_probs[:, known]])
        extra = evidence.auxiliary if evidence.auxiliary is not None else np.zeros((len(evidence.units), 0))
        n_users = len(first)
        self.auxiliary = (
            np.stack([np.bincount(codes, weights=column, minlength=n_users) for column in extra[known].T], axis=1)
            / np.bincount(codes)[:, None]
            if extra.shape[1]
            else np.zeros((n_users, 0))
        )
        self.n_classes = len(counts)


def _check(evidence: AttributeEvidence) -> None:
    check_complements(evidence.members)
    k, n = evidence.members.shape
    if evidence.log_probs.shape[:2] != (k, n) or evidence.log_probs.ndim != 3:
        raise InputError(
            "log_probs must have shape ({k}, {n}, C), got {shape}.", k=k, n=n, shape=evidence.log_probs.shape
        )
    for name, values in (("labels", evidence.labels), ("units", evidence.units), ("attribute", evidence.attribute)):
        if values.shape != (n,) or not np.issubdtype(values.dtype, np.integer):
            raise InputError(
                "{name} must be integers of shape ({n},), got {dtype} of shape {shape}.",
                name=name,
                n=n,
                dtype=values.dtype,
                shape=values.shape,
            )
    if n and (evidence.labels.min() < 0 or evidence.labels.max() >= evidence.log_probs.shape[2]):
        raise InputError(
            "labels must be between 0 and {last}, got {lowest} to {highest}.",
            last=evidence.log_probs.shape[2] - 1,
            lowest=evidence.labels.min(),
            highest=evidence.labels.max(),
        )
    if evidence.auxiliary is not None and (evidence.auxiliary.ndim != 2 or len(evidence.auxiliary) != n):
        raise InputError("auxiliary must have shape ({n}, d), got {shape}.", n=n, shape=evidence.auxiliary.shape)
    for name, array in (("log_probs", evidence.log_probs), ("auxiliary", evidence.auxiliary)):
        if array is not None and not np.isfinite(array).all():
            raise InputError("{name} must be finite, got NaN or infinity.", name=name)


def _why_not(name: str, counts: Ints) -> str:
    """Return why the attribute cannot be asked about; empty if it can."""
    if len(counts) < 2:
        return Message("attribute {name} is constant or unknown over all users", name=name)
    if counts.min() < MIN_CLASS_USERS:
        return Message(
            "each class of attribute {name} needs {least} users, the smallest has {n}",
            name=name,
            least=MIN_CLASS_USERS,
            n=int(counts.min()),
        )
    return ""


def _folds(attribute: Ints, rng: np.random.Generator) -> Ints:
    """Return the fold of each user, every class dealt out evenly, shape (U,)."""
    folds = np.empty(len(attribute), dtype=int)
    for code in np.unique(attribute):
        own = rng.permutation(np.flatnonzero(attribute == code))
        folds[own] = np.arange(len(own)) % FOLDS
    return folds


def _fold_predictions(outputs: Floats, users: _Users, folds: Ints) -> Floats:
    """Return log-probabilities of the attribute for every user; shape (U, classes).

    Each comes from an attack that never saw that user.
    """
    log_probs = np.empty((len(users.attribute), users.n_classes))
    with_outputs = np.concatenate([users.auxiliary, outputs], axis=1)
    for fold in range(FOLDS):
        measure, tune = folds == fold, folds == (fold + 1) % FOLDS
        fit = ~(measure | tune)
        base = log_prior(users.attribute[fit], users.n_classes, len(folds))
        if users.auxiliary.shape[1]:
            found = fit_logits(users.auxiliary, users.attribute, fit, n_classes=users.n_classes)
            base = calibrated(base, found, users.attribute, tune)
        if outputs.shape[1]:
            found = fit_logits(with_outputs, users.attribute, fit, n_classes=users.n_classes)
            base = calibrated(base, found, users.attribute, tune)
        log_probs[measure] = base[measure]
    return log_probs


def _leakage(gain: Floats, users: _Users) -> Measurement:
    value, spread = over_shadows(
        gain.mean(axis=1), (gain - gain.mean(axis=1, keepdims=True)) / gain.shape[1], np.arange(gain.shape[1])
    )
    return Measurement(value=value / users.entropy, stderr=spread.stderr / users.entropy, df=spread.df)


def _min_entropy(attacked: Floats, imputed: Floats, users: _Users) -> Measurement:
    right = (attacked.argmax(axis=2) == users.attribute).astype(float)
    before = (imputed.argmax(axis=1) == users.attribute).astype(float)
    post, prior = right.mean(axis=1, keepdims=True), before.mean()
    if not prior or not post.all():
        return not_assessed("a guess that is never right has no min-entropy")
    influence = (right / post - before / prior) / (len(before) * math.log(2))
    value, spread = over_shadows(np.log2(post / prior)[:, 0], influence, np.arange(len(before)))
    note = "" if (right != before).any() else "every guess is the imputation's"
    return Measurement(value=value, stderr=spread.stderr, df=spread.df, note=note)


def _training(gain: Floats, users: _Users) -> Measurement:
    """Return the mean gain of members minus that of non-members."""
    count = users.members.sum(axis=1, keepdims=True)
    side = np.where(users.members, count, users.members.shape[1] - count)
    if (side == 0).any():
        return not_assessed("a shadow has users of one side alone")
    if (gain[0::2] == gain[1::2]).all():
        return not_assessed("the two shadows of every pair say the same of every user")
    inside, outside = (
        np.where(m, gain / side, 0.0).sum(axis=1, keepdims=True) for m in (users.members, ~users.members)
    )
    influence = np.where(users.members, gain - inside, outside - gain) / side
    value, spread = over_shadows((inside - outside)[:, 0], influence, np.arange(gain.shape[1]))
    return Measurement(value=value / users.entropy, stderr=spread.stderr / users.entropy, df=spread.df)


def _p_value(
    found: float, users: _Users, folds: Ints, imputed: Floats, rng: np.random.Generator, n_permutations: int
) -> float:
    """Return users with permuted outputs, all shadows' together.

    Attribute and auxiliary columns stay.
    """
    if not n_permutations:
        return math.nan
    reached, own = 0, (np.arange(len(folds)), users.attribute)
    for _ in range(n_permutations):
        order = rng.permutation(len(folds))
        gains = [(_fold_predictions(x[order], users, folds)[own] - imputed).mean() for x in users.outputs]
        reached += float(np.mean(gains)) / users.entropy >= found
    return (1 + reached) / (1 + n_permutations)
