"""Texts masked per second and core, by level, on order notes with reviews and reviews alone.

python -m benchmarks.quality.masking [--texts 4000]

Processor time of one core, garbage collection included; the least of three runs.
"""

import argparse
import random
import time

from moo.core.personal_data_types import MAX_LEVEL
from moo.data.sources.labelled_contacts import load_labelled
from moo.data.synthetic.free_wording import free_notes
from moo.data.synthetic.order_notes import synthetic_notes
from moo.masking import find_spans


def sets(n: int) -> dict[str, list[str]]:
    """Return name -> n texts."""
    real = [t for t in load_labelled().texts if len(t) >= 8]
    random.Random(1).shuffle(real)
    shop, free = synthetic_notes(n, seed=1).texts, free_notes(n, seed=1).texts
    return {
        "zh shop's notes + review": [f"{a} {b}" for a, b in zip(shop, real, strict=False)],
        "zh free wording": list(free),
        "zh reviews alone": real[:n],
        "en shop's notes": list(synthetic_notes(n, seed=1, language="en").texts),
        "en free wording": list(free_notes(n, seed=1, language="en").texts),
    }


def seconds(texts: list[str], level: int) -> float:
    """Return processor seconds of finding the spans of a level."""
    started = time.process_time()
    for text in texts:
        find_spans(text, level)
    return time.process_time() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=4000)
    n = parser.parse_args().texts
    print(
        f"{'texts a second a core':28s}{'characters':>11s}" + "".join(f"{f'L{k}':>9s}" for k in range(1, MAX_LEVEL + 1))
    )
    for name, texts in sets(n).items():
        seconds(texts[:200], MAX_LEVEL)
        rates = [len(texts) / min(seconds(texts, level) for _ in range(3)) for level in range(1, MAX_LEVEL + 1)]
        print(f"{name:28s}{sum(map(len, texts)) / len(texts):11.0f}" + "".join(f"{r:9,.0f}" for r in rates), flush=True)


if __name__ == "__main__":
    main()
