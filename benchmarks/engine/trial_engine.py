"""Engine against the hand-written loop: time, peak memory, floor, same numbers.

python -m benchmarks.engine.trial_engine [--json] [--records 4000] [--steps 20] [--hand-steps 1] [--layers 1]
    [--seeds 0] [--epsilon 8]

Each way runs in its own process, so that peak memory is its own. The loops' time is that of
`--hand-steps` steps of one shadow: a step costs them the same at any time. "the same" trains two
shadows for 20 steps at zero noise, on the same draws and with the trunk in fp32, and compares all
parameters. With `--seeds 5`, both ways are trained to the end five times at epsilon 8, and accuracy
and attack AUC are compared.
"""

import argparse
import dataclasses
import json

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.engine.floor import floor
from benchmarks.engine.handwritten import BEST, BEST_FP32, COMMON, Recipe, Way
from benchmarks.setting import Ready, alone, by_engine, by_hand, pairs, ready
from moo.core.evidence import MembershipEvidence
from moo.models.bank.bank import Bank
from moo.models.bank.lightning_module import log_probs
from moo.objectives.membership.risk import auc
from moo.privacy.calibration import calibrate_noise

WAYS = {"common": COMMON, "best": BEST, "best, fp32": BEST_FP32}
Numbers = dict[str, float]


def engine(records: int, recipe: Recipe) -> Numbers:
    """Measure moo (the trunk once, then all shadows through Lightning) and the floor."""
    at, members = ready(records, recipe), pairs(records)
    trained = by_engine(at, recipe, members)
    ours = 1e6 * trained.seconds / (members.sum() * recipe.sample_rate * recipe.steps)
    below = floor(at, recipe, members)
    trunk = 1e6 * at.trunk_seconds / records
    return {"us_per_example_step": ours, "times_floor": ours / below["floor_us"], "trunk_us_per_text": trunk, **below}


def hand(records: int, recipe: Recipe, way: Way) -> Numbers:
    """Measure the loop on one shadow."""
    loop, _ = by_hand(ready(records, recipe, tokens=False), recipe, way, pairs(records)[:1])
    return {"us_per_example_step": 1e6 * loop.seconds / loop.examples}


def same(records: int) -> Numbers:
    """Return the largest difference of any parameter between engine and fp32 loop at zero noise.

    Also returns the largest parameter. Both train for 20 steps.
    """
    recipe = Recipe(steps=20, expected_batch_size=0.25 * records / 2)
    at, members = ready(records, recipe, exact=True), pairs(records)
    bank = by_engine(at, recipe, members).bank
    _, shadows = by_hand(at, recipe, BEST_FP32, members[:2])
    apart = moved = 0.0
    for name, mine in bank.trainable().items():
        for k, theirs in enumerate(shadows):
            other = _of_loop(name, theirs)
            apart = max(apart, float((mine[k].detach().reshape(other.shape) - other).abs().max()))
            moved = max(moved, float(other.abs().max()))
    return {"largest_difference": apart, "largest_parameter": moved}


def _of_loop(name: str, theirs: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return the loop's parameter that a bank of depth 1 calls `name`."""
    head = name.startswith("head")
    wanted = name.replace("_", ".") if head else f"{name.split('.')[1]}.lora_{name[-1].upper()}"
    return next(p for n, p in theirs.items() if wanted in n)


def outcomes(records: int, epsilon: float, seeds: int) -> Numbers:
    """Return accuracy on other reviews and attack AUC of both ways, last layer adapted.

    Means over seeds, with errors of the differences.
    """
    recipe = Recipe(steps=25, sample_rate=0.5, expected_batch_size=0.25 * records)
    noise = calibrate_noise(target_epsilon=epsilon, delta=1e-5, sample_rate=recipe.sample_rate, steps=recipe.steps)
    recipe = dataclasses.replace(recipe, noise_multiplier=noise, max_grad_norm=0.3 if noise else 1e6)
    at = ready(2 * records, recipe)
    rows = []
    for seed in range(seeds):
        members = pairs(records, seed=seed)
        bank = by_engine(at, recipe, members, seed).bank
        ours = _judged(at, bank, members)
        _, shadows = by_hand(at, recipe, BEST, members, seed)
        with torch.no_grad():
            for name, p in bank.trainable().items():
                p.copy_(torch.stack([_of_loop(name, s).reshape(p.shape[1:]) for s in shadows]))
        rows.append((*ours, *_judged(at, bank, members)))
    table = np.array(rows)
    error = (table[:, :2] - table[:, 2:]).std(0, ddof=1) / seeds**0.5
    names = ("accuracy", "auc", "accuracy_by_hand", "auc_by_hand")
    return dict(zip(names, map(float, table.mean(0)), strict=True)) | {
        "stderr_of_accuracy_difference": float(error[0]),
        "stderr_of_auc_difference": float(error[1]),
    }


def _judged(at: Ready, bank: Bank, members: NDArray[np.bool_]) -> tuple[float, float]:
    """Return accuracy on reviews that no shadow saw, and AUC of the attack on the others."""
    outputs, n = log_probs(bank, at.packed).numpy(), members.shape[1]
    losses = -np.take_along_axis(outputs, at.labels[None, :, None], axis=2)[..., 0].astype(float)
    right = outputs.argmax(-1) == at.labels
    evidence = MembershipEvidence(losses=losses[:, :n], members=members, units=np.arange(n))
    return float(right[:, n:].mean()), auc(evidence).value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    for name, default in (("records", 4000), ("steps", 20), ("hand-steps", 1), ("layers", 1), ("seeds", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--epsilon", type=float, default=8.0)
    options = parser.parse_args()
    if options.seeds:
        _show({"outcomes": alone(outcomes, options.records, options.epsilon, options.seeds)}, as_json=options.json)
        return
    recipe = Recipe(layers=options.layers, noise_multiplier=1.0, expected_batch_size=0.25 * options.records / 2)
    results = {"engine": alone(engine, options.records, dataclasses.replace(recipe, steps=options.steps))}
    for name, way in WAYS.items():
        results[name] = alone(hand, options.records, dataclasses.replace(recipe, steps=options.hand_steps), way)
        results[name]["times_engine"] = results[name]["us_per_example_step"] / results["engine"]["us_per_example_step"]
    if options.layers == 1:
        results["the same"] = alone(same, min(options.records, 200))
    _show(results, as_json=options.json)


def _show(results: dict[str, Numbers], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(results, indent=1))
        return
    for name, row in results.items():
        print(f"{name:12}", "  ".join(f"{key} {value:.4g}" for key, value in row.items()))


if __name__ == "__main__":
    main()
