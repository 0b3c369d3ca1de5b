"""Audit of a DP claim: one training with planted canaries, and a test of its leakage against the epsilon."""

import dataclasses
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moo.core import validate
from moo.core.errors import InputError, PolicyError
from moo.core.trial_record import TrialParams
from moo.data.keyed_split import keyed_uniform
from moo.masking import mask
from moo.models.bank.lightning_module import log_probs
from moo.models.train import Trained, TrainingData, train
from moo.models.training.canaries import KINDS, BatchRecorder, Canaries, Kind, canary_scores, plant
from moo.models.trunk.constants import public_texts
from moo.objectives.auditing.audit import one_run_epsilon
from moo.objectives.auditing.one_run import LADDER, Guessed, curve_p_value, ladder, refutes
from moo.objectives.auditing.sampling import poisson_p_value
from moo.privacy.calibration import check_delta
from moo.privacy.caps import describe_cap
from moo.privacy.composition import epsilon_pld
from moo.privacy.events import TrainingRun
from moo.privacy.keys import StudyKey
from moo.privacy.release_policy import Policy
from moo.privacy.tradeoff import curve_of
from moo.studies.accounting.account import Account
from moo.studies.accounting.charge import account_of, charge_training
from moo.studies.accounting.cost import budget_filter
from moo.studies.accounting.terms import known_terms
from moo.studies.results.audit_report import AuditReport, save_audit
from moo.studies.results.result import load_result
from moo.studies.setup.preflight import check_task
from moo.studies.setup.prepared import PreparedStudy
from moo.studies.setup.reopen import check_same
from moo.studies.setup.study_data import Stage, no_stage
from moo.studies.spec.study import StudySpec
from moo.studies.trial.evaluator import Evaluator
from moo.studies.trial.plan import TrialPlan, observed_run, plan_training

__all__ = ["AuditOptions", "AuditReport", "audit_configuration", "audit_trial", "epsilon_within"]

# largest lower bound that is searched for
MOST_EPSILON = 30.0
# characters of a text canary
TEXT_LENGTH = 24
_ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789"


@dataclass(frozen=True, kw_only=True)
class AuditOptions:
    """Options of an audit.

    Attributes:
        canaries: Number of canaries; each is planted with probability one half.
        kind: "dirac", a gradient that no unit has, or "text", a text under a random label.
        confidence: Confidence of the lower bounds, a fraction in (0, 1).
        stage: Callback that hears of each stage.
        key: Secret of coins, batches and noise; by default a fresh one that is not kept.
    """

    canaries: int = 1000
    kind: Kind = "dirac"
    confidence: float = 0.95
    stage: Stage = no_stage
    key: StudyKey | None = None

    def __post_init__(self) -> None:
        validate.one_of(KINDS, kind=self.kind)
        validate.in_range(1e-6, 1 - 1e-6, confidence=self.confidence)
        validate.whole(2, 1_000_000, canaries=self.canaries)


def audit_trial(folder: str | Path, number: int, **options: Any) -> AuditReport:
    """Audit the configuration of a finished study's trial, and keep the report in the folder.

    Args:
        folder: Folder of the study.
        number: Number of a complete trial.
        options: Fields of `AuditOptions`.

    Raises:
        InputError: If there is no such complete trial.
        PolicyError: If the study's policy has no room for a further training.
    """
    result = load_result(folder)
    known = {t.number: t for t in result.complete}
    if number not in known:
        raise InputError(
            "trial must be a complete one of {name}, {known}, got {number}.",
            name=result.name,
            known=sorted(known),
            number=number,
        )
    policy = Policy(**result.about.get("policy", {}))
    home = Path(folder)
    StudyKey.load(home / "study.key")
    evaluator = _evaluator(result.specification(), home, policy, result.name, **options)
    check_same(result, evaluator.prepared, home)
    return _audit(evaluator, known[number].params, trial=number, **options)


