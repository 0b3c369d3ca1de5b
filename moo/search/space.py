"""Search space: named dimensions with bounds."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution

from moo.core.errors import InputError
from moo.core.validate import argument_error

Params = dict[str, float | int]


@dataclass(frozen=True)
class Real:
    """Number between low and high, ends included, on a log scale where `log` is true."""

    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low <= self.high):
            raise argument_error("{name} must have finite bounds, low <= high", "Real", (self.low, self.high))
        if self.log and self.low <= 0:
            raise argument_error("{name} must be > 0 on a log scale", "low", self.low)

    def distribution(self) -> BaseDistribution:
        return FloatDistribution(self.low, self.high, log=self.log)

    def draw(self, rng: np.random.Generator) -> float:
        if not self.log:
            return float(rng.uniform(self.low, self.high))
        drawn = math.exp(rng.uniform(math.log(self.low), math.log(self.high)))
        return min(max(drawn, self.low), self.high)


@dataclass(frozen=True)
class Integer:
    """Whole number between low and high, ends included.

    Ordered things are integers, so that their order is used.
    """

    low: int
    high: int

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise argument_error("{name} must have low <= high", "Integer", (self.low, self.high))

    def distribution(self) -> BaseDistribution:
        return IntDistribution(self.low, self.high)

    def draw(self, rng: np.random.Generator) -> int:
        return int(rng.integers(self.low, self.high, endpoint=True))


class Space(Mapping[str, Real | Integer]):
    """Dimensions by name, in order."""

    def __init__(self, dimensions: Mapping[str, Real | Integer]) -> None:
        if not dimensions:
            raise InputError("A space must have at least one dimension, got none.")
        self._dimensions = dict(dimensions)

    def __getitem__(self, name: str) -> Real | Integer:
        return self._dimensions[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._dimensions)

    def __len__(self) -> int:
        return len(self._dimensions)

    def check(self, params: Mapping[str, Any]) -> Params:
        """Return the parameters in the space's order and types.

        Raises:
            InputError: If one is missing, unknown or out of bounds.
        """
        for name in params:
            if name not in self:
                raise InputError("Parameters must be among {known}, got {name}.", known=list(self), name=name)
        out: Params = {}
        for name, dimension in self._dimensions.items():
            if name not in params:
                raise InputError("Parameter {name} must be given, got {params}.", name=name, params=sorted(params))
            value = params[name]
            if not dimension.low <= value <= dimension.high:
                rule = "{name} must be between {low:g} and {high:g}"
                raise argument_error(rule, name, value, low=dimension.low, high=dimension.high)
            out[name] = int(value) if isinstance(dimension, Integer) else float(value)
        return out

    def draw(self, rng: np.random.Generator) -> Params:
        """Draw parameters at random: uniform, on the log scale where a dimension has one."""
        return {name: dimension.draw(rng) for name, dimension in self._dimensions.items()}

    def to_json(self) -> dict[str, Any]:
        return {n: {"kind": type(d).__name__, **vars(d)} for n, d in self._dimensions.items()}
