"""Search of a study: terms fixed, generations charged and trained, cost composed."""

import json
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from moo.core.errors import PolicyError
from moo.core.trial_record import TrialRecord
from moo.privacy.caps import describe_cap
from moo.privacy.composed_epsilon import ComposedEpsilon, compose
from moo.privacy.composition import compose_epsilon
from moo.search import REFUSED, Candidate, Outcome, Progress, search
from moo.search.sampler import check_sampler
from moo.search.space import Space
from moo.studies.accounting.account import Account
from moo.studies.accounting.charge import account_of, charge_trainings
from moo.studies.accounting.cost import budget_filter, runs_at, search_cost
from moo.studies.accounting.terms import terms_of
from moo.studies.results.result import StudyResult
from moo.studies.search.about import study_about, study_identity
from moo.studies.search.gpu_assignment import worker_environments
from moo.studies.search.options import SearchOptions
from moo.studies.search.progress import Watch, record_of
from moo.studies.search.select_one import SECRET, check_cap_admits_all, drawn, mark_internal, winner_alone
from moo.studies.search.status_quo import settle_trial, status_quo_record
from moo.studies.setup.preflight import check_prepared
from moo.studies.spec.search_space import GOALS, initial_trials, params_of, space_of
from moo.studies.trial.evaluator import Evaluator
from moo.studies.trial.judge import CONSTRAINTS
from moo.studies.trial.paths import day_of, forget_all, keep_day


@dataclass(frozen=True, kw_only=True)
class Draws:
    """Settings that a search draws.

    Attributes:
        n_trials: Trials in all.
        space: Space of the settings.
        first: Settings of the first trials.
    """

    n_trials: int
    space: Space
    first: Sequence[Mapping[str, float | int]]


