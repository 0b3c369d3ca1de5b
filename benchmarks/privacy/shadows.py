"""Gain from sharing a bank: four shadows, and two trials, each against one by one.

python -m benchmarks.privacy.shadows [--records 4000] [--repeats 3]

The shadows are heads on random activations. The two trials adapt e5-small's last layer on reviews,
with four shadows, noise, rank and learning rate each.
"""

import argparse
import dataclasses
import time

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.engine.handwritten import Recipe
from benchmarks.setting import Ready, by_engine, pairs, ready
from moo.models.bank.bank import Depth
from moo.models.dp.optimizer import DPSettings
from moo.models.train import TrainingData, TrainingSettings, train
from moo.models.trunk.packed import Packed

RECORDS, CUSTOMERS, WIDTH, STEPS, SHADOWS = 2000, 780, 384, 25, 4
# Noise multiplier, rank, learning rate.
TRIALS = ((1.0, 8, 1e-3), (3.0, 32, 3e-3))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=4000)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    shadows()
    recipe = Recipe(steps=STEPS, expected_batch_size=options.records / 8)
    at = ready(options.records, recipe)
    for _ in range(options.repeats):
        alone = sum(of_trials(at, recipe, trial) for trial in TRIALS)
        together = of_trials(at, recipe, *TRIALS)
        print(
            f"depth 1, {options.records} records, two trials: one bank {together:.2f} s, two {alone:.2f} s "
            f"(x {alone / together:.2f})"
        )


def of_trials(at: Ready, recipe: Recipe, *trials: tuple[float, int, float]) -> float:
    """Return the wall-clock seconds of one bank of all trials, each with separate coins."""
    noise, rank, rate = (tuple(t[i] for t in trials for _ in range(SHADOWS)) for i in range(3))
    started = time.perf_counter()
    by_engine(
        at,
        recipe,
        np.concatenate([pairs(len(at.labels), seed=i, shadows=SHADOWS) for i in range(len(trials))]),
        lora_rank=tuple(int(r) for r in rank),
        dp=DPSettings(
            noise_multiplier=noise, max_grad_norm=recipe.max_grad_norm, expected_batch_size=recipe.expected_batch_size
        ),
        optimizer=dataclasses.replace(recipe.optimizer, learning_rate=rate),
    )
    return time.perf_counter() - started


def shadows() -> None:
    """Print seconds of heads side by side and one after another."""
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
        f"depth 0, {SHADOWS} shadows: side by side {together:.2f} s, one after another {alone:.2f} s "
        f"(x {alone / together:.2f})"
    )


def seconds(packed: Packed, units: NDArray[np.int64], members: NDArray[np.bool_]) -> float:
    """Return the wall-clock seconds of one training of all rows of `members`."""
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
