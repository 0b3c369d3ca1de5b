"""What the ledger adds to a trial: one reservation and one settlement, in a ledger that holds 10,000 entries.

python -m benchmarks.ledger
"""

import statistics
import tempfile
import time
from pathlib import Path

from moo.privacy.events import TrainingRun
from moo.privacy.ledger import Ledger, verify

ENTRIES, TRIALS = 10_000, 50
RUN = TrainingRun(
    sample_rate=0.5, steps=25, noise_multiplier=2.0, max_grad_norm=0.3, delta=1e-5, n_units=400, unit="customer"
)


def trial(ledger: Ledger, number: int) -> float:
    """Seconds of one reservation and its settlement."""
    started = time.perf_counter()
    ledger.commit("bench", ledger.reserve("bench", number, RUN), steps=RUN.steps)
    return time.perf_counter() - started


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger(Path(folder) / "ledger", "d" * 32)
        young = statistics.median(trial(ledger, i) for i in range(TRIALS))
        for i in range((ENTRIES - 2 * TRIALS) // 2):
            trial(ledger, i)
        old = statistics.median(trial(ledger, i) for i in range(TRIALS))
        started = time.perf_counter()
        found = verify(ledger.path)
        checked = time.perf_counter() - started
    print(
        f"a trial's entries: {1e3 * young:.1f} ms in a new ledger, {1e3 * old:.1f} ms at {found.entries} entries ",
        end="",
    )
    print(f"(x {old / young:.2f}); verify takes {checked:.2f} s; intact: {found.intact}")


if __name__ == "__main__":
    main()
