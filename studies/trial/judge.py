"""Judgement of a trial: objectives, constraints and breakdown from its evidence."""

import math

from moo.core.evidence import TrialEvidence
from moo.core.measurement import Measurement
from moo.core.messages import Message
from moo.core.trial_record import (
    ABOVE_MAJORITY,
    ACCURACY,
    MAJORITY,
    PENALTY,
    RISK,
    STATUS_QUO_TRIAL,
    TrialRecord,
)
from moo.objectives.compliance import evaluate as judge_compliance
from moo.objectives.utility.accuracy import above_majority, accuracy, majority_accuracy
from moo.privacy.tradeoff import advantage_ceiling, tpr_ceiling
from moo.studies.setup.legal_gates import without_gates
from moo.studies.setup.prepared import PreparedStudy
from moo.studies.trial.baseline import baseline_accuracy
from moo.studies.trial.membership import MembershipJudgement, judge_membership
from moo.studies.trial.plan import TrialPlan

# Share of the records that masking may leave without a word; a policy.
VALID_SHARE = 0.05
# Degrees of freedom of a risk's error below which a notice says that its interval is widened.
FEW = 10
VALIDITY = "validity"
CONSTRAINTS = ("max_risk", "max_penalty", VALIDITY)


def judge(plan: TrialPlan, evidence: TrialEvidence, prepared: PreparedStudy, *, number: int) -> TrialRecord:
    """Return the record of a trial: its objectives, constraints and breakdown."""
    spec = prepared.spec
    compliance = without_gates(judge_compliance(evidence.facts, spec.packs, applies=prepared.context.flags), spec)
    membership = judge_membership(evidence, spec)
    extras = _extras(plan, evidence, membership)
    if number == STATUS_QUO_TRIAL:
        extras["baseline_accuracy"] = baseline_accuracy(prepared, evidence)
    return TrialRecord(
        number=number,
        params=evidence.params,
        state="complete",
        objectives={ACCURACY: accuracy(evidence.utility), RISK: membership.risk, PENALTY: compliance.penalty},
        constraints={
            "max_risk": over_limit(membership.risk, spec.max_risk),
            "max_penalty": compliance.penalty.value - spec.max_penalty,
            VALIDITY: (evidence.facts["masking.wordless_share"] or 0.0) - VALID_SHARE,
            **compliance.gates,
        },
        extras=extras,
        contributions=compliance.contributions,
        claim=evidence.privacy.claim,
        seconds=evidence.seconds,
        resumed_at=evidence.resumed_at,
        notices=(*evidence.notices, *_widened(membership.advantage, len(evidence.membership.members))),
    )


def _extras(plan: TrialPlan, evidence: TrialEvidence, membership: MembershipJudgement) -> dict[str, Measurement]:
    """Return the numbers that no constraint reads, with the ceilings of the claimed epsilon."""
    return {
        **membership.extras,
        "epsilon_spent": Measurement(value=evidence.privacy.epsilon_spent),
        "noise_multiplier": Measurement(value=evidence.privacy.noise_multiplier),
        "risk_ceiling": ceiling_of(advantage_ceiling(plan.run), membership.advantage),
        MAJORITY: majority_accuracy(evidence.utility),
        ABOVE_MAJORITY: above_majority(evidence.utility),
        "tpr_ceiling": ceiling_of(tpr_ceiling(plan.run, 0.01), membership.extras["tpr_at_1pct_fpr"]),
    }


def _widened(advantage: Measurement, n_shadows: int) -> tuple[str, ...]:
    """Return a notice that the interval of risk is wide because the shadows are few."""
    if not advantage.df < FEW:
        return ()
    template = "{n} shadows tell little of how much training varies: the interval of risk is widened for it"
    return (Message(template, n=n_shadows),)


def over_limit(risk: Measurement, limit: float) -> float:
    """Return by how much the upper bound of a risk passes its limit; <= 0 is feasible.

    A point estimate would let the lucky ones of many noisy trials through. A risk that is not assessed, or without a
    known error, breaks the limit: 1.
    """
    return risk.upper - limit if math.isfinite(risk.upper) else 1.0


def ceiling_of(ceiling: float, measured: Measurement) -> Measurement:
    """Return the most that the claimed epsilon allows any attack, with an alarm above it."""
    if not measured.low > ceiling:
        return Measurement(value=ceiling)
    template = "alarm: the attack is above what the claimed epsilon allows ({measured:.3f} > {ceiling:.3f})"
    return Measurement(value=ceiling, note=Message(template, measured=measured.low, ceiling=ceiling))
