"""Opacus' optimizer for one shadow, with noise from a secret stream."""

from collections.abc import Callable, Sequence
from typing import Any

from opacus.optimizers import DPOptimizer
from torch import Tensor

from moo.models.dp.clipping import products_in_fp32
from moo.models.dp.optimizer import DPSettings, NoisyGradients, ignore_noise


class ReferenceOptimizer(DPOptimizer):  # type: ignore[misc]
    """Opacus' optimizer with noise from a secret stream.

    Args:
        optimizer: Inner optimizer.
        settings: Clipping and normaliser.
        multiplier: Noise multiplier of the shadow; 0 adds no noise.
        noise: (0, shape, device) -> standard normal noise.
        names: Name of each parameter, in the order of the optimizer's groups.
        observe: Called at each step with (name, shadows, gradient handed over, clipped sum) of each
            parameter.
    """

    def __init__(
        self,
        optimizer: Any,
        settings: DPSettings,
        multiplier: float,
        noise: Callable[..., Tensor],
        names: Sequence[str] = (),
        observe: Callable[[NoisyGradients], None] = ignore_noise,
    ) -> None:
        # Opacus declares int, and divides by it.
        expected: Any = settings.expected_batch_size
        super().__init__(
            optimizer,
            noise_multiplier=multiplier,
            max_grad_norm=settings.max_grad_norm,
            expected_batch_size=expected,
        )
        self._noise, self._names, self._observe = noise, tuple(names) or ("",) * len(self.params), observe
        self.steps_taken = 0

    def clip_and_accumulate(self) -> None:
        """Clip and sum by Opacus in full fp32, so that norms and sums see the same numbers."""
        with products_in_fp32():
            super().clip_and_accumulate()

    def add_noise(self) -> None:
        """Set `p.grad` to clipped sum + noise_multiplier * max_grad_norm * noise."""
        std = self.noise_multiplier * self.max_grad_norm if self.noise_multiplier else 0.0
        parameters: list[Any] = self.params
        for p in parameters:
            noise = std * self._noise(0, p.shape, p.device) if std else 0.0
            p.grad = (p.summed_grad + noise).view_as(p)

    def scale_grad(self) -> None:
        """Report the added noise, then divide by the expected batch size."""
        self.steps_taken += 1
        parameters: list[Any] = self.params
        handed = zip(self._names, parameters, strict=True)
        self._observe((name, slice(0, 1), p.grad[None], p.summed_grad.view_as(p)[None]) for name, p in handed)
        super().scale_grad()
