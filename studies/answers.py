"""What of a trial may be told where every number that reads private units carries noise: the record, told anew."""

import dataclasses
import math
from collections.abc import Collection, Mapping, Sequence
from typing import cast

import numpy as np

from moo.evidence import Bools, TrialEvidence
from moo.objectives.compliance import evaluate as judge_compliance
from moo.objectives.membership.risk import Level
from moo.objectives.private import bounded_accuracy, bounded_advantage, bounded_share, public_floor, sensitivity
from moo.privacy.events import PrivateAnswer
from moo.privacy.policies import Policy
from moo.records import ACCURACY, PENALTY, RISK, Measurement, TrialRecord
from moo.studies.base import StudySpec
from moo.studies.gates import without_gates
from moo.studies.trial import VALID_SHARE, VALIDITY, ceiling_of

PUBLIC_EXTRAS = ("epsilon_spent", "noise_multiplier")  # derived from the event alone
COUNTED = ("data.n_records", "data.n_units")
_NOTE = "told with Gaussian noise"

Facts = Mapping[str, float | None]


def planned_answers(spec: StudySpec, policy: Policy, n_units: int) -> tuple[PrivateAnswer, ...]:
    """The noised answers of one trial; none where the policy tells numbers as they are.

    Args:
        spec: The study.
        policy: Its release policy.
        n_units: Units that the study searches on; public.
    """
    if not policy.answer_noise:
        return ()
    side, test = public_floor(n_units, spec.pool / 2), public_floor(n_units, spec.test)
    pool = public_floor(n_units, spec.pool)
    moves = {
        (RISK, "pool"): sensitivity(side),
        (VALIDITY, "pool"): sensitivity(pool) / 2,
        (ACCURACY, "test"): sensitivity(test) / 2,
    }
    return tuple(
        PrivateAnswer(name=name, part=part, sensitivity=most, noise_multiplier=policy.answer_noise)
        for (name, part), most in moves.items()
    )


def noised(
    record: TrialRecord,
    evidence: TrialEvidence,
    answers: Sequence[PrivateAnswer],
    *,
    spec: StudySpec,
    flags: Collection[str] = (),
    wordless: Bools,
    n_units: int,
    rng: np.random.Generator,
) -> TrialRecord:
    """The record with noised objectives and constraints, and without anything else that reads private units.

    Exact standard errors, null, TPR and timings are left out. The penalty is judged by public facts and the noised answer alone:
    the groups' accuracy gap is unknown, as it would need an answer of its own for each group, too noisy to be of use. Standard
    errors are upper bounds from public numbers.

    Args:
        record: As judged.
        evidence: What it was judged from.
        answers: As planned, and as the ledger holds them.
        spec: The study.
        flags: Which rules apply.
        wordless: Shape (n,) of bool: records of the pool that masking left without a word.
        n_units: As in `planned_answers`.
        rng: Secret stream of this trial.
    """
    by_name = {answer.name: answer for answer in answers}
    floors = {
        RISK: public_floor(n_units, spec.pool / 2),
        VALIDITY: public_floor(n_units, spec.pool),
        ACCURACY: public_floor(n_units, spec.test),
    }
    exact = {
        RISK: bounded_advantage(evidence.membership, spec.attack, floors[RISK], level=cast(Level, spec.attack_level)),
        VALIDITY: bounded_share(wordless.astype(float), evidence.membership.units, floors[VALIDITY]),
        ACCURACY: bounded_accuracy(evidence.utility, floors[ACCURACY]),
    }
    told = {a.name: exact[a.name] + a.stddev * float(rng.standard_normal()) for a in answers}
    public = _public(evidence.facts, told[VALIDITY])
    compliance = without_gates(judge_compliance(public, spec.packs, applies=flags), spec)
    sampling = {
        RISK: 1 / math.sqrt(floors[RISK]),
        ACCURACY: 0.5 / math.sqrt(floors[ACCURACY]),
    }  # the largest there can be
    risk, accuracy = (
        Measurement(value=told[name], stderr=math.hypot(by_name[name].stddev, sampling[name]), note=_NOTE)
        for name in (RISK, ACCURACY)
    )
    constraints = {
        **record.constraints,
        "max_risk": risk.value - spec.max_risk,
        "max_penalty": compliance.penalty.value - spec.max_penalty,
        VALIDITY: told[VALIDITY] - VALID_SHARE,
        **compliance.gates,
    }
    return dataclasses.replace(
        record,
        objectives={ACCURACY: accuracy, RISK: risk, PENALTY: compliance.penalty},
        constraints=constraints,
        extras={
            **{k: m for k, m in record.extras.items() if k in PUBLIC_EXTRAS},
            "risk_ceiling": ceiling_of(record.extras["risk_ceiling"].value, risk),
        },
        contributions=compliance.contributions,
        seconds={},
        notices=(),  # counts of private texts
    )


def _public(facts: Facts, wordless_share: float) -> Facts:
    """What a rule may read where its verdict leaves: what public numbers and the plan decide, and the noised answer; no other fact.

    Of the data's breaches the consent filter has left none, whoever the users are (`refuse_by_policy` asks for it).
    """
    kept = {k: v for k, v in facts.items() if k.startswith(("privacy.", "declared.", "masking."))}
    breaches = {k: v for k, v in facts.items() if k.startswith("data.") and k not in COUNTED}
    return {**kept, **breaches, "masking.wordless_share": min(1.0, max(0.0, wordless_share))}
