"""Releasable version of a trial record: private numbers with noise, the rest dropped."""

import dataclasses
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from moo.core.evidence import Bools, TrialEvidence
from moo.core.measurement import Measurement
from moo.core.trial_record import ACCURACY, PENALTY, RISK, TrialRecord
from moo.objectives.compliance import evaluate as judge_compliance
from moo.objectives.membership.risk import Level
from moo.objectives.release.noised import (
    FLOOR_SDS,
    bounded_accuracy,
    bounded_advantage,
    bounded_share,
    public_floor,
    sensitivity,
)
from moo.privacy.events import PrivateAnswer
from moo.privacy.release_policy import Policy
from moo.studies.setup.legal_gates import without_gates
from moo.studies.spec.study import StudySpec
from moo.studies.trial.judge import VALID_SHARE, VALIDITY, ceiling_of, over_limit

# Numbers that derive from the event alone.
PUBLIC_EXTRAS = ("epsilon_spent", "noise_multiplier")
COUNTED = ("data.n_records", "data.n_units")
_NOTE = "Gaussian noise added"

Facts = Mapping[str, float | None]


@dataclass(frozen=True, kw_only=True)
class Floors:
    """Least numbers of units that the divisors of noised means may count on.

    Attributes:
        pool, test: Units of the part that passed the legal gates, at the least.
    """

    pool: int
    test: int

    @property
    def side(self) -> int:
        """Units on each side of a shadow, at the least."""
        return public_floor(self.pool, 0.5)


def counts(policy: Policy) -> tuple[PrivateAnswer, ...]:
    """Return the noised counts of a study: units of each part that passed the legal gates.

    They are drawn once, before the first trial.
    """
    if not policy.answer_noise:
        return ()
    return tuple(
        PrivateAnswer(name="units", part=part, sensitivity=1.0, noise_multiplier=policy.answer_noise)
        for part in ("pool", "test")
    )


def noised_floors(units: Mapping[str, int], policy: Policy, rng: np.random.Generator) -> Floors:
    """Return floors from noised counts: as far below each as its noise reaches.

    A floor from the number of units before the legal gates would exceed the number that they leave, and shrink every
    mean.

    Args:
        units: Part -> units that passed the legal gates; private.
        policy: The release policy, with noise.
        rng: Secret stream of the study.
    """
    noisy = {c.part: units[c.part] + c.stddev * (float(rng.standard_normal()) - FLOOR_SDS) for c in counts(policy)}
    return Floors(**{part: max(1, math.floor(count)) for part, count in noisy.items()})


def expected_floors(spec: StudySpec, n_units: int) -> Floors:
    """Return floors from public numbers, as if the legal gates dropped nobody.

    A plan uses them, since it reads no unit.
    """
    return Floors(pool=public_floor(n_units, spec.pool), test=public_floor(n_units, spec.test))


def planned_answers(policy: Policy, floors: Floors) -> tuple[PrivateAnswer, ...]:
    """Return the noised answers of one trial; none if the policy releases exact numbers."""
    if not policy.answer_noise:
        return ()
    moves = {
        (RISK, "pool"): sensitivity(floors.side),
        (VALIDITY, "pool"): sensitivity(floors.pool) / 2,
        (ACCURACY, "test"): sensitivity(floors.test) / 2,
    }
    return tuple(
        PrivateAnswer(name=name, part=part, sensitivity=most, noise_multiplier=policy.answer_noise)
        for (name, part), most in moves.items()
    )


def noise_answers(
    evidence: TrialEvidence,
    answers: Sequence[PrivateAnswer],
    *,
    spec: StudySpec,
    wordless: Bools,
    floors: Floors,
    rng: np.random.Generator,
) -> dict[str, float]:
    """Return each answer's number with its noise; arguments as in `noise_record`."""
    exact = {
        RISK: bounded_advantage(evidence.membership, spec.attack, floors.side, level=cast(Level, spec.attack_level)),
        VALIDITY: bounded_share(wordless.astype(float), evidence.membership.units, floors.pool),
        ACCURACY: bounded_accuracy(evidence.utility, floors.test),
    }
    return {a.name: exact[a.name] + a.stddev * float(rng.standard_normal()) for a in answers}


def noise_record(
    record: TrialRecord,
    evidence: TrialEvidence,
    answers: Sequence[PrivateAnswer],
    *,
    spec: StudySpec,
    flags: Collection[str] = (),
    wordless: Bools,
    floors: Floors,
    rng: np.random.Generator,
) -> TrialRecord:
    """Return the record with noised objectives and constraints, other private numbers gone.

    Exact standard errors, null, TPR and timings are left out. The penalty is judged by public facts and the noised
    answer alone: the groups' accuracy gap is unknown, since it would need one answer for each group, too noisy to be
    of use. Standard errors are upper bounds from public numbers.

    Args:
        record: Record of the trial, as judged.
        evidence: Evidence that it was judged from.
        answers: Planned answers, as the ledger holds them.
        spec: The study.
        flags: Flags that switch rules on.
        wordless: Shape (n,). True for records of the pool that masking left without a word.
        floors: Floors that the answers were planned with.
        rng: Secret stream of this trial.
    """
    by_name = {answer.name: answer for answer in answers}
    noisy = noise_answers(evidence, answers, spec=spec, wordless=wordless, floors=floors, rng=rng)
    public = _public(evidence.facts, noisy[VALIDITY])
    compliance = without_gates(judge_compliance(public, spec.packs, applies=flags), spec)
    # the largest that sampling can add
    sampling = {RISK: 1 / math.sqrt(floors.side), ACCURACY: 0.5 / math.sqrt(floors.test)}
    risk, accuracy = (
        Measurement(value=noisy[name], stderr=math.hypot(by_name[name].stddev, sampling[name]), note=_NOTE)
        for name in (RISK, ACCURACY)
    )
    constraints = {
        **record.constraints,
        "max_risk": over_limit(risk, spec.max_risk),
        "max_penalty": compliance.penalty.value - spec.max_penalty,
        VALIDITY: noisy[VALIDITY] - VALID_SHARE,
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
        # notices count private texts
        notices=(),
    )


def _public(facts: Facts, wordless_share: float) -> Facts:
    """Return the facts of verdicts that leave: public numbers, the plan, the noised answer.

    The consent filter has left no breach in the data for any set of users (`check_policy_allows` demands it).
    """
    kept = {k: v for k, v in facts.items() if k.startswith(("privacy.", "declared.", "masking."))}
    breaches = {k: v for k, v in facts.items() if k.startswith("data.") and k not in COUNTED}
    return {**kept, **breaches, "masking.wordless_share": min(1.0, max(0.0, wordless_share))}
