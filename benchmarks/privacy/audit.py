"""Repeated audits of a sound engine: sizes of lower bounds, and frequency of false alarms.

python -m benchmarks.privacy.audit [--study reviews] [--runs 10] [--canaries 1000] [--folder DIR]
"""

import argparse
import math
import tempfile
from pathlib import Path

import numpy as np

from moo.core.trial_record import TrialParams
from moo.studies.spec.study import load_spec
from moo.studies.workflows.audit import AuditReport, audit_configuration

CASES = tuple(
    (kind, depth, epsilon) for kind in ("dirac", "text") for depth in (0, 1) for epsilon in (1.0, 8.0, math.inf)
)


def mean(values: list[float]) -> str:
    """Return mean and standard error as text."""
    return f"{np.mean(values):5.2f} ({np.std(values, ddof=1) / math.sqrt(len(values)):.2f})"


def row(found: list[AuditReport]) -> str:
    """Return lower bounds with standard errors, right guesses of a tenth, smallest p-values."""
    tenth = [a.guessed[0].correct / a.guessed[0].guesses for a in found]
    return (
        f"{mean([a.epsilon_low for a in found])}  {max(a.epsilon_low for a in found):5.2f}  "
        f"{mean([a.epsilon_low_dp for a in found])}  "
        f"{np.mean(tenth):.3f}  {sum(bool(a.alarms) for a in found):3} of {len(found)}  "
        f"{min(a.p_value for a in found):.3f}  {min(a.sampler_p_value for a in found):.3f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", default="reviews")
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--canaries", type=int, default=1000)
    parser.add_argument("--folder", type=Path, help="keeps the trunk's cache and the reports")
    o = parser.parse_args()
    spec = load_spec(o.study)
    print(
        "kind   depth  claimed  bound (se)    largest  by eps, delta  of a tenth  alarms  least p  least p of batches"
    )
    with tempfile.TemporaryDirectory() as temporary:
        for kind, depth, epsilon in CASES:
            params = TrialParams(
                target_epsilon=epsilon, masking_level=0, lora_rank=8, learning_rate=1e-3, adapted_layers=depth
            )
            found = [
                audit_configuration(spec, params, folder=o.folder or Path(temporary), kind=kind, canaries=o.canaries)
                for _ in range(o.runs)
            ]
            print(f"{kind:6} {depth:5}  {epsilon:7g}  {row(found)}", flush=True)


if __name__ == "__main__":
    main()
