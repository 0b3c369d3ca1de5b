"""Trial as one flat row of the table that people and spreadsheets read."""

import dataclasses
import math
from typing import Any

from moo.core.measurement import Measurement
from moo.core.trial_record import ACCURACY, MAJORITY, PENALTY, RISK, TrialRecord

ATTRIBUTE = ("advantage", "attribute_leakage", "attribute_min_entropy", "attribute_training", "attribute_p")


def row_of(trial: TrialRecord, on_front: bool, non_dominated_p: float, feasible_p: float) -> dict[str, Any]:
    """Return one trial as a flat row."""
    nothing = Measurement(value=math.nan, stderr=math.nan)
    row: dict[str, Any] = {"number": trial.number, **dataclasses.asdict(trial.params)}
    for name in (ACCURACY, RISK, PENALTY):
        measured = trial.objectives.get(name, nothing)
        row |= {name: measured.value, f"{name}_stderr": measured.stderr}
        if name == ACCURACY:
            majority = trial.extras.get(MAJORITY, nothing)
            row |= {MAJORITY: majority.value, f"{MAJORITY}_stderr": majority.stderr}
    exposed = trial.extras.get("worst_decile", nothing)
    row |= {"worst_decile": exposed.value, "worst_decile_stderr": exposed.stderr}
    for name in ATTRIBUTE:
        if name in trial.extras:
            row |= {name: trial.extras[name].value, f"{name}_stderr": trial.extras[name].stderr}
    row["epsilon_spent"] = trial.extras.get("epsilon_spent", nothing).value
    row |= {f"constraint_{name}": value for name, value in trial.constraints.items()}
    return row | {
        "feasible": trial.feasible,
        "on_front": on_front,
        "p_non_dominated": non_dominated_p,
        "p_feasible": feasible_p,
        "blocked_by": " ".join(trial.blocking),
        "claim": trial.claim,
        "cause": trial.cause,
    }
