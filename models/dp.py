"""DP-SGD through Opacus' optimizer: the noise, the public normaliser, and nothing that could undo either.

The bank clips (`moo.models.clipping`) and leaves clipped sums in `p.grad`, as Opacus' ghost clipping does; its optimizer
for that case adds the noise and divides by the expected batch size. What is ours is where the noise comes from: a secret
stream for each shadow, never the open seed of the study. Floating-point Gaussian sampling is not hardened against attacks
on its lowest bits (Mironov 2012).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from opacus.optimizers import DPOptimizerFastGradientClipping
from torch import Tensor
from torch.optim import Optimizer

from moo import validate


@dataclass(frozen=True, kw_only=True)
class DPSettings:
    """What one step adds.

    Attributes:
        noise_multiplier: Standard deviation of the noise over max_grad_norm; 0 trains without DP.
        max_grad_norm: Largest norm of a unit's gradient; `math.inf` (without DP only) does not clip.
        expected_batch_size: Expected units in a batch, from public numbers alone; > 0.
    """

    noise_multiplier: float
    max_grad_norm: float
    expected_batch_size: float

    def __post_init__(self) -> None:
        validate.in_range(0, 1e6, noise_multiplier=self.noise_multiplier)
        validate.positive(max_grad_norm=self.max_grad_norm)
        validate.finite(expected_batch_size=validate.positive(expected_batch_size=self.expected_batch_size))
        if self.noise_multiplier > 0:
            validate.finite(max_grad_norm=self.max_grad_norm, way_out="noise without clipping is no guarantee")


class ShadowNoise:
    """Standard normal noise, shadow by shadow, each from a secret stream of its own."""

    def __init__(self, generators: Sequence[np.random.Generator]) -> None:
        self._generators = list(generators)

    def __call__(self, shape: torch.Size, device: torch.device) -> Tensor:
        """Noise of shape (K, ...) for one parameter of the whole bank."""
        drawn = np.empty(shape, np.float32)
        for generator, row in zip(self._generators, drawn, strict=True):
            row[...] = generator.standard_normal(row.shape)
        return torch.from_numpy(drawn).to(device)


class BankOptimizer(DPOptimizerFastGradientClipping):  # type: ignore[misc]
    """One DP optimizer for the whole bank, whatever the inner optimizer."""

    def __init__(self, optimizer: Optimizer, settings: DPSettings, noise: ShadowNoise) -> None:
        validate.positive(trainable_parameters=sum(len(g["params"]) for g in optimizer.param_groups))
        super().__init__(
            optimizer=optimizer,
            noise_multiplier=settings.noise_multiplier,
            max_grad_norm=settings.max_grad_norm,
            expected_batch_size=settings.expected_batch_size,
        )
        self._noise = noise
        self.steps_taken = self.noisy_steps = 0
        self.attach_step_hook(_count)

    def add_noise(self) -> None:
        """`p.grad` = clipped sum + noise_multiplier * max_grad_norm * noise."""
        std = self.noise_multiplier * self.max_grad_norm if self.noise_multiplier else 0.0
        self.noisy_steps += std > 0
        for p in self.params:
            p.grad = p.summed_grad + std * self._noise(p.shape, p.device) if std else p.summed_grad


def _count(optimizer: BankOptimizer) -> None:
    optimizer.steps_taken += 1
