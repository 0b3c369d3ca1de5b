"""Accuracy, AUC, attack AUC and cost by depth, with and without DP, on the engine of trials.

python -m benchmarks.engine.depth [--data recommendation reviews] [--ways head pooled ...] [--epsilons inf 8]
    [--seeds 2] [--records 0] [--halvings 0 2 4] [--whole] [--by-record] [--minutes 50]
    [--out build/depth.jsonl] [--json]

A row is one training at one setting. It is appended to --out as soon as it is measured; rows in
that file are not trained again, so an interrupted run continues. All of seed 0 is measured before
seed 1, cheap depths first, and no row is begun after --minutes; run it again for the rest.

Four shadows of a trial are trained on complementary halves of the pool's users; with --whole,
--shadows models on all of the pool, which measures accuracy better and the attack not at all. Tests
are on other users. A seed draws split, halves and noise, the same for all rows, so that the gain
over the head alone is paired: its standard error is over test users (of the paired difference) and
over shadows. Without DP a batch is a fiftieth of the users, with DP a tenth. With --halvings it is
that of a study's trials, half of the users in 25 steps, halved so many times, and gains are over
the head alone at the first of them. Seconds are of processor time, so that other work on the
machine changes them little; the trunk is computed once and kept in --cache. Splits and noise come
from fixed seeds here: for measurement, never for release.
"""

import argparse
import dataclasses
import itertools
import json
import math
import resource
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.engine.depth_bench import MODELS, WAYS, Bench, Conditions, Recipe, Run
from benchmarks.paired import gain
from moo.data.catalogue import load_records
from moo.models.pretrained.loading import load_base
from moo.objectives.membership.risk import auc as attack_auc
from moo.objectives.utility.accuracy import accuracy, auc

PLAIN = Recipe(steps=250, sample_rate=0.02, learning_rate=1e-3)
PRIVATE = Recipe(steps=250, sample_rate=0.1, learning_rate=3e-3)
# Recipe of a trial with batches that are not halved.
STUDY = {"steps": 25, "sample_rate": 0.5}


def measured(run: Run, head: Run) -> dict[str, float]:
    """Return a training's numbers with standard errors, and its paired gain over the head alone."""
    two = run.utility.log_probs.shape[2] == 2
    found = {"accuracy": accuracy(run.utility)} | ({"auc": auc(run.utility)} if two else {})
    found |= {} if run.membership is None else {"attack_auc": attack_auc(run.membership)}
    out = {name: m.value for name, m in found.items()} | {f"{name}_se": m.stderr for name, m in found.items()}
    if two:
        out["gain"], out["gain_se"] = gain(run.utility, head.utility)
    return out | {"us": run.microseconds, "seconds": run.seconds, "trunk_seconds": run.trunk_seconds}


