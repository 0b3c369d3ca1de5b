"""Ask and tell by generations: ask for all, evaluate in any order, tell in order of number."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import optuna
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, Trial, TrialState

from moo.core.errors import InputError
from moo.core.measurement import Measurement
from moo.search.executors import Executor
from moo.search.outcomes import checked
from moo.search.sampler import Draw, Sampler, TrialSampler
from moo.search.space import Space
from moo.search.study_config import OUTCOME
from moo.search.types import Candidate, Goal, Outcome, Progress, SearchResult, SearchTrial

Before = Callable[[Sequence[Candidate]], Mapping[int, Outcome]]
_Params = tuple[tuple[str, float | int], ...]

# The cause of a trial that `before` did not admit.
REFUSED = "refused by the budget"
# Cause of a trial that killed its process twice.
LOST = "worker lost"
# The constraint that every failed trial violates, and every other satisfies.
FAILED = "failed"
CONSTRAINTS = "moo:constraints"
# The one form of constraints that optuna-dashboard 0.21 shows, and that Optuna reads as "0", "1",
# ...: a list. Its order is kept in the study under `CONSTRAINTS`. To set them by name too would
# Count each twice.
_LIST = "constraints"


def lost_outcome(_: Candidate) -> Outcome:
    """Return the outcome of a trial that killed its process twice."""
    return Outcome(values={}, constraints={}, cause=LOST)


@dataclass(kw_only=True)
class Run:
    """One call of `search`. Trials are looked at in order of number, each once.

    Attributes:
        outcomes: Trials by number.
        _judged: Constraints of the first trial that did not fail, which all others must have; None
            before it.
        _times: Trials so far that had the same parameters.
        _measured: Values that trials of the same parameters had.
    """

    study: optuna.Study
    space: Space
    goals: Sequence[Goal]
    n_trials: int
    seed: int
    population: int
    fixed: Sequence[Mapping[str, float | int]]
    sampler: Sampler
    constraint_names: tuple[str, ...]
    executor: Executor
    before: Before
    attempts: Callable[[int], str]
    lost: Callable[[Candidate], Outcome]
    callbacks: Sequence[Callable[[Progress], None]]
    check: Callable[[], None]
    outcomes: dict[int, SearchTrial] = field(default_factory=dict)
    _judged: tuple[str, ...] | None = None
    _times: dict[_Params, int] = field(default_factory=dict)
    _measured: dict[_Params, list[Mapping[str, Measurement]]] = field(default_factory=dict)

    def all(self) -> SearchResult:
        """Run every generation."""
        self._refuse_another_object()
        # samplers that have seen all of their space ask to stop; here the number of trials is the
        # caller's
        self.study.stop = lambda: None  # type: ignore[method-assign]
        for generation in range(math.ceil(self.n_trials / self.population)):
            if not self._generation(generation):
                break
        self._remember()
        return SearchResult(name=self.study.study_name, trials=self._done())

    def _refuse_another_object(self) -> None:
        """Refuse to go on with a sampler object, which would begin again at its own start.

        It would not draw what it would have drawn without the interruption.
        """
        known = self.study.get_trials(deepcopy=False)
        drawn = sum(set(t.params) == set(self.space) for t in known)
        if isinstance(self.sampler, BaseSampler) and known and drawn < self.n_trials:
            raise InputError(
                "sampler must be a name, e.g. 'tpe', for a study to go on, but {study_name!r} has "
                "{drawn} of {n_trials} trials from a {type} object, whose state is lost; use another "
                "name for the study.",
                study_name=self.study.study_name,
                drawn=drawn,
                n_trials=self.n_trials,
                type=type(self.sampler).__name__,
            )

    def _done(self) -> tuple[SearchTrial, ...]:
        return tuple(self.outcomes[n] for n in sorted(self.outcomes))

    def _remember(self) -> None:
        """Add trials that an earlier call with more of them has finished; they were paid for."""
        for trial in self.study.get_trials(deepcopy=False):
            known = trial.user_attrs.get(OUTCOME)
            if trial.number not in self.outcomes and known is not None:
                self._add(self._candidate(trial, trial.number // self.population), Outcome.from_json(known))

    def _generation(self, generation: int) -> bool:
        """Evaluate the unknown trials of a generation; return False if all were refused."""
        self.check()
        numbers = range(generation * self.population, min(self.n_trials, (generation + 1) * self.population))
        trials = {number: self._asked(number) for number in numbers}
        pending = []
        for trial in trials.values():
            candidate, known = self._candidate(trial, generation), trial.user_attrs.get(OUTCOME)
            if known is None:
                pending.append(candidate)
            else:
                self._add(candidate, Outcome.from_json(known))
        # before anything is charged: a worker that cannot start costs nobody anything
        self.executor.start(len(pending))
        refused = self.before(pending)
        for candidate in pending:
            if candidate.number in refused:
                self._keep(trials[candidate.number], candidate, refused[candidate.number])
        for candidate, found in self._evaluated([c for c in pending if c.number not in refused]):
            self.check()
            newest = self._keep(trials[candidate.number], candidate, self._checked(found, candidate.number))
            for callback in self.callbacks:
                callback(Progress(done=self._done(), newest=newest, n_trials=self.n_trials))
        for number, trial in trials.items():
            self._tell(trial, self.outcomes[number])
        return any(self.outcomes[number].outcome.cause != REFUSED for number in numbers)

    def _evaluated(self, admitted: Sequence[Candidate]) -> Iterator[tuple[Candidate, Outcome]]:
        """Yield outcomes as they finish.

        A trial is reserved and evaluated once more, alone, if its process died.
        """
        lost = []
        for candidate, found in self.executor.run([self._named(c) for c in admitted]):
            if found is None:
                lost.append(candidate)
            else:
                yield candidate, found
        for candidate in lost:
            again = [] if candidate.number in self.before([candidate]) else [self._named(candidate)]
            found = next((outcome for _, outcome in self.executor.run(again)), None)
            yield candidate, found or self.lost(candidate)

    def _checked(self, outcome: Outcome, number: int) -> Outcome:
        names = self.constraint_names if self._judged is None else self._judged
        return checked(outcome, self.goals, names, number=number, closed=self._judged is not None)

    def _named(self, candidate: Candidate) -> Candidate:
        return replace(candidate, attempt=self.attempts(candidate.number))

    def _asked(self, number: int) -> Trial | FrozenTrial:
        """Return the trial of this number, asked for now or by an earlier, interrupted call."""
        space = {name: dimension.distribution() for name, dimension in self.space.items()}
        draw = Draw(
            number=number,
            population=self.population,
            seed=self.seed,
            space={name: d for name, d in space.items() if not d.single()},
            fixed=self.fixed[number] if number < len(self.fixed) else None,
        )
        self.study.sampler = TrialSampler(self.sampler, draw)
        known = self.study.get_trials(deepcopy=False)
        if number < len(known) and known[number].state != TrialState.RUNNING:
            return known[number]
        try:
            trial = Trial(self.study, known[number]._trial_id) if number < len(known) else self.study.ask()
            for name, distribution in space.items():
                trial._suggest(name, distribution)
        except (ValueError, NotImplementedError) as error:
            if isinstance(self.sampler, str):
                raise
            raise InputError(
                "sampler must fit {n_goals} goals and the space, but {type} does not: {error}",
                n_goals=len(self.goals),
                type=type(self.sampler).__name__,
                error=error,
            ) from error
        return trial

    def _candidate(self, trial: Trial | FrozenTrial, generation: int) -> Candidate:
        params = self.space.check(trial.params)
        same = tuple(params.items())
        earlier = self._times.get(same, 0)
        self._times[same] = earlier + 1
        return Candidate(number=trial.number, generation=generation, params=params, replicate=earlier)

    def _keep(self, trial: Trial | FrozenTrial, candidate: Candidate, outcome: Outcome) -> SearchTrial:
        """Write an outcome, with every constraint, before anything depends on it.

        Without a constraint it would count as feasible.
        """
        violated = dict.fromkeys(self.constraint_names, 1.0) if outcome.cause else {}
        constraints = {**violated, **outcome.constraints, FAILED: float(bool(outcome.cause))}
        complete = replace(outcome, constraints=constraints)
        self.study._storage.set_trial_user_attr(trial._trial_id, OUTCOME, complete.to_json())
        return self._add(candidate, complete)

    def _add(self, candidate: Candidate, outcome: Outcome) -> SearchTrial:
        if self._judged is None and not outcome.cause:
            self._judged = tuple(name for name in outcome.constraints if name != FAILED)
        kept = SearchTrial(candidate=candidate, outcome=outcome)
        self.outcomes[candidate.number] = kept
        return kept

    def _tell(self, trial: Trial | FrozenTrial, kept: SearchTrial) -> None:
        """Report the outcome to Optuna.

        A failed trial is complete there, at the reference values and infeasible.

        Optuna counts complete trials alone into a generation: a failed one would make the sampler
        wait for another.
        """
        values = self._pooled(kept)
        if isinstance(trial, Trial):
            self.study._storage.set_trial_system_attr(trial._trial_id, _LIST, self._listed(kept.outcome))
            self.study.tell(trial, values)

    def _listed(self, outcome: Outcome) -> list[float]:
        """Return the constraints in the order that the first generation fixed.

        Samplers want as many of each trial.

        Where all of that generation failed, later constraints are in the last number, of `FAILED`.
        """
        names = self.study.user_attrs.get(CONSTRAINTS)
        if names is None:
            names = [*(self._judged or self.constraint_names), FAILED]
            self.study.set_user_attr(CONSTRAINTS, names)
        further = [value for name, value in outcome.constraints.items() if name not in names]
        listed = [outcome.constraints.get(name, 1.0) for name in names[:-1]]
        return [*listed, max([outcome.constraints[FAILED], *further])]

    def _pooled(self, kept: SearchTrial) -> list[float]:
        """Return values for the sampler: the mean over this trial and its earlier replicates."""
        if kept.outcome.cause:
            return [goal.reference for goal in self.goals]
        same = self._measured.setdefault(tuple(kept.candidate.params.items()), [])
        same.append(kept.outcome.values)
        return [self._finite(goal, [values[goal.name] for values in same]) for goal in self.goals]

    @staticmethod
    def _finite(goal: Goal, measured: Sequence[Measurement]) -> float:
        mean = sum(m.value for m in measured) / len(measured)
        return mean if math.isfinite(mean) else goal.reference