def audit_configuration(spec: StudySpec, params: TrialParams, *, folder: str | Path, **options: Any) -> AuditReport:
    """Train one model with canaries among its units, as a trial trains its shadows, and guess the planted ones.

    The training is charged in the ledger like any other; the report is kept in the folder in any case.

    Args:
        spec: Specification of the study.
        params: Configuration to audit.
        folder: Folder of the split's key and the cache, mode 0700.
        options: Fields of `AuditOptions`.

    Raises:
        InputError: If even right guesses alone could not refute the claim, or an argument is unfit.
        TrialError: If the training fails; what it was charged stays charged.
    """
    home = Path(folder)
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    evaluator = _evaluator(spec, home, Policy(), f"{spec.name} audit", **options)
    return _audit(evaluator, params, trial=None, **options)


def _evaluator(spec: StudySpec, home: Path, policy: Policy, name: str, **options: Any) -> Evaluator:
    """Return the evaluator that the audit trains by; check policy and options first."""
    chosen = AuditOptions(**options)
    check_task(spec)
    if policy.name == "select_one":
        raise PolicyError(
            "An audit trains once more, which the policy select_one does not cover; use audit_configuration on other "
            "data."
        )
    return Evaluator(spec, home, policy, chosen.stage, name=name)


def _audit(evaluator: Evaluator, params: TrialParams, *, trial: int | None, **options: Any) -> AuditReport:
    started, chosen = time.perf_counter(), AuditOptions(**options)
    spec, folder, policy, name = evaluator.spec, evaluator.folder, evaluator.policy, evaluator.name
    prepared, fresh = evaluator.prepared, chosen.key or StudyKey.fresh()
    canaries, kind = chosen.canaries, chosen.kind
    plan = plan_training(
        params,
        spec,
        engine=prepared.model.engine,
        expected_units=prepared.data.expected_units + canaries // 2,
        unit=prepared.data.unit,
        shadows_per_unit=1,
    )
    run = plan.run
    beta = (1 - chosen.confidence) / len(LADDER)
    _check_enough(run, canaries, beta, n_units=prepared.data.all_units + canaries)
    planted, marks = _planted(prepared, params, fresh, canaries, kind)
    limit = budget_filter(policy, prepared, evaluator.answers)
    account = account_of(prepared, name=name, limit=limit)
    account.open(known_terms(policy, prepared, limit), begun=trial is not None)
    watch = BatchRecorder(planted.units)
    number = -2 if trial is None else trial
    training_key = prepared.streams.trial_key(params, "audit", kind, canaries, number=number, key=fresh)
    trained = _train(plan, prepared, planted, account, training_key, watch, number=number)
    log_probabilities = log_probs(trained.bank, planted.packed).numpy().astype(np.float64)[0]
    done = observed_run(run, trained)
    guesses = ladder(canary_scores(log_probabilities, marks), marks.included)
    report = AuditReport(
        study=name,
        trial=trial,
        params=params,
        engine=prepared.model.engine,
        kind=kind,
        guessed=guesses,
        confidence=chosen.confidence,
        claimed_epsilon=epsilon_pld(run),
        delta=run.delta,
        claim=prepared.data.claim(done, account.covered()),
        epsilon_low=epsilon_within(guesses, run, beta=beta),
        epsilon_low_dp=max(
            one_run_epsilon(**dataclasses.asdict(g), delta=run.delta, confidence=1 - beta) for g in guesses
        ),
        p_value=min(1.0, len(guesses) * min(curve_p_value(g, curve_of(run)) for g in guesses)) if run.private else 1.0,
        sampler_p_value=poisson_p_value(
            watch.batches, n_units=len(np.unique(planted.units[planted.members[0]])), sample_rate=run.sample_rate
        ),
        steps=trained.steps,
        seconds=time.perf_counter() - started,
        ledger=account.ledger.head(),
        capped=describe_cap(account.cap, account.ledger.charged()),
    )
    save_audit(report, folder)
    return report