def over_seeds(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return means of rows that differ in their seed alone, with standard errors of these means."""
    numbers = {n for n, v in rows[0].items() if isinstance(v, float)}
    out = {n: float(np.mean([r[n] for r in rows])) for n in numbers if not n.endswith("_se")}
    return out | {n: math.sqrt(sum(r[n] ** 2 for r in rows)) / len(rows) for n in numbers if n.endswith("_se")}


def rows_of(options: argparse.Namespace, kind: type[Bench]) -> Iterator[dict[str, Any]]:
    """Yield rows as they are measured, except those already in the file."""
    started, done = time.monotonic(), [_key(r) for r in _read(options.out)]
    for data in options.data:
        model = options.model or MODELS[data]
        bench = kind(load_base(model), load_records(data, n_records=options.records), options.cache)
        heads: dict[tuple[float, int], Run] = {}
        halvings: list[int] = options.halvings or [0]
        rows = itertools.product(range(options.seeds), options.ways, options.epsilons, halvings)
        for seed, name, epsilon, times in rows:
            plain = math.isinf(epsilon)
            study = STUDY if options.halvings else {}
            recipe = dataclasses.replace(PLAIN if plain else PRIVATE, **study | _given(options))
            first, recipe = recipe.halved(halvings[0]), recipe.halved(times)
            at = Conditions(
                epsilon=epsilon,
                seed=seed,
                shadows=options.shadows,
                whole=options.whole,
                by_record=options.by_record,
            )
            row: dict[str, Any] = {"data": data, "model": model, "records": len(bench.records), "way": name}
            row |= dataclasses.asdict(at) | {"epsilon": str(epsilon), "recipe": dataclasses.asdict(recipe)}
            row |= {"halvings": times} if options.halvings else {}
            if _key(row) in done or time.monotonic() - started > 60 * options.minutes:
                continue
            if (epsilon, seed) not in heads:
                heads[epsilon, seed] = bench.run("head", first, at)
            same = name == "head" and recipe == first
            run = heads[epsilon, seed] if same else bench.run(str(name), recipe, at)
            row |= measured(run, heads[epsilon, seed])
            row["peak_gib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
            yield row


def _key(row: Mapping[str, Any]) -> dict[str, Any]:
    return {n: v for n, v in row.items() if not isinstance(v, float)}


def _given(options: argparse.Namespace) -> dict[str, float]:
    """Return the recipe's numbers that the command line sets."""
    return {n: v for n in ("steps", "sample_rate", "learning_rate", "clip") if (v := getattr(options, n)) is not None}


def _read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def main(
    kind: type[Bench] = Bench, ways: Sequence[str] = tuple(WAYS), about: str | None = __doc__, out: str = "depth"
) -> None:
    """Run the command line over some ways.

    Args:
        kind: Bench that trains them.
        ways: Their names; all are measured by default.
        about: Help text.
        out: Name of the file of results.
    """
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--data", nargs="+", choices=tuple(MODELS), default=["recommendation", "reviews"])
    parser.add_argument("--model", default="", help="in place of each data set's own")
    parser.add_argument("--records", type=int, default=0)
    parser.add_argument("--ways", nargs="+", choices=tuple(ways), default=list(ways))
    parser.add_argument("--epsilons", type=float, nargs="+", default=[math.inf, 8.0])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--shadows", type=int, default=4)
    parser.add_argument("--whole", action="store_true")
    parser.add_argument("--by-record", action="store_true", help="with --whole: the unit of privacy is the record")
    parser.add_argument("--halvings", type=int, nargs="+", help="of a trial's batches, each time with twice the steps")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--sample-rate", type=float)
    parser.add_argument("--learning-rate", type=float)
    parser.add_argument("--clip", type=float)
    parser.add_argument("--minutes", type=float, default=50)
    parser.add_argument("--out", type=Path, default=Path(f"build/{out}.jsonl"))
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "moo-benchmark-trunk")
    options = parser.parse_args()
    if options.by_record and not options.whole:
        parser.error("--by-record needs --whole: halves are drawn by user")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    for row in rows_of(options, kind):
        with options.out.open("a") as file:
            print(json.dumps(row), file=file)
        if options.json:
            print(json.dumps(row), flush=True)
        else:
            print(f"seed {row['seed']}: {_line(row, row)}", flush=True)
    if not options.json:
        _table(_read(options.out))


def _table(rows: list[dict[str, Any]]) -> None:
    """Print all rows of the file, as means over seeds."""
    alike: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        alike.setdefault(json.dumps({**_key(row), "seed": None}), []).append(row)
    print()
    for same in alike.values():
        print(f"{len(same)} seeds, {_line(same[0], over_seeds(same))}")


def _line(row: Mapping[str, Any], numbers: Mapping[str, float]) -> str:
    columns = [
        f"{n} {numbers[n]:.4f} ({numbers[f'{n}_se']:.4f})"
        for n in ("accuracy", "auc", "gain", "attack_auc")
        if n in numbers
    ]
    who = f"{row['shadows']} on {'all' if row['whole'] else 'halves'}" + (", by record" if row.get("by_record") else "")
    recipe = row["recipe"]
    steps = f"{recipe['steps']} x {recipe['sample_rate']:.3g}"
    setting = f"{row['data']}, {who}, eps {row['epsilon']}: {row['way']:22} {steps:12}"
    return f"{setting} {'  '.join(columns)}  {numbers['us']:.0f} us"


if __name__ == "__main__":
    main()
