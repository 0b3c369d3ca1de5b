"""Start-up of the command line: CPU seconds and peak memory of commands that only read or refuse.

python -m benchmarks.engine.startup [DIR of a study that ran]
"""

import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence

REPEATS = 5
LEDGER = """
from moo.privacy.events import TrainingRun
from moo.studies.accounting.account import ledger_of
run = TrainingRun(sample_rate=0.5, steps=25, noise_multiplier=2, max_grad_norm=1, delta=1e-5, n_units=400, unit="user")
ledger = ledger_of("reviews")
ledger.commit("startup", ledger.reserve("startup", 0, run), steps=run.steps)
"""


def cost(command: Sequence[str]) -> tuple[float, float]:
    """Return the CPU seconds (user and system) and the peak MiB of one command."""
    child = subprocess.Popen([sys.executable, *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def main() -> None:
    """Print one line a command: the median of `REPEATS` runs after one that is not counted."""
    moo = ["-m", "moo.cli.main"]
    commands = {
        "python": ["-c", "pass"],
        "import moo": ["-c", "import moo"],
        "moo --help": [*moo, "--help"],
        "moo run nosuch": [*moo, "run", "nosuch"],
        "moo data list": [*moo, "data", "list"],
        "moo ledger show, one training": [*moo, "ledger", "show", "reviews"],
    }
    if len(sys.argv) > 1:
        commands["moo front"] = [*moo, "front", "--out", sys.argv[1]]
    with tempfile.TemporaryDirectory() as home:
        os.environ["MOO_LEDGERS"] = home
        # In a process of its own: a child's peak begins at the memory of its parent
        subprocess.run([sys.executable, "-c", LEDGER], check=True)
        for name, command in commands.items():
            costs = [cost(command) for _ in range(1 + REPEATS)][1:]
            seconds, mebibytes = (statistics.median(column) for column in zip(*costs, strict=True))
            print(f"{name:32} {seconds:6.2f} s  {mebibytes:6.0f} MiB")


if __name__ == "__main__":
    main()
