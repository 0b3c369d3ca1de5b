"""Ask and tell, a generation at a time: the driver asks for all of it, evaluates in any order, tells in order of number."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import optuna
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, Trial, TrialState

from moo import validate
from moo.errors import InputError
from moo.records import Measurement
from moo.search import executors
from moo.search.sampler import TrialSampler
from moo.search.space import Space
from moo.search.storage import OUTCOME, as_url, driver, open_study
from moo.search.types import Candidate, Goal, Outcome, Progress, SearchResult, SearchTrial

Before = Callable[[Sequence[Candidate]], Mapping[int, Outcome]]

REFUSED = "refused by the budget"  # the cause of a trial that `before` did not admit
FAILED = "failed"  # the constraint that every failed trial violates, and every other satisfies
# optuna-dashboard 0.21 reads this list alone. Optuna adds its entries to the named constraints, under "0", "1", ...: every
# violation counts twice, which leaves all comparisons between trials as they are.
_LEGACY = "constraints"


def default_population(n_trials: int) -> int:
    """Small, since budgets are: NSGA-II needs several generations to do better than chance."""
    return max(8, min(20, n_trials // 6))


def search(
    evaluate: executors.Evaluate,
    space: Space,
    goals: Sequence[Goal],
    *,
    n_trials: int,
    storage: str | Path | None = None,
    name: str = "search",
    seed: int = 0,
    population: int | None = None,
    enqueue: Sequence[Mapping[str, float | int]] = (),
    config: Mapping[str, Any] | None = None,
    constraint_names: Sequence[str] = (),
    sampler: str | BaseSampler = "nsga2",
    executor: str = "inline",
    workers: int = 1,
    environments: Sequence[Mapping[str, str]] = (),
    before: Before | None = None,
    callbacks: Sequence[Callable[[Progress], None]] = (),
) -> SearchResult:
    """Search any black box for its Pareto front, resumably.

    The same name with the same configuration goes on where it stopped; the result does not depend on where that was, on the
    executor or on the order in which trials finish.

    Args:
        evaluate: From a candidate to its outcome. May raise `TrialError`: the trial is then recorded as failed.
        space: What is varied.
        goals: The objectives.
        n_trials: In all, those of earlier calls included.
        storage: Optuna storage URL or SQLite path; None keeps all in memory.
        name: Of the study in the storage.
        seed: Of the sampler.
        population: Trials of a generation; by default small, see `default_population`. Fixed when the study is made.
        enqueue: Parameters of the first trials.
        config: What else makes this study what it is; a later call with another one is refused.
        constraint_names: Constraints that a failed trial violates.
        sampler: "nsga2", "nsga3", "tpe", "gp", "random", or an Optuna sampler.
        executor: "inline" or "processes".
        workers: Processes at a time.
        environments: Variables of each process; see `moo.search.executors.run`.
        before: Called in the driver, once the configuration is known to fit, with the candidates of each generation that
            are about to be evaluated; none where an earlier call evaluated them all. Returns the outcomes of those that it refuses,
            with cause `REFUSED`: they are told as failed. The search ends with a generation that is refused whole.
        callbacks: Called in the driver after every evaluation.

    Raises:
        InputError: If an argument is out of bounds.
        ConfigChangedError: If the name is taken by another configuration.
        StorageError: If the storage cannot be used.
    """
    validate.in_range(1, 1_000_000, n_trials=n_trials)
    if population is not None:
        validate.in_range(2, 10_000, population=population)
    fixed = [space.check(params) for params in enqueue]
    settings = {
        "space": space.to_json(),
        "goals": [[g.name, g.direction, g.reference] for g in goals],
        "seed": seed,
        "sampler": sampler if isinstance(sampler, str) else type(sampler).__name__,
        "enqueue": fixed,
        **(config or {}),
    }
    url = as_url(storage)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with driver(url):
        study = open_study(url, name, [g.direction for g in goals], [g.name for g in goals], settings)
        size = study.user_attrs.get("moo:population")
        if size is None:
            size = population or default_population(n_trials)
            study.set_user_attr("moo:population", size)
        elif population not in (None, size):
            raise InputError(f"population={size} was fixed when study {name!r} began, but got population={population}.")
        run = _Run(study, space, goals, n_trials, seed, size, fixed, sampler, tuple(constraint_names))
        execute = partial(executors.run, evaluate, executor=executor, workers=workers, environments=environments)
        for generation in range(math.ceil(n_trials / size)):
            if not run.generation(generation, execute, before, callbacks):
                break
        run.remember()
        return SearchResult(name=name, trials=run.done())


@dataclass
class _Run:
    """One call of `search`."""

    study: optuna.Study
    space: Space
    goals: Sequence[Goal]
    n_trials: int
    seed: int
    population: int
    fixed: Sequence[Mapping[str, float | int]]
    sampler: str | BaseSampler
    constraint_names: tuple[str, ...]
    outcomes: dict[int, SearchTrial] = field(default_factory=dict)

    def done(self) -> tuple[SearchTrial, ...]:
        return tuple(self.outcomes[n] for n in sorted(self.outcomes))

    def remember(self) -> None:
        """Trials that an earlier call with more of them has finished; they were paid for."""
        for trial in self.study.get_trials(deepcopy=False):
            known = trial.user_attrs.get(OUTCOME)
            if trial.number not in self.outcomes and known is not None:
                candidate = self._candidate(trial, trial.number // self.population)
                self.outcomes[trial.number] = SearchTrial(candidate=candidate, outcome=Outcome.from_json(known))

    def generation(
        self,
        generation: int,
        execute: Callable[[Sequence[Candidate]], Iterable[tuple[Candidate, Outcome]]],
        before: Before | None,
        callbacks: Sequence[Callable[[Progress], None]],
    ) -> bool:
        """Evaluate what of a generation is not known yet; False where all of it was refused."""
        numbers = range(generation * self.population, min(self.n_trials, (generation + 1) * self.population))
        trials = {number: self._asked(number) for number in numbers}
        pending = []
        for number, trial in trials.items():
            candidate = self._candidate(trial, generation)
            known = trial.user_attrs.get(OUTCOME)
            if known is None:
                pending.append(candidate)
            else:
                self.outcomes[number] = SearchTrial(candidate=candidate, outcome=Outcome.from_json(known))
        refused = {} if before is None else before(pending)
        for candidate in pending:
            if candidate.number in refused:
                self._keep(trials[candidate.number], candidate, self._completed(refused[candidate.number]))
        admitted = [c for c in pending if c.number not in refused]
        for candidate, found in execute(admitted):
            newest = self._keep(trials[candidate.number], candidate, self._completed(found))
            for callback in callbacks:
                callback(Progress(done=self.done(), newest=newest, n_trials=self.n_trials))
        for number, trial in trials.items():
            if isinstance(trial, Trial):
                self._tell(trial, self.outcomes[number])
        return any(self.outcomes[number].outcome.cause != REFUSED for number in numbers)

    def _keep(self, trial: Trial | FrozenTrial, candidate: Candidate, outcome: Outcome) -> SearchTrial:
        """Write an outcome down before anything depends on it."""
        self.study._storage.set_trial_user_attr(trial._trial_id, OUTCOME, outcome.to_json())
        kept = SearchTrial(candidate=candidate, outcome=outcome)
        self.outcomes[candidate.number] = kept
        return kept

    def _asked(self, number: int) -> Trial | FrozenTrial:
        """The trial of this number, asked for now, or by an earlier call that may have been cut off in between."""
        fixed = self.fixed[number] if number < len(self.fixed) else None
        self.study.sampler = TrialSampler(
            self.sampler, population=self.population, seed=self.seed, number=number, fixed=fixed
        )
        known = self.study.get_trials(deepcopy=False)
        if number < len(known) and known[number].state != TrialState.RUNNING:
            return known[number]
        trial = Trial(self.study, known[number]._trial_id) if number < len(known) else self.study.ask()
        for name, dimension in self.space.items():
            trial._suggest(name, dimension.distribution())
        return trial

    def _candidate(self, trial: Trial | FrozenTrial, generation: int) -> Candidate:
        params = self.space.check(trial.params)
        earlier = self.study.get_trials(deepcopy=False)[: trial.number]
        return Candidate(
            number=trial.number,
            generation=generation,
            params=params,
            replicate=sum(t.params == params for t in earlier),
        )

    def _completed(self, outcome: Outcome) -> Outcome:
        """With every constraint set: a trial without one would count as feasible."""
        violated = dict.fromkeys(self.constraint_names, 1.0) if outcome.cause else {}
        constraints = {**violated, **outcome.constraints, FAILED: float(bool(outcome.cause))}
        return Outcome(values=outcome.values, constraints=constraints, payload=outcome.payload, cause=outcome.cause)

    def _tell(self, trial: Trial, told: SearchTrial) -> None:
        """Hand the outcome to Optuna. A failed trial is told as complete, at the reference values and infeasible.

        Optuna counts complete trials alone into a generation: a failed one would make the sampler wait for another.
        """
        known = trial.constraints
        for name, value in told.outcome.constraints.items():
            if name not in known:
                trial.set_constraint(name, value)
        self.study._storage.set_trial_system_attr(trial._trial_id, _LEGACY, list(told.outcome.constraints.values()))
        self.study.tell(trial, self._pooled(told))

    def _pooled(self, told: SearchTrial) -> list[float]:
        """Values for the sampler: the mean over this trial and its earlier replicates."""
        if told.outcome.cause:
            return [goal.reference for goal in self.goals]
        same = [
            t.outcome.values
            for t in self.done()
            if t.candidate.number <= told.candidate.number
            and t.candidate.params == told.candidate.params
            and not t.outcome.cause
        ]
        return [self._finite(goal, [values[goal.name] for values in same]) for goal in self.goals]

    @staticmethod
    def _finite(goal: Goal, measured: Sequence[Measurement]) -> float:
        mean = sum(m.value for m in measured) / len(measured)
        return mean if math.isfinite(mean) else goal.reference
