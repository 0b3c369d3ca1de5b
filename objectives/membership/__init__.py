"""Membership inference: scores of attacks, their numbers, and how sure they are."""

from moo.objectives.membership.attacks.scores import pair_reference
from moo.objectives.membership.risk import MembershipRisk, auc, membership_risk, tpr

__all__ = ["MembershipRisk", "auc", "membership_risk", "pair_reference", "tpr"]
