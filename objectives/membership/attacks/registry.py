"""Attacks by name: what each needs, and whether it looks at a record's own losses alone."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from moo.core import validate
from moo.core.errors import InputError
from moo.core.evidence import Floats, MembershipEvidence, Population
from moo.objectives.membership.attacks import references, scores
from moo.objectives.membership.attacks.quantile import quantile_regression
from moo.objectives.membership.checks import MIN_SHADOWS, check_evidence, check_scored
from moo.objectives.membership.training_variance import WITH_DP, WITHOUT_DP
from moo.objectives.membership.uncertainty import Attack


@dataclass(frozen=True)
class NamedAttack:
    """An attack that a study can name.

    Attributes:
        score: From evidence to scores of shape (K, n).
        min_shadows: K that it needs.
        own_losses: True if a record's rank among others follows from its own losses alone. Noised
            answers rely on that: attacks that read a base head, a population, or variances pooled
            over other records are refused there.
        refers: True if it compares a shadow with shadows of other pairs; standard errors then count their training.
        training_with_dp, training_without_dp: Scale of training's part of the error over that of units, before
            any data,
            for shadows trained with DP and without it; ADR 22.
    """

    score: Attack
    min_shadows: int = MIN_SHADOWS
    own_losses: bool = False
    refers: bool = True
    training_with_dp: float = WITH_DP
    training_without_dp: float = WITHOUT_DP

    def __call__(self, evidence: MembershipEvidence) -> Floats:
        return self.score(evidence)


def _base_losses(evidence: MembershipEvidence) -> Floats:
    if evidence.base_losses is None:
        raise InputError("base_losses must be given for this attack, got none; name another attack.")
    return evidence.base_losses


def _population(evidence: MembershipEvidence) -> Population:
    if evidence.population is None:
        raise InputError("population must be given for this attack, got none; name another attack.")
    return evidence.population


ATTACKS: Mapping[str, NamedAttack] = MappingProxyType(
    {
        "pair_reference": NamedAttack(lambda e: scores.pair_reference(e.losses, e.members), own_losses=True),
        "loss": NamedAttack(
            lambda e: scores.loss(e.losses),
            own_losses=True,
            refers=False,
            training_with_dp=0.12,
            training_without_dp=0.5,
        ),
        "base_difference": NamedAttack(lambda e: scores.base_difference(e.losses, _base_losses(e)), refers=False),
        "base": NamedAttack(lambda e: references.base(e.losses, e.members), own_losses=True),
        "lira_offline": NamedAttack(
            lambda e: references.lira_offline(e.losses, e.members), own_losses=True, training_without_dp=0.5
        ),
        "lira_offline_per_text": NamedAttack(
            lambda e: references.lira_offline(e.losses, e.members, fixed_variance=False), 8, own_losses=True
        ),
        "lira_online": NamedAttack(lambda e: references.lira_online(e.losses, e.members)),
        "lira_online_per_text": NamedAttack(
            lambda e: references.lira_online(e.losses, e.members, fixed_variance=False), 8, own_losses=True
        ),
        "rmia_offline": NamedAttack(lambda e: references.rmia_offline(e.losses, e.members, _population(e).losses)),
        "quantile": NamedAttack(lambda e: quantile_regression(e.losses, _base_losses(e), _population(e)), refers=False),
    }
)


def check_attack(attack: str, *, n_shadows: int) -> None:
    """Refuse a name that is no attack, or one that needs more shadows.

    Raises:
        InputError: Naming `attack`.
    """
    validate.one_of(ATTACKS, attack=attack, way_out="a study may also say 'chosen'")
    needs = ATTACKS[attack].min_shadows
    if n_shadows < needs:
        raise InputError(
            "n_shadows must be >= {needs} for attack={attack!r}, got {n_shadows}; train more shadows,"
            " or name another attack.",
            needs=needs,
            attack=attack,
            n_shadows=n_shadows,
        )


def attack_scores(evidence: MembershipEvidence, attack: str | Attack = "pair_reference") -> Floats:
    """Return scores of a named attack, or of a function of the evidence, shape (K, n).

    Raises:
        InputError: If the evidence is unfit, there is no such attack, it needs what the evidence
            lacks, or its scores are no matrix of the losses' shape without NaN.
    """
    check_evidence(evidence)
    if isinstance(attack, str):
        check_attack(attack, n_shadows=len(evidence.members))
        attack = ATTACKS[attack]
    scored = np.asarray(attack(evidence))
    check_scored(scored, evidence.members, evidence.units)
    return scored


def training_scale(attack: str | Attack, *, private: bool) -> float:
    """Return the scale of training's part of the error before any data, in units of the error by unit.

    Args:
        attack: A name of `ATTACKS`, or a function, which gets the scales of the pair reference.
        private: True for shadows trained with DP.
    """
    named = ATTACKS[attack] if isinstance(attack, str) else ATTACKS["pair_reference"]
    return named.training_with_dp if private else named.training_without_dp


def refers(attack: str | Attack) -> bool:
    """Return True if an attack compares a shadow with those of other pairs.

    A user's own function is taken to.
    """
    named = ATTACKS.get(attack) if isinstance(attack, str) else attack
    return named.refers if isinstance(named, NamedAttack) else True
