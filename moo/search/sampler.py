"""Samplers; the only file that names Optuna's.

Each trial gets a new one, seeded by (seed, number).

So a search that was cut off anywhere, even half-way through suggesting one trial, goes on as if it
never had been.
"""

import copy
import hashlib
import warnings
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from moo.core import validate
from moo.core.errors import InputError
from moo.core.trial_record import SAMPLERS

NAMES, DEFAULT = SAMPLERS, SAMPLERS[0]
# Draw all dimensions together; the others draw one after another.
_JOINT = ("nsga2", "nsga3", "gp")

Sampler = str | BaseSampler


def check_sampler(sampler: object) -> str:
    """Return the name by which a study is known to use a sampler.

    Raises:
        InputError: If it is neither a known name nor an Optuna sampler.
    """
    if isinstance(sampler, BaseSampler):
        return type(sampler).__name__
    if not isinstance(sampler, str):
        raise InputError(
            "sampler must be one of {names} or an Optuna sampler object, got {sampler!r}.",
            names=list(NAMES),
            sampler=sampler,
        )
    return validate.one_of(NAMES, sampler=sampler)


def _seed(*parts: object) -> int:
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:4])


def _made(name: str, population: int, seed: int) -> BaseSampler:
    makers: dict[str, Callable[[], BaseSampler]] = {
        "nsga2": lambda: optuna.samplers.NSGAIISampler(population_size=population, seed=seed),
        "nsga3": lambda: optuna.samplers.NSGAIIISampler(population_size=population, seed=seed),
        "tpe": lambda: optuna.samplers.TPESampler(seed=seed, multivariate=False),
        "gp": lambda: optuna.samplers.GPSampler(seed=seed, warn_independent_sampling=False),
        "random": lambda: optuna.samplers.RandomSampler(seed=seed),
    }
    with warnings.catch_warnings():
        # "nsga3" and "gp" are marked experimental; their names are our contract, not theirs
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return makers[name]()


@dataclass(frozen=True, kw_only=True)
class Draw:
    """One trial to be drawn.

    Attributes:
        number: Number of the trial.
        population: Trials of a generation.
        seed: Seed of the study.
        space: Distributions by name, each with more than one value.
        fixed: Parameters that are taken as they are; None draws them.
    """

    number: int
    population: int
    seed: int
    space: Mapping[str, BaseDistribution]
    fixed: Mapping[str, float | int] | None = None


class TrialSampler(BaseSampler):
    """Sampler of one trial: the fixed parameters if any, else the sampler behind it.

    A named sampler sees the generations before its own as finished and its own as running, whatever
    an earlier call has finished of it. An Optuna sampler is used as it is.
    """

    def __init__(self, sampler: Sampler, draw: Draw) -> None:
        self._name = sampler if isinstance(sampler, str) else ""
        self._draw = draw
        self._behind = sampler if isinstance(sampler, BaseSampler) else self._seeded()

    def _seeded(self, *more: str) -> BaseSampler:
        return _made(self._name, self._draw.population, _seed(self._draw.seed, self._draw.number, *more))

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        if self._draw.fixed is not None:
            return {}
        if not self._name:
            return self._behind.infer_relative_search_space(study, trial)
        # the space is ours and never changes: Optuna's own inference looks at every trial again
        return dict(sorted(self._draw.space.items())) if self._name in _JOINT else {}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        # asked even for fixed parameters: a genetic sampler notes the trial's generation here
        drawn = self._behind.sample_relative(self._seen(study), trial, search_space)
        return {} if self._draw.fixed is not None else drawn

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        if self._draw.fixed is not None:
            return self._draw.fixed[param_name]
        # a stream for each dimension: a trial that was cut off between two of them goes on with the
        # same values
        behind = self._seeded(param_name) if self._name else self._behind
        return behind.sample_independent(self._seen(study), trial, param_name, param_distribution)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        self._behind.before_trial(study, trial)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        self._behind.after_trial(study, trial, state, values)

    def _seen(self, study: Study) -> Study:
        """Return the study with the trials of this generation as running ones."""
        first = self._draw.number - self._draw.number % self._draw.population
        if not self._name or not any(t.state.is_finished() for t in study._get_trials(deepcopy=False)[first:]):
            return study

        def trials(
            deepcopy: bool = True, states: Container[TrialState] | None = None, use_cache: bool = False
        ) -> list[FrozenTrial]:
            known = study._get_trials(deepcopy=deepcopy, use_cache=use_cache)
            seen = known[:first] + [_running(t) if t.state.is_finished() else t for t in known[first:]]
            return [t for t in seen if states is None or t.state in states]

        seen = copy.copy(study)
        seen._get_trials = trials  # type: ignore[method-assign]
        return seen


def _running(trial: FrozenTrial) -> FrozenTrial:
    """Return a trial as it was before it finished."""
    out = copy.copy(trial)
    out.state, out.values, out.datetime_complete = TrialState.RUNNING, None, None
    return out
