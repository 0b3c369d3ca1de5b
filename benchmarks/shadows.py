"""Four shadows trained side by side against the same four one after another, on random activations.

python -m benchmarks.shadows
"""

import time

import numpy as np
import torch

from moo.models.activations import Packed
from moo.models.bank import Depth
from moo.models.dp import DPSettings
from moo.models.training import TrainingData, TrainingSettings, train

RECORDS, CUSTOMERS, WIDTH, STEPS, SHADOWS = 2000, 780, 384, 25, 4


def main() -> None:
    rng = np.random.default_rng(0)
    units = np.sort(rng.integers(0, CUSTOMERS, RECORDS))
    offsets = torch.arange(RECORDS + 1)
    packed = Packed(
        features=torch.from_numpy(rng.normal(size=(RECORDS, WIDTH)).astype(np.float32)) / WIDTH**0.5,
        tokens=torch.zeros(RECORDS, WIDTH, dtype=torch.float16),
        offsets=offsets,
    )
    members = np.stack([rng.random(CUSTOMERS) < 0.5 for _ in range(SHADOWS)])[:, units]
    together = seconds(packed, units, members)
    alone = sum(seconds(packed, units, members[k : k + 1]) for k in range(SHADOWS))
    print(
        f"depth 0, {SHADOWS} shadows: side by side {together:.2f} s, one after another {alone:.2f} s (x {alone / together:.2f})"
    )


def seconds(packed: Packed, units: np.ndarray, members: np.ndarray) -> float:
    """Wall clock of one training of all rows of `members`."""
    labels = np.random.default_rng(1).integers(0, 2, len(units))
    data = TrainingData(packed=packed, labels=labels, units=units, members=members, n_classes=2)
    dp = DPSettings(noise_multiplier=2.0, max_grad_norm=0.3, expected_batch_size=CUSTOMERS / 4)
    settings = TrainingSettings(
        depth=Depth(), lora_rank=1, lora_alpha=16.0, sample_rate=0.5, steps=STEPS, dp=dp, accelerator="cpu"
    )
    started = time.perf_counter()
    train(data, settings, None, lambda purpose, shadow: np.random.default_rng([len(purpose), shadow]))
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
