"""Growth of a trial's training with texts, tokens, steps, shadows, rank and depth.

python -m benchmarks.engine.scaling [--json] [--only texts tokens steps shadows rank layers]

Prints seconds, peak memory, and exponents of log-linear fits; an exponent of 1 is linear. Random
activations go through the real encoder's blocks: the cost of a step does not depend on the content
of texts. One size varies at a time around 2,000 texts of 64 tokens, four shadows, rank 8, last
layer, 25 steps; each size runs twice in its own process, and the faster run counts. The trunk,
which K shadows share, is measured in the same run on texts of as many tokens, next to their
training.
"""

import argparse
import dataclasses
import json
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from benchmarks.engine.handwritten import Recipe
from benchmarks.setting import Ready, alone, by_engine, pairs
from moo.models.bank.bank import Frozen
from moo.models.bank.feature_scaling import constants
from moo.models.pretrained.architectures import cut_of
from moo.models.pretrained.loading import load_base
from moo.models.trunk.encode import encode
from moo.models.trunk.packed import Packed


@dataclass(frozen=True, kw_only=True)
class Size:
    """Size of one training."""

    texts: int = 2000
    tokens: int = 64
    steps: int = 25
    shadows: int = 4
    rank: int = 8
    layers: int = 1


GRID: dict[str, tuple[int, ...]] = {
    "texts": (1_000, 4_000, 16_000, 64_000),
    "tokens": (32, 64, 128, 256),
    "steps": (5, 10, 20, 40),
    "shadows": (1, 2, 4, 8, 16, 32),
    "rank": (2, 4, 8, 16, 32),
    "layers": (1, 2, 4, 8, 12),
}
# Texts where a step costs a hundred times as much.
SMALL = {"layers": 100}


def trained(size: Size) -> dict[str, float]:
    """Return seconds of the faster of two trainings."""
    base = load_base("e5-small", accelerator="cpu")
    cut = cut_of(base.model, adapted_layers=size.layers)
    frozen = Frozen(base=base, cut=cut, constants=constants(base, max_length=16, cut=cut))
    work = torch.bfloat16 if base.low_precision else torch.float32
    drawn = torch.Generator().manual_seed(0)
    packed = Packed(
        features=torch.randn(size.texts, base.hidden, generator=drawn) * base.hidden**-0.5,
        tokens=torch.empty(size.texts * size.tokens, base.hidden, dtype=work).normal_(generator=drawn),
        offsets=torch.arange(size.texts + 1) * size.tokens,
    )
    labels = np.random.default_rng(0).integers(0, 2, size.texts)
    recipe = Recipe(
        layers=size.layers,
        lora_rank=size.rank,
        steps=size.steps,
        noise_multiplier=1.0,
        expected_batch_size=size.texts / 8,
    )
    at = Ready([], labels, frozen, packed, 0.0)
    members = pairs(size.texts, shadows=size.shadows)
    return {"seconds": min(by_engine(at, recipe, members).seconds for _ in range(2))}


def trunk(size: Size) -> dict[str, float]:
    """Return seconds of the trunk for all texts, from the faster of two passes over a sample."""
    base, sample = load_base("e5-small", accelerator="cpu"), min(size.texts, 256)
    rng = np.random.default_rng(0)
    texts = ["".join(rng.choice(list("房间服务早餐位置干净舒适安静"), 2 * size.tokens)) for _ in range(sample)]

    def once() -> float:
        started = time.perf_counter()
        encode(base, texts, max_length=size.tokens)
        return time.perf_counter() - started

    return {"seconds": min(once(), once()) * size.texts / sample}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--only", nargs="+", choices=list(GRID), default=list(GRID))
    options = parser.parse_args()
    found: dict[str, dict[str, Any]] = {}
    for name in options.only:
        about = Size(texts=SMALL.get(name, Size().texts))
        rows = {v: alone(trained, dataclasses.replace(about, **{name: v})) for v in GRID[name]}
        exponent = _exponent(list(rows), [r["seconds"] for r in rows.values()])
        found[name] = {"exponent": exponent, "rows": rows}
        if name == "shadows":
            shared = found[name]["trunk_seconds"] = alone(trunk, about)["seconds"]
            found[name]["exponent_with_trunk"] = _exponent(list(rows), [shared + r["seconds"] for r in rows.values()])
        if not options.json:
            _show(name, found[name])
    if options.json:
        print(json.dumps(found, indent=1))


def _exponent(sizes: list[int], seconds: list[float]) -> float:
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def _show(name: str, row: dict[str, object]) -> None:
    exponents = "  ".join(f"{key} {value:.2f}" for key, value in row.items() if isinstance(value, float))
    rows = row["rows"]
    assert isinstance(rows, dict)
    cells = "  ".join(f"{v}: {r['seconds']:.2f} s {r['peak_gib']:.2f} GiB" for v, r in rows.items())
    print(f"{name:8} {exponents}  {cells}", flush=True)


if __name__ == "__main__":
    main()
