"""Second objective of a trial, risk, with the numbers that accompany it."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from moo.core.evidence import MembershipEvidence, TrialEvidence
from moo.core.measurement import Measurement, not_assessed
from moo.core.messages import Message, joined
from moo.objectives.attribute.risk import attribute_risk, combined
from moo.objectives.membership.choice import CHOSEN, choose
from moo.objectives.membership.deciles import worst_decile
from moo.objectives.membership.risk import Level, auc, balanced_accuracy, membership_risk, tpr
from moo.studies.spec.study import StudySpec

# Permutations of the attribute's null in every trial: a p-value of .05 at the least.
PERMUTATIONS = 19


@dataclass(frozen=True, kw_only=True)
class MembershipJudgement:
    """Leakage of a trial's shadows.

    Attributes:
        risk: Objective: advantage of the study's attack, or the leakage of its attribute if that is larger.
        advantage: Advantage alone, which the claimed epsilon bounds.
        extras: AUC, true-positive rate, balanced accuracy and worst decile of the attack, the loss attack's AUC, and
            the null.
    """

    risk: Measurement
    advantage: Measurement
    extras: Mapping[str, Measurement]


def judge_membership(evidence: TrialEvidence, spec: StudySpec) -> MembershipJudgement:
    """Attack the pool by the attack of the study, or by one chosen on half of the units."""
    attack, targets, level = spec.attack, evidence.membership, cast(Level, spec.attack_level)
    note = ""
    if attack == CHOSEN:
        choice = choose(targets, level=level)
        attack, targets = choice.attack, choice.evidence
        note = Message("attack {attack}, chosen on one half of the units and reported on the other", attack=attack)
    private = evidence.params.private
    advantage = membership_risk(targets, attack, level=level, private=private)
    if note:
        advantage = dataclasses.replace(advantage, note=joined("; ", [n for n in (advantage.note, note) if n]))
    extras = {
        "auc": auc(targets, attack=attack, level=level, private=private),
        "null_auc": _null(evidence.unseen, attack, level),
        "tpr_at_1pct_fpr": tpr(targets, attack=attack, level=level),
        "balanced_accuracy": balanced_accuracy(targets, attack=attack, level=level, private=private),
        "worst_decile": worst_decile(targets, attack),
        "loss_auc": auc(targets, attack="loss", level=level, private=private),
    }
    if evidence.attribute is None:
        return MembershipJudgement(risk=advantage, advantage=advantage, extras=extras)
    leak = attribute_risk(evidence.attribute, n_permutations=PERMUTATIONS)
    extras |= {
        "advantage": advantage,
        "attribute_leakage": leak.leakage,
        "attribute_min_entropy": leak.min_entropy,
        "attribute_training": leak.training,
        "attribute_p": Measurement(value=leak.p_value, note=leak.leakage.note),
    }
    return MembershipJudgement(risk=combined(advantage, leak.leakage), advantage=advantage, extras=extras)


def _null(unseen: MembershipEvidence, attack: str, level: Level) -> Measurement:
    """Return the AUC on records, or users, that no shadow saw.

    It is not assessed if all of them are on one side of a shadow.
    """
    sizes = unseen.members.sum(axis=1)
    if (sizes == 0).any() or (sizes == unseen.members.shape[1]).any():
        return not_assessed(Message("{n} unseen records are too few for two sides", n=unseen.members.shape[1]))
    return auc(unseen, attack=attack, level=level)
