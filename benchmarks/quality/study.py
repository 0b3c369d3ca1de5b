"""Whole study of 24 trials against the hand-written loop.

python -m benchmarks.quality.study [--json] [--trials 24] [--records 4000] [--folder DIR]

The study includes trunk, masking, attacks, rules and search, and runs to its end: `reviews` with
its last layer adapted in every trial, four shadows, epsilon about 8. For the loop, a sample of its
steps and of its predictions is timed on reviews, which are shorter than the study's texts with
their notes, and the rest is EXTRAPOLATED from the study's recipe: every trial trains four shadows
from the tokens up, then reads every text with each of them. Anything else that such a loop would
need (masking, rules, the attack's errors, the search) is left out of its bill.
"""

import argparse
import dataclasses
import json
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.engine.handwritten import BEST, COMMON, Recipe, Way
from benchmarks.setting import SHADOWS, alone, by_hand, pairs, ready
from moo import run_study
from moo.studies.spec.study import StudySpec, load_spec


def spec_of(records: int) -> StudySpec:
    """Return `reviews` at one depth, epsilons about 8, texts cut at the loop's length."""
    spec = load_spec("reviews")
    space = dataclasses.replace(spec.space, adapted_layers=(1, 1), target_epsilon=(4.0, 16.0))
    training = dataclasses.replace(spec.training, max_length=Recipe().max_length)
    return dataclasses.replace(spec, name="reviews-benchmark", n_records=records, space=space, training=training)


def whole(records: int, trials: int, folder: str) -> dict[str, float]:
    """Return seconds of the study, and of the stages of its trials."""
    spec = spec_of(records)
    started = time.perf_counter()
    result = run_study(spec, n_trials=trials, folder=Path(folder))
    seconds = time.perf_counter() - started
    done = [t for t in result.trials if t.state == "complete"]
    stages = sorted({name for t in done for name in t.seconds})
    return {"seconds": seconds, "trials": float(len(done))} | {
        f"{name}_seconds": sum(t.seconds.get(name, 0.0) for t in done) for name in stages
    }


def sampled(records: int, way: Way) -> dict[str, float]:
    """Return the loop's microseconds per example-step and per text read, from a sample."""
    recipe = Recipe(steps=1, noise_multiplier=1.0, expected_batch_size=records / 8)
    at = ready(records, recipe, tokens=False)
    loop, _ = by_hand(at, recipe, way, pairs(records)[:1])
    texts = min(records, 512)
    batch = way.physical_batch
    order = sorted(range(texts), key=lambda i: len(loop.ids[i])) if way.by_length else list(range(texts))
    started = time.perf_counter()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=way.bf16):
        for start in range(0, texts, batch):
            ids, mask = loop.padded(order[start : start + batch])
            at.frozen.base.model(input_ids=ids, attention_mask=mask)
    return {
        "us_per_example_step": 1e6 * loop.seconds / loop.examples,
        "us_per_text_read": 1e6 * (time.perf_counter() - started) / texts,
    }


def extrapolated(sample: dict[str, float], records: int, trials: int) -> float:
    """Return the loop's seconds for as many trials and the status quo."""
    spec = spec_of(records)
    training, pool = spec.training, spec.pool * records
    steps = SHADOWS * pool / 2 * training.sample_rate * training.steps
    reads = SHADOWS * records
    return (trials + 1) * (steps * sample["us_per_example_step"] + reads * sample["us_per_text_read"]) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--records", type=int, default=4000)
    parser.add_argument("--folder", help="goes on with an earlier run; its time is then too short to compare")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        results = {"study": alone(whole, options.records, options.trials, options.folder or scratch)}
    for name, way in (("common", COMMON), ("best", BEST)):
        results[name] = alone(sampled, options.records, way)
        results[name]["seconds_extrapolated"] = extrapolated(results[name], options.records, options.trials)
        results[name]["times_study"] = results[name]["seconds_extrapolated"] / results["study"]["seconds"]
    if options.json:
        print(json.dumps(results, indent=1))
        return
    for name, row in results.items():
        print(f"{name:8}", "  ".join(f"{key} {value:.4g}" for key, value in row.items()))


if __name__ == "__main__":
    main()
