"""Noise and batches that reached the steps of a training; the DP claim is judged by these.

The observer compares, tensor by tensor and step by step, the gradient handed to the optimizer with
the clipped sum. The squares of their difference over the claimed variance follow a chi-squared law.
A tensor with a sum of squares below the quantile at `ERROR`, in one step or over all of them, had
less noise than claimed. Batches are counted as they are trained on. The counts stay on the device
of the training until it ends.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import chi2
from torch import Tensor

from moo.models.dp.optimizer import DPSettings, per_shadow
from moo.models.dp.poisson_sampling import Batch
from moo.privacy.observed_sampling import Drawn

# Probability that claimed noise is taken for less: per tensor, shadow and step.
ERROR = 1e-12
# Relative rounding error of a sum of squares in fp32.
_ROUNDING = 1e-4
# Prefix of the observer's tensors in a checkpoint.
_STATE = "seen."

# Key of a tensor: its name, and the first of its shadows.
_Key = tuple[str, int]


@dataclass(frozen=True, kw_only=True)
class Observed:
    """Noise and batches of a finished training.

    Attributes:
        steps: Optimizer steps taken.
        noisy_steps: Steps in which every tensor of every shadow had the requested noise; 0 if none
            was requested.
        bare: Names of the tensors that lacked noise in some step, comma-separated; empty if none
            did.
        noise_std: Standard deviation of the requested noise, the smallest of all shadows; 0 without
            noise.
        drawn: Units that entered the batches.
    """

    steps: int
    noisy_steps: int
    bare: str
    noise_std: float
    drawn: Drawn

    @classmethod
    def merge(cls, parts: Sequence["Observed"]) -> "Observed":
        """Join trainings of single shadows; the worst of them decides every count."""
        noisy = [part.noisy_steps for part in parts if part.noise_std]
        return cls(
            steps=min(part.steps for part in parts),
            noisy_steps=min(noisy, default=0),
            bare=", ".join(dict.fromkeys(part.bare for part in parts if part.bare)),
            noise_std=min(part.noise_std for part in parts),
            drawn=Drawn.together([part.drawn for part in parts]),
        )


class StepObserver:
    """Counters of the noise and batches that reached the steps of K shadows.

    Args:
        units: Shape (n,). Unit of each record.
        members: Shape (K, n). True where a shadow is trained on the record.
        dp: Requested noise.
    """

    def __init__(self, units: NDArray[np.int64], members: NDArray[np.bool_], dp: DPSettings) -> None:
        k, n_units = len(members), int(units.max()) + 1
        self._half = np.zeros((k, n_units), bool)
        for shadow, row in enumerate(members):
            self._half[shadow, units[row]] = True
        each = per_shadow(dp.noise_multiplier, k, "noise_multiplier")
        self._variances = [(multiplier * dp.max_grad_norm) ** 2 if multiplier else 0.0 for multiplier in each]
        self._units, self._drawn = torch.from_numpy(units), torch.zeros(k, n_units, dtype=torch.int64)
        self._sizes: list[Tensor] = []
        # Shape (2, shadows): sum of squares over all steps, number of steps with too little noise.
        self._found: dict[_Key, Tensor] = {}
        self._numels: dict[_Key, int] = {}
        self._lowest: dict[_Key, Tensor] = {}
        self._bare = torch.zeros((), dtype=torch.int64)
        self.steps = 0

    def to(self, device: torch.device) -> None:
        """Move the counts to the device of the training."""
        self._units, self._drawn, self._bare = (t.to(device) for t in (self._units, self._drawn, self._bare))
        self._sizes = [t.to(device) for t in self._sizes]
        self._found = {key: t.to(device) for key, t in self._found.items()}

    def count_batch(self, batch: Batch) -> None:
        """Count the units of a batch that is about to be trained on."""
        self._drawn.scatter_add_(1, self._units[batch.index[..., 0]], batch.present.long())
        self._sizes.append(batch.present.sum(1))

    def check_noise(self, gradients: Iterable[tuple[str, slice, Tensor, Tensor]]) -> None:
        """Check and count the noise of one step.

        Args:
            gradients: One entry per tensor of neighbouring shadows: its name, the shadows, and two
                tensors of shape (shadows, ...): the gradient handed to the optimizer, before
                division, and the clipped sum.
        """
        self.steps += 1
        bare = torch.zeros_like(self._bare, dtype=torch.bool)
        for name, shadows, gradient, total in gradients:
            key, noise = (name, shadows.start), (gradient - total).flatten(1)
            squares = noise.square().sum(1).double()
            if key not in self._lowest:
                self._numels[key] = noise.shape[1]
                self._lowest[key] = self._quantile(key, len(noise), steps=1).to(noise.device)
                self._found.setdefault(key, torch.zeros(2, len(noise), dtype=torch.float64, device=noise.device))
            short = squares < self._lowest[key]
            self._found[key] += torch.stack([squares, short.double()])
            bare |= short.any()
        self._bare += bare

    def _quantile(self, key: _Key, n_shadows: int, *, steps: int) -> Tensor:
        """Return the sum of squares that claimed noise falls below with probability `ERROR`.

        Returns:
            Shape (n_shadows,).
        """
        of_one = _chi_squared(self._numels[key] * steps) * (1 - _ROUNDING)
        return torch.tensor(self._variances[key[1] : key[1] + n_shadows], dtype=torch.float64) * of_one

    def observed(self) -> Observed:
        """Return the counts so far, on the CPU."""
        found = {key: t.cpu() for key, t in self._found.items()}
        low = {key: bool((t[0] < self._quantile(key, t.shape[1], steps=self.steps)).any()) for key, t in found.items()}
        bare = self.steps if any(low.values()) else int(self._bare)
        return Observed(
            steps=self.steps,
            noisy_steps=self.steps - bare if any(self._variances) else 0,
            bare=", ".join(dict.fromkeys(key[0] for key, t in found.items() if low[key] or bool(t[1].any()))),
            noise_std=min(self._variances) ** 0.5,
            drawn=self._drawn_so_far(),
        )

    def _drawn_so_far(self) -> Drawn:
        times = self._drawn.cpu().numpy()
        sizes = torch.stack(self._sizes).cpu().numpy() if self._sizes else np.zeros((0, len(times)), np.int64)
        return Drawn(
            sizes=tuple(sizes.T),
            times=tuple(row[half] for row, half in zip(times, self._half, strict=True)),
            outside=int(times[~self._half].sum()),
        )

    def state(self) -> dict[str, Tensor]:
        """Return the tensors that a checkpoint keeps."""
        found = {
            f"{_STATE}{start}.{name}": torch.cat(
                [t.cpu(), torch.full((1, t.shape[1]), float(self._numels[name, start]))]
            )
            for (name, start), t in self._found.items()
        }
        sizes = torch.stack(self._sizes) if self._sizes else self._drawn[:, :0].T
        counts = torch.tensor([self.steps, int(self._bare)])
        return found | {f"{_STATE}drawn": self._drawn, f"{_STATE}sizes": sizes, f"{_STATE}counts": counts}

    def resume(self, state: Mapping[str, Tensor]) -> None:
        """Continue from the counts of a checkpoint."""
        own = {name.removeprefix(_STATE): t for name, t in state.items() if name.startswith(_STATE)}
        self._drawn, self._sizes = own.pop("drawn"), list(own.pop("sizes"))
        counts = own.pop("counts")
        self.steps, self._bare = int(counts[0]), counts[1]
        for place, t in own.items():
            start, _, name = place.partition(".")
            self._found[name, int(start)], self._numels[name, int(start)] = t[:2], int(t[2, 0])


@lru_cache(maxsize=1024)
def _chi_squared(numbers: int) -> float:
    """Return the quantile at `ERROR` of the sum of `numbers` squared standard normal numbers."""
    return float(chi2.ppf(ERROR, numbers))