@dataclass(kw_only=True)
class StudySearch:
    """Search of a study, from its first check to its result. Lives in the driver.

    Attributes:
        options: Options of the call.
        evaluator: Evaluation of candidates.
        account: The study's entries in the ledger of its data.
        terms: Terms of the study, as the ledger keeps them.
        identity: Identity of the study: a later call that differs in it is refused.
        draws: Settings to draw.
        watch: Progress, as callbacks receive it.
        started: Time of the start, in seconds of the monotonic clock.
        attempts: Number of a trial -> name of its attempt.
    """

    options: SearchOptions
    evaluator: Evaluator
    account: Account
    terms: Mapping[str, Any]
    identity: Mapping[str, Any]
    draws: Draws
    watch: Watch
    started: float
    attempts: dict[int, str] = field(default_factory=dict)

    @classmethod
    def begin(cls, options: SearchOptions) -> "StudySearch":
        """Prepare the study, check it, and read its account; nothing is spent.

        Raises:
            InputError: If the study is unfit, or began with other terms.
        """
        started, watch = time.monotonic(), Watch(options.callbacks, options.n_trials)
        spec, policy = options.spec.on(day_of(options.home)), options.policy
        evaluator = Evaluator(spec, options.home, policy, watch.stage, name=options.name)
        prepared = evaluator.prepared
        check_prepared(prepared)
        keep_day(options.home, prepared.data.terms.as_of)
        identity = study_identity(prepared)
        key = prepared.key.child(options.name, json.dumps(identity, sort_keys=True), options.n_trials)
        n_trials, space, first = drawn(policy, key, options.n_trials), space_of(spec.space), initial_trials(spec.space)
        if options.secret:
            # Independent draws, from the secret key: an open seed, or 32 bits of one, would number them.
            identity["mean_trials"] = options.n_trials
            settings = key.generator("settings")
            first = [space.draw(settings) for _ in range(n_trials)]
            mark_internal(options.home, storage=options.storage is not None)
        limit, answers = budget_filter(policy, prepared, evaluator.answers), evaluator.answers
        account = account_of(prepared, name=options.name, answers=answers, counts=evaluator.counts, limit=limit)
        terms = terms_of(policy, prepared, limit, law=(options.n_trials, key) if options.secret else None)
        if not account.begun(terms) and options.secret:
            check_cap_admits_all(account, prepared, options.n_trials)
        return cls(
            options=options,
            evaluator=evaluator.covering(account.covered()),
            account=account,
            terms=terms,
            identity=identity,
            draws=Draws(n_trials=n_trials, space=space, first=first),
            watch=watch,
            started=started,
        )

    def run(self) -> tuple[TrialRecord, ...]:
        """Run every generation: reserve its trainings in the ledger, train, judge, settle.

        Raises:
            PolicyError: If the budget admits not one trial.
        """
        options, draws = self.options, self.draws
        self.watch.compose = self._composed
        self.watch.secret = SECRET if options.secret else ""
        with ExitStack() as charges:
            searched = search(
                self.evaluator,
                draws.space,
                GOALS,
                n_trials=draws.n_trials,
                storage=options.storage if options.storage is not None else options.home / "study.db",
                name=options.name,
                seed=options.seed,
                enqueue=draws.first,
                config=self.identity,
                constraint_names=CONSTRAINTS,
                sampler=options.sampler,
                executor=options.executor,
                workers=options.workers,
                environments=worker_environments(
                    options.spec.machine, executor=options.executor, workers=options.workers
                ),
                before=lambda candidates: self._reserve(candidates, charges),
                attempts=lambda number: self.attempts.get(number, ""),
                lost=self.evaluator.lost,
                callbacks=[self._settle, self.watch.trial],
            )
        forget_all(options.home)
        trials = tuple(record_of(trial) for trial in searched.trials)
        if all(trial.cause == REFUSED for trial in trials):
            raise self._too_small()
        return trials

    def close(self, trials: tuple[TrialRecord, ...]) -> StudyResult:
        """Compose the cost of a finished search, and write down in the ledger what leaves."""
        options, prepared, spec = self.options, self.evaluator.prepared, self.evaluator.spec
        self.account.check()
        cost = search_cost(self.account, prepared, options.policy, trials, n_trials=options.n_trials)
        status_quo = self.watch.reference
        trained = sum(sum(t.seconds.values()) for t in (*trials, *([status_quo] if status_quo else [])))
        seconds = max(time.monotonic() - self.started, trained)
        result = StudyResult(
            name=options.name,
            spec=spec.to_json(),
            trials=trials,
            reference=status_quo,
            limits={"max_risk": spec.max_risk, "max_penalty": spec.max_penalty},
            cost=cost,
            about=study_about(prepared, sampler=check_sampler(options.sampler), seconds=seconds),
        )
        if options.secret:
            result, winner = winner_alone(result)
            leaves = {"policy": str(options.policy), "trials": [] if winner is None else [winner]}
            self.account.release(leaves, only=True)
        elif options.policy.name == "publish_all":
            self.account.release({"policy": str(options.policy), "what": "front, curves and models"})
        return result

    def _reserve(self, candidates: Sequence[Candidate], charges: ExitStack) -> Mapping[int, Outcome]:
        """Charge a generation before it trains; return the outcomes of refused trials.

        Raises:
            PolicyError: If one is refused and the number of trials is secret: ending early would break its law.
        """
        self.account.open(self.terms)
        if self.options.policy.allows_reference and self.account.cap is None and self.watch.reference is None:
            self.watch.reference = status_quo_record(self.evaluator, self.identity, self.account)
        runs = {c.number: self.evaluator.plan(params_of(c.params)).run for c in candidates}
        denied = charges.enter_context(charge_trainings(self.account, runs, answers=True))
        self.attempts.update(self.account.attempts())
        if denied and self.options.secret:
            raise PolicyError(next(iter(denied.values())))
        return {c.number: self.evaluator.refused(c) for c in candidates if c.number in denied}

    def _settle(self, progress: Progress) -> None:
        settle_trial(self.account, self.evaluator, record_of(progress.newest))

    def _composed(self) -> ComposedEpsilon:
        return compose(self.account.events(), delta=self.evaluator.spec.training.target_delta)

    def _too_small(self) -> PolicyError:
        """Return the error of a study that got not one trial admitted."""
        account, limit = self.account, self.account.limit
        if limit is None:
            return PolicyError(
                "A trial must fit under the cap, but {capped}; see moo ledger cap.",
                capped=describe_cap(account.cap, account.ledger.charged()),
            )
        once = [*account.answers, *account.counts]
        strictest = runs_at(self.evaluator.prepared, self.evaluator.spec.space.target_epsilon[0])
        return PolicyError(
            "The budget must admit one trial, but {policy} does not: the cheapest alone composes to epsilon "
            "{epsilon:.2f} with its {n_answers} noised answers; raise the budget, lower space.target_epsilon, or "
            "raise answer_noise.",
            policy=str(self.options.policy),
            epsilon=min(compose_epsilon([run, *once], delta=limit.delta) for run in strictest),
            n_answers=len(once),
        )
