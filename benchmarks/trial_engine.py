"""One trial of the engine against the hand-written loop: time by example-step, peak memory, and the same mathematics.

python -m benchmarks.trial_engine [--json] [--records 2000] [--steps 6] [--layers 1]

Each way runs in a process of its own, so that peak memory is its own. "the same" trains two shadows for 20 steps at zero noise, on the
same draws and with the trunk in fp32, and compares all parameters.
"""

import argparse
import dataclasses
import json
import multiprocessing
import resource
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.handwritten import BEST, BEST_FP32, COMMON, HandWritten, Recipe, Way, token_ids
from moo.data import load_records
from moo.models.activations import Packed
from moo.models.bank import Bank, Depth, Frozen
from moo.models.base_models import BaseModel, load_base
from moo.models.blocks import cut_of
from moo.models.dp import DPSettings
from moo.models.scaling import constants
from moo.models.training import TrainingData, TrainingSettings, train
from moo.models.trunk import encode

WAYS = {"common": COMMON, "best": BEST, "best, fp32": BEST_FP32}
SHADOWS = 4


def _ready(records: int, recipe: Recipe, *, exact: bool = False) -> tuple[BaseModel, Any, Any, Packed, float]:
    """Base model, public constants, records, packed activations, and the seconds that the trunk took."""
    base = load_base("e5-small")
    base = dataclasses.replace(base, low_precision=base.low_precision and not exact)
    cut = cut_of(base.model, adapted_layers=recipe.layers)
    public = constants(base, max_length=recipe.max_length, cut=cut)
    data = load_records("reviews", n_records=records)
    started = time.perf_counter()
    out = encode(base, data.texts, max_length=recipe.max_length, cut=cut)
    seconds = time.perf_counter() - started
    lengths = [len(t) for t in out.tokens]
    packed = Packed(
        features=torch.from_numpy(public.features(out.mean)),
        tokens=torch.from_numpy(np.concatenate(out.tokens)).to(torch.bfloat16 if base.low_precision else torch.float32),
        offsets=torch.from_numpy(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)),
    )
    return base, public, data, packed, seconds


def _pairs(n: int) -> NDArray[np.bool_]:
    rng = np.random.default_rng(0)
    return np.stack([side for row in rng.random((SHADOWS // 2, n)) < 0.5 for side in (row, ~row)])


def _stream(purpose: str, shadow: int) -> np.random.Generator:
    return np.random.default_rng([len(purpose), shadow])


def engine(records: int, recipe: Recipe, exact: bool = False) -> tuple[dict[str, float], Bank]:
    """moo: the trunk once, then all shadows side by side through Lightning."""
    base, public, data, packed, trunk = _ready(records, recipe, exact=exact)
    members = _pairs(len(data))
    training = TrainingData(
        packed=packed,
        labels=data.labels,
        units=np.arange(len(data)),
        members=members,
        n_classes=len(data.classes),
    )
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
    frozen = Frozen(base=base, cut=cut_of(base.model, adapted_layers=recipe.layers), constants=public)
    trained = train(training, settings, frozen, _stream)
    examples = members.sum() * recipe.sample_rate * recipe.steps
    measured = {
        "seconds": trained.seconds,
        "trunk_seconds": trunk,
        "us_per_example_step": 1e6 * trained.seconds / examples,
    }
    return measured, trained.bank


def by_hand(
    records: int, recipe: Recipe, way: Way, shadows: int, exact: bool = False
) -> tuple[dict[str, float], list[dict[str, torch.Tensor]]]:
    """The loop: one shadow after another, from the tokens up."""
    base, public, data, packed, _ = _ready(records, recipe, exact=exact)
    loop = HandWritten(
        base=base,
        constants=public,
        ids=token_ids(base, data.texts, recipe.max_length),
        labels=torch.from_numpy(data.labels),
        mean=packed.features,
        recipe=recipe,
        way=way,
    )
    members = _pairs(len(data))
    trained = []
    for k in range(shadows):
        seed = torch.Generator().manual_seed(int(_stream("init", k).integers(2**63)))
        lora_a = {
            t: (torch.rand(recipe.lora_rank, base.hidden, generator=seed) * 2 - 1) * base.hidden**-0.5
            for t in ("query", "value")
        }
        trained.append(loop.shadow(members[k], _stream("sampling", k), lora_a))
    return {"us_per_example_step": 1e6 * loop.seconds / loop.examples}, trained


def same(records: int) -> dict[str, float]:
    """Largest difference of any parameter after 20 steps at zero noise, engine against fp32 loop, and the largest parameter."""
    recipe = Recipe(steps=20, expected_batch_size=0.25 * records / 2)
    _, bank = engine(records, recipe, True)
    _, shadows = by_hand(records, recipe, BEST_FP32, 2, True)
    apart = moved = 0.0
    for name, mine in bank.trainable().items():
        for k, theirs in enumerate(shadows):
            wanted = (
                name.replace("_", ".") if name.startswith("head") else f"{name.split('.')[1]}.lora_{name[-1].upper()}"
            )
            other = next(p for n, p in theirs.items() if wanted in n)
            apart = max(apart, float((mine[k].detach().reshape(other.shape) - other).abs().max()))
            moved = max(moved, float(other.abs().max()))
    return {"largest_difference": apart, "largest_parameter": moved}


def _alone(call: Callable[..., Any], *arguments: Any) -> dict[str, float]:
    """In a process of its own, with its peak memory in GiB."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_measured, (call, arguments))


def _measured(call: Callable[..., Any], arguments: tuple[Any, ...]) -> dict[str, float]:
    found = call(*arguments)
    out: dict[str, float] = found[0] if isinstance(found, tuple) else found
    return {**out, "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--records", type=int, default=2000)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--layers", type=int, default=1)
    options = parser.parse_args()
    recipe = Recipe(
        layers=options.layers, steps=options.steps, noise_multiplier=1.0, expected_batch_size=0.25 * options.records / 2
    )
    results = {"engine": _alone(engine, options.records, recipe)}
    for name, way in WAYS.items():
        results[name] = _alone(by_hand, options.records, recipe, way, 1)
    if options.layers == 1:
        results["the same"] = _alone(same, min(options.records, 200))
    ours = results["engine"]["us_per_example_step"]
    for name in WAYS:
        results[name]["times_engine"] = results[name]["us_per_example_step"] / ours
    if options.json:
        print(json.dumps(results, indent=1))
        return
    for name, row in results.items():
        print(f"{name:12}", "  ".join(f"{key} {value:.4g}" for key, value in row.items()))


if __name__ == "__main__":
    main()