def _check_enough(run: TrainingRun, canaries: int, beta: float, *, n_units: int) -> None:
    """Raise if even right guesses alone could not refute the claim, before anything is spent."""
    if not run.private:
        return
    check_delta(run.delta, n_units)
    curve = curve_of(run)

    def enough(m: int) -> bool:
        return refutes(Guessed(canaries=m, guesses=m, correct=m), curve, beta=beta)

    if enough(canaries):
        return
    need = canaries
    while not enough(need) and need < 10**6:
        need *= 2
    raise InputError(
        "canaries must be about {need} or more to refute epsilon {epsilon:.2f} even if all guesses are right, "
        "got {canaries}; plant more, or audit a smaller epsilon.",
        need=need,
        epsilon=epsilon_pld(run),
        canaries=canaries,
    )


def _planted(
    prepared: PreparedStudy, params: TrialParams, key: StudyKey, m: int, kind: Kind
) -> tuple[TrainingData, Canaries]:
    """Return half of the pool's units, drawn by coins, followed by the canaries."""
    pool = prepared.data.parts["pool"]
    half = keyed_uniform(pool.unit_ids, key.derive("half")) < 0.5
    data = TrainingData(
        packed=prepared.features.masked("pool", params.masking_level, params).packed,
        labels=pool.labels,
        units=pool.units,
        members=half[pool.units][None],
        n_classes=len(pool.classes),
    )
    rng = key.generator("canaries")
    texts = [public_texts()[0]] * m if kind == "dirac" else _texts(m, params.masking_level, rng)
    marks = Canaries(
        packed=prepared.features.packed(texts, params),
        classes=rng.integers(0, data.n_classes, m),
        included=rng.random(m) < 0.5,
        kind=kind,
    )
    return plant(data, marks), marks


def _texts(m: int, level: int, rng: np.random.Generator) -> list[str]:
    """Return m texts of random letters and digits in groups, masked as the trial masks texts."""
    drawn: NDArray[np.str_] = rng.choice(list(_ALPHABET), (m, TEXT_LENGTH // 6, 6))
    return [mask(" ".join("".join(group) for group in text), level) for text in drawn]


def _train(
    plan: TrialPlan,
    prepared: PreparedStudy,
    data: TrainingData,
    account: Account,
    key: StudyKey,
    watch: BatchRecorder,
    *,
    number: int,
) -> Trained:
    settings = dataclasses.replace(plan.settings, trainer={**plan.settings.trainer, "callbacks": [watch]})
    prepared.stage("training with canaries", 0, 0)
    frozen = prepared.model.frozen(plan.params)
    with charge_training(account, number, plan.run):
        return train(data, settings, frozen, key.generator)


def epsilon_within(found: tuple[Guessed, ...], run: TrainingRun, *, beta: float) -> float:
    """Return the lower bound of epsilon over runs that differ from this one in their noise alone.

    It is the epsilon of the least noise that the guesses refute.

    Args:
        found: Guesses; each is tested at beta.
        run: Run whose sampling, steps and delta hold.
        beta: Error of each test, a fraction in (0, 1).
    """

    def with_noise(noise: float) -> TrainingRun:
        return dataclasses.replace(run, noise_multiplier=noise)

    def refuted(noise: float) -> bool:
        curve = curve_of(with_noise(noise))
        return any(refutes(g, curve, beta=beta) for g in found)

    return _bound(refuted, lambda noise: epsilon_pld(with_noise(noise)), run.noise_multiplier or 1.0)


def _bound(refuted: Callable[[float], bool], epsilon: Callable[[float], float], start: float) -> float:
    """Return the epsilon of the least refuted noise, by doubling, halving and bisection in its logarithm."""
    low = high = start
    while not refuted(high):
        low, high = high, 2 * high
        if epsilon(low) < 0.01:
            return 0.0
    while refuted(low):
        low, high = low / 1.5, low
        if epsilon(high) > MOST_EPSILON:
            return MOST_EPSILON
    for _ in range(10):
        middle = math.sqrt(low * high)
        low, high = (low, middle) if refuted(middle) else (middle, high)
    return epsilon(high)
