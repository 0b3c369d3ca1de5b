"""The search: arguments checked, one driver at a time, then a generation after another."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import optuna

from moo.core import validate
from moo.core.errors import InputError
from moo.search.executors import Evaluate, executor_of
from moo.search.lease import Lease, no_lease
from moo.search.sampler import DEFAULT, Sampler, check_sampler
from moo.search.search import Before, Run, lost_outcome
from moo.search.space import Space
from moo.search.storage import (
    Storage,
    check_storage,
    locked_file,
    name_of,
    sqlite_file,
    storage_errors,
    storage_session,
)
from moo.search.study_config import keep_config, open_study
from moo.search.types import Candidate, Goal, Outcome, Progress, SearchResult

POPULATION = "moo:population"


def default_population(n_trials: int) -> int:
    """Return a small population for a small budget.

    NSGA-II needs several generations to do better than chance.
    """
    return max(8, min(20, n_trials // 6))


def search(
    evaluate: Evaluate,
    space: Space,
    goals: Sequence[Goal],
    *,
    n_trials: int,
    storage: Storage = None,
    name: str = "search",
    seed: int = 0,
    population: int | None = None,
    enqueue: Sequence[Mapping[str, float | int]] = (),
    config: Mapping[str, Any] | None = None,
    constraint_names: Sequence[str] = (),
    sampler: Sampler = DEFAULT,
    executor: str = "inline",
    workers: int = 1,
    environments: Sequence[Mapping[str, str]] = (),
    before: Before | None = None,
    attempts: Callable[[int], str] = lambda _: "",
    lost: Callable[[Candidate], Outcome] = lost_outcome,
    callbacks: Sequence[Callable[[Progress], None]] = (),
) -> SearchResult:
    """Search any black box for its Pareto front, resumably.

    The same name with the same configuration goes on where it stopped; the result does not depend
    on where that was, on the executor or on the order in which trials finish.

    Args:
        evaluate: From a candidate to its outcome. May raise `TrialError`: the trial is then
            recorded as failed.
        space: Dimensions that are varied.
        goals: The objectives.
        n_trials: Number of trials in all, those of earlier calls included.
        storage: Optuna storage URL, journal:///PATH, path of an SQLite file or Optuna storage
            object; None keeps all in memory.
        name: Name of the study in the storage.
        seed: Seed of the sampler.
        population: Trials of a generation; by default small, see `default_population`. Fixed when
            the study is made.
        enqueue: Parameters of the first trials.
        config: What else makes this study what it is; a later call with another one is refused.
        constraint_names: Constraints that every trial must have, and that a failed trial violates.
        sampler: "nsga2", "nsga3", "tpe", "gp", "random", or an Optuna sampler object, with which a
            study that was cut off cannot go on: its state is lost.
        executor: "inline" or "processes". A trial is evaluated once more, alone,
            after another call of `before`; if that process dies too, the trial has failed with
            cause `LOST`.
        workers: Processes at a time.
        environments: Variables of each process; see `moo.search.executors.executor_of`.
        before: Called in the driver, once the configuration is known to fit, with the candidates of
            each generation that are about to be evaluated; none where an earlier call evaluated
            them all. Returns the outcomes of those that it refuses, with cause `REFUSED`: they are
            recorded as failed. The search ends with a generation that is refused whole.
        attempts: From the number of an admitted trial to `Candidate.attempt`; called after
            `before`.
        lost: Maker of the outcome of a trial that killed its process twice.
        callbacks: Called in the driver after every evaluation.

    Raises:
        InputError: If an argument is out of bounds, or an outcome lacks an objective or a
            constraint; see `outcomes.checked`.
        ConfigChangedError: If the name is taken by another configuration.
        StorageError: If the storage cannot be used (InputError: it is malformed).
        MachineError: If worker processes do not start.
    """
    validate.in_range(1, 1_000_000, n_trials=n_trials)
    check_storage(storage)
    if population is not None:
        validate.in_range(2, 10_000, population=population)
    fixed = [space.check(params) for params in enqueue]
    settings = {
        "space": space.to_json(),
        "goals": [[g.name, g.direction, g.reference] for g in goals],
        "seed": seed,
        "sampler": check_sampler(sampler),
        "enqueue": fixed,
        **(config or {}),
    }
    pool = executor_of(evaluate, executor=executor, workers=workers, environments=environments)
    file = sqlite_file(storage)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with storage_errors(storage), locked_file(file), storage_session(storage) as backend:
        study = open_study(backend, name, [g.direction for g in goals], [g.name for g in goals])
        alone = no_lease() if storage is None or file else Lease(study, name_of(storage))
        with alone as lease, pool:
            keep_config(study, [g.name for g in goals], settings)
            run = Run(
                study=study,
                space=space,
                goals=goals,
                n_trials=n_trials,
                seed=seed,
                population=_population(study, population, n_trials),
                fixed=fixed,
                sampler=sampler,
                constraint_names=tuple(constraint_names),
                executor=pool,
                before=before or (lambda _: {}),
                attempts=attempts,
                lost=lost,
                callbacks=callbacks,
                check=lease.check if lease else lambda: None,
            )
            return run.all()


def _population(study: optuna.Study, wanted: int | None, n_trials: int) -> int:
    size: int | None = study.user_attrs.get(POPULATION)
    if size is None:
        size = wanted or default_population(n_trials)
        study.set_user_attr(POPULATION, size)
    elif wanted not in (None, size):
        raise InputError(
            "population must be {size}, as when study {study_name!r} began, got {wanted}.",
            size=size,
            study_name=study.study_name,
            wanted=wanted,
        )
    return size
