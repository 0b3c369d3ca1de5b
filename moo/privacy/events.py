"""Events: training runs and noised answers as data. Epsilon is derived from them, never stored."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from moo.core import validate

if TYPE_CHECKING:
    import dp_accounting


@dataclass(frozen=True, kw_only=True)
class TrainingRun:
    """One training run of one shadow, as its accountant sees it.

    Attributes:
        sample_rate: Probability with which a unit enters a step's batch, in (0, 1].
        steps: Noisy steps taken, >= 0.
        noise_multiplier: Standard deviation of the noise over max_grad_norm; 0 means no DP.
        max_grad_norm: Norm to which each unit's gradient is clipped.
        delta: Target delta.
        n_units: Expected units that the shadow is trained on, from public numbers.
        unit: What is protected: "customer", "user" or "record".
        shadows_per_unit: Runs of the same trial that one unit takes part in: K / 2.
        sampler: "poisson" is what the accounting holds for; anything else says how batches were
            drawn, e.g. "shuffled".
        normaliser: "public" or "private": what the summed gradient is divided by.
        neighboring_relation: "add_or_remove_one".
        zero_noise_steps: Steps in which a tensor had no noise, or less than claimed; any of them
            breaks the guarantee.
        bare_tensors: Names of those tensors.
        part: Part of the data with its units; see `PrivateAnswer`.
    """

    sample_rate: float
    steps: int
    noise_multiplier: float
    max_grad_norm: float
    delta: float
    n_units: int
    unit: str
    shadows_per_unit: int = 1
    sampler: str = "poisson"
    normaliser: Literal["public", "private"] = "public"
    neighboring_relation: Literal["add_or_remove_one"] = "add_or_remove_one"
    zero_noise_steps: int = 0
    bare_tensors: str = ""
    part: str = "pool"

    def __post_init__(self) -> None:
        validate.in_range(0, 1, sample_rate=validate.positive(sample_rate=self.sample_rate))
        validate.in_range(0, 10**9, steps=self.steps)
        validate.in_range(0, 1e9, noise_multiplier=self.noise_multiplier)
        validate.in_range(1, 10**12, n_units=self.n_units)
        validate.in_range(1, 10**6, shadows_per_unit=self.shadows_per_unit)

    @property
    def private(self) -> bool:
        return self.noise_multiplier > 0

    def to_dp_event(self, *, runs: int = 1) -> "dp_accounting.DpEvent":
        """Return the dp-accounting event of `runs` such runs on the same units."""
        import dp_accounting

        if not self.private:
            return dp_accounting.NonPrivateDpEvent()
        step = dp_accounting.PoissonSampledDpEvent(
            self.sample_rate, dp_accounting.GaussianDpEvent(self.noise_multiplier)
        )
        return dp_accounting.SelfComposedDpEvent(step, self.steps * runs)

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "TrainingRun":
        return cls(**data)


@dataclass(frozen=True, kw_only=True)
class PrivateAnswer:
    """Number computed from private units and released with Gaussian noise.

    Attributes:
        name: What it says, e.g. "accuracy".
        sensitivity: The most by which adding or removing one unit moves the number; its unit is the
            number's.
        noise_multiplier: Standard deviation of the noise over the sensitivity, > 0.
        part: Part of the data with the units that it reads; parts are disjoint, so a unit pays for the answers
            of its own
            part alone.
    """

    name: str
    sensitivity: float
    noise_multiplier: float
    part: str = "pool"

    def __post_init__(self) -> None:
        validate.finite(sensitivity=validate.positive(sensitivity=self.sensitivity))
        validate.finite(noise_multiplier=validate.positive(noise_multiplier=self.noise_multiplier))

    @property
    def stddev(self) -> float:
        """Standard deviation of the noise, in the number's unit."""
        return self.sensitivity * self.noise_multiplier

    def to_dp_event(self) -> "dp_accounting.DpEvent":
        import dp_accounting

        return dp_accounting.GaussianDpEvent(self.noise_multiplier)

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "PrivateAnswer":
        return cls(**data)


Event = TrainingRun | PrivateAnswer
