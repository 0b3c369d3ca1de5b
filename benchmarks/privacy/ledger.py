"""Time that the ledger adds to a trial: reserve, answer, settle, compose the epsilon.

python -m benchmarks.privacy.ledger

Measured in a new ledger and in one of 10,000 entries.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from moo.privacy.composition import compose_epsilon
from moo.privacy.events import PrivateAnswer, TrainingRun
from moo.privacy.ledger import Ledger, verify

ENTRIES, TRIALS = 10_000, 50
RUN = TrainingRun(
    sample_rate=0.5, steps=25, noise_multiplier=2.0, max_grad_norm=0.3, delta=1e-5, n_units=400, unit="customer"
)


ANSWERS = [
    PrivateAnswer(name=n, sensitivity=0.01, noise_multiplier=5.0, part=p)
    for n, p in (("accuracy", "test"), ("risk", "pool"))
]


def trial(ledger: Ledger, number: int, study: str) -> float:
    """Charge, settle and compose one trial as a study does, and return the seconds."""
    started = time.perf_counter()
    reservation = ledger.reserve(study, number, RUN)
    ledger.answer(study, number, ANSWERS)
    ledger.commit(study, reservation, steps=RUN.steps)
    compose_epsilon(ledger.charged(study), delta=RUN.delta)
    return time.perf_counter() - started


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger(Path(folder) / "ledger", "d" * 32)
        trial(ledger, 0, "warm")
        young = statistics.median(trial(ledger, i, "young") for i in range(TRIALS))
        for i in range((ENTRIES - 6 * TRIALS) // 2):
            ledger.commit("others", ledger.reserve("others", i, RUN), steps=RUN.steps)
        old = statistics.median(trial(ledger, i, "old") for i in range(TRIALS))
        started = time.perf_counter()
        found = verify(ledger.path)
        checked = time.perf_counter() - started
    print(
        f"a trial: {1e3 * young:.1f} ms in a new ledger, {1e3 * old:.1f} ms at {found.entries} entries ",
        end="",
    )
    print(f"(x {old / young:.2f}); verify takes {checked:.2f} s; intact: {found.intact}")


if __name__ == "__main__":
    main()
