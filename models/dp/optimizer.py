"""DP-SGD through Opacus' optimizer: secret noise and a public normaliser.

The bank clips (`moo.models.dp.clipping`) and leaves clipped sums in `p.grad`, as Opacus' ghost
clipping does. Opacus' optimizer for that case adds the noise and divides by the expected batch
size. Only the source of the noise differs: a secret stream for each shadow, never the open seed of
the study. Floating-point Gaussian sampling is not hardened against attacks on its lowest bits
(Mironov 2012).
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from opacus.optimizers import DPOptimizerFastGradientClipping
from torch import Tensor
from torch.optim import Optimizer

from moo.core import validate
from moo.core.errors import InputError


@dataclass(frozen=True, kw_only=True)
class DPSettings:
    """Clipping and noise of one step.

    Attributes:
        noise_multiplier: Standard deviation of the noise over max_grad_norm, one for all shadows or
            one per shadow; 0 trains without DP.
        max_grad_norm: Largest norm of a unit's gradient; `math.inf` (without DP only) does not
            clip.
        expected_batch_size: Expected units in a batch, computed from public numbers alone; > 0.
    """

    noise_multiplier: float | tuple[float, ...]
    max_grad_norm: float
    expected_batch_size: float

    def __post_init__(self) -> None:
        for noise in self.all_noise:
            validate.in_range(0, 1e6, noise_multiplier=noise)
        validate.positive(max_grad_norm=self.max_grad_norm)
        validate.finite(expected_batch_size=validate.positive(expected_batch_size=self.expected_batch_size))
        if any(self.all_noise):
            validate.finite(max_grad_norm=self.max_grad_norm, way_out="noise without clipping is no guarantee")

    @property
    def all_noise(self) -> tuple[float, ...]:
        """Return every noise multiplier in use."""
        return self.noise_multiplier if isinstance(self.noise_multiplier, tuple) else (self.noise_multiplier,)


def per_shadow(value: float | tuple[float, ...], n_shadows: int, name: str) -> tuple[float, ...]:
    """Return one number for each of K shadows.

    Raises:
        InputError: If `value` is a tuple of another length.
    """
    if not isinstance(value, tuple):
        return (value,) * n_shadows
    if len(value) != n_shadows:
        raise InputError(
            "{name} must have one value for each of {n_shadows} shadows, got {value}.",
            name=name,
            n_shadows=n_shadows,
            value=value,
        )
    return value


class ShadowNoise:
    """Standard normal noise from one secret stream per shadow."""

    def __init__(self, generators: Sequence[np.random.Generator]) -> None:
        self.generators = list(generators)

    def __call__(self, shadow: int, shape: torch.Size, device: torch.device) -> Tensor:
        """Return noise for one parameter of one shadow."""
        return torch.from_numpy(self.generators[shadow].standard_normal(shape, np.float32)).to(device)


NoisyGradients = Iterable[tuple[str, slice, Tensor, Tensor]]


def ignore_noise(_: NoisyGradients) -> None:
    """Accept any noise unchecked."""


class BankOptimizer(DPOptimizerFastGradientClipping):  # type: ignore[misc]
    """DP optimizer of a whole bank, around any inner optimizer.

    Args:
        optimizer: Inner optimizer over parameters of neighbouring shadows, the shadows' axis first.
        settings: Clipping, noise and normaliser.
        noise: (shadow, shape, device) -> standard normal noise.
        shadows_of: Shadows of each parameter, in the order of the optimizer's groups.
        names: Name of each parameter, in the same order.
        observe: Called at each step with (name, shadows, gradient handed over, clipped sum) of each
            parameter.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        settings: DPSettings,
        noise: Callable[[int, torch.Size, torch.device], Tensor],
        shadows_of: Sequence[slice],
        names: Sequence[str] = (),
        observe: Callable[[NoisyGradients], None] = ignore_noise,
    ) -> None:
        validate.positive(trainable_parameters=sum(len(g["params"]) for g in optimizer.param_groups))
        super().__init__(
            optimizer=optimizer,
            noise_multiplier=max(settings.all_noise),
            max_grad_norm=settings.max_grad_norm,
            expected_batch_size=settings.expected_batch_size,
        )
        self._noise, self._shadows_of = noise, tuple(shadows_of)
        n_shadows = max(shadows.stop for shadows in shadows_of)
        self._multipliers = per_shadow(settings.noise_multiplier, n_shadows, "noise_multiplier")
        self._names, self._observe = tuple(names) or ("",) * len(shadows_of), observe
        self.steps_taken = 0

    def add_noise(self) -> None:
        """Set `p.grad` to clipped sum + noise_multiplier * max_grad_norm * noise."""
        for p, shadows in zip(self.params, self._shadows_of, strict=True):
            p.grad.copy_(p.summed_grad)
            for own, shadow in zip(p.grad, range(shadows.start, shadows.stop), strict=True):
                if self._multipliers[shadow]:
                    own += self._multipliers[shadow] * self.max_grad_norm * self._noise(shadow, own.shape, own.device)

    def scale_grad(self) -> None:
        """Report the added noise, then divide by the expected batch size."""
        self.steps_taken += 1
        handed = zip(self._names, self._shadows_of, self.params, strict=True)
        self._observe((name, shadows, p.grad, p.summed_grad) for name, shadows, p in handed)
        super().scale_grad()
