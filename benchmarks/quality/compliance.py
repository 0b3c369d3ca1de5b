"""`moo compliance check` on a million rows of every format: seconds and peak memory.

python -m benchmarks.quality.compliance [ROWS]

Each format runs in its own process.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd

FORMATS = (".csv", ".parquet", ".jsonl")


def table(n: int) -> pd.DataFrame:
    """Return rows as a shop has them, texts included, with the faults of real tables."""
    rng = np.random.default_rng(0)
    days = np.datetime64("2026-10-31", "D") - rng.integers(30, 900, n)
    words = np.array(["物流很快，", "包装破损，", "客服耐心，", "质量一般，", "下次还来。", "请尽快处理，谢谢。"])
    texts = ["".join(row) for row in words[rng.integers(len(words), size=(n, 12))]]
    return pd.DataFrame(
        {
            "text": texts,
            "label": rng.integers(0, 2, n),
            "user": np.char.add("customer-", rng.integers(0, n // 3, n).astype(str)),
            "basis": rng.choice(["consent", "contract", ""], n, p=[0.93, 0.05, 0.02]),
            "consented": (days - rng.integers(0, 400, n)).astype(str),
            "used_from": "2026-10-31",
            "purposes": np.where(rng.random(n) < 0.97, "service model_training", "service"),
            "withdrawn": rng.random(n) < 0.015,
            "storage_only": rng.random(n) < 0.01,
            "collected": days.astype(str),
            "retention_days": 730,
            "sensitive": rng.random(n) < 0.1,
            "sensitive_consent": rng.random(n) < 0.9,
            "birth_year": rng.integers(1945, 2016, n),
            "guardian_consent": rng.random(n) < 0.5,
        }
    )


def measure(path: Path) -> None:
    """Run one check in a fresh process and print its numbers as JSON."""
    from moo.data.legal.gates import Terms
    from moo.data.tables.check import check_table

    before = peak()
    started, busy = time.perf_counter(), time.process_time()
    found = check_table(path, Terms(purpose="model_training", as_of=date(2026, 11, 1)), user="user")
    seconds, busy = time.perf_counter() - started, time.process_time() - busy
    print(json.dumps([found.rows, found.units, found.dropped, seconds, busy, before, peak()]))


def peak() -> float:
    """Return the largest resident memory of this process so far, GiB.

    `getrusage` would inherit the number of a larger parent.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=int, nargs="?", default=1_000_000)
    n = parser.parse_args().rows
    with tempfile.TemporaryDirectory() as folder:
        frame = table(n)
        paths = [Path(folder) / f"rows{suffix}" for suffix in FORMATS]
        frame.to_csv(paths[0], index=False)
        frame.to_parquet(paths[1])
        frame.to_json(paths[2], orient="records", lines=True, force_ascii=False)
        del frame
        for path in paths:
            command = [sys.executable, "-m", "benchmarks.quality.compliance", "--measure", str(path)]
            rows, units, dropped, seconds, busy, before, most = json.loads(subprocess.check_output(command))
            print(
                f"{path.suffix:9} {path.stat().st_size / 1e6:6.0f} MB: {rows:,} rows of {units:,} users "
                f"in {seconds:.1f} s",
                end=" ",
            )
            print(f"({busy:.1f} of CPU), peak {most:.2f} GiB ({before:.2f} before it); a study would drop {dropped:,}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        measure(Path(sys.argv[2]))
    else:
        main()
