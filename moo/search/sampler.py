"""Samplers: the only file that names Optuna's. A sampler is made anew for each trial from (seed, number).

So a search that was cut off anywhere, even half-way through suggesting one trial, goes on as if it never had been.
"""

import hashlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from moo import validate

NAMES = ("nsga2", "nsga3", "tpe", "gp", "random")


def _seed(*parts: object) -> int:
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:4])


def _inner(name: str, population: int, seed: int) -> BaseSampler:
    validate.one_of(NAMES, sampler=name)
    makers: dict[str, Callable[[], BaseSampler]] = {
        "nsga2": lambda: optuna.samplers.NSGAIISampler(population_size=population, seed=seed),
        "nsga3": lambda: optuna.samplers.NSGAIIISampler(population_size=population, seed=seed),
        "tpe": lambda: optuna.samplers.TPESampler(seed=seed),
        "gp": lambda: optuna.samplers.GPSampler(seed=seed),
        "random": lambda: optuna.samplers.RandomSampler(seed=seed),
    }
    with (
        warnings.catch_warnings()
    ):  # "nsga3" and "gp" are marked experimental; their names are our contract, not theirs
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return makers[name]()


class TrialSampler(BaseSampler):
    """Draws one trial: the fixed parameters if there are any, else those of the sampler behind it.

    Args:
        sampler: A name of `NAMES`, or an Optuna sampler, which is then used as it is.
        population: Of a generation.
        seed: Of the study.
        number: Of the trial.
        fixed: Parameters to be taken as they are.
    """

    def __init__(
        self,
        sampler: str | BaseSampler,
        *,
        population: int,
        seed: int,
        number: int,
        fixed: Mapping[str, float | int] | None,
    ) -> None:
        self._own = isinstance(sampler, str)
        self._behind = _inner(sampler, population, _seed(seed, number)) if isinstance(sampler, str) else sampler
        self._seed, self._number, self._fixed = seed, number, fixed

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return {} if self._fixed is not None else self._behind.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        # asked even for fixed parameters: a genetic sampler notes the trial's generation here
        drawn = self._behind.sample_relative(study, trial, search_space)
        return {} if self._fixed is not None else drawn

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        if self._fixed is not None:
            return self._fixed[param_name]
        if not self._own:
            return self._behind.sample_independent(study, trial, param_name, param_distribution)
        one = optuna.samplers.RandomSampler(seed=_seed(self._seed, self._number, param_name))
        return one.sample_independent(study, trial, param_name, param_distribution)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        self._behind.before_trial(study, trial)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        self._behind.after_trial(study, trial, state, values)
