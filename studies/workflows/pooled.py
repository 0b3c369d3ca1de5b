"""Weighted mean of a front point's two trainings: the search's and the confirming one."""

import dataclasses
import math

from moo.core.measurement import Measurement
from moo.core.trial_record import ACCURACY, RISK, TrialRecord
from moo.studies.trial.judge import over_limit


def pooled(searched: TrialRecord, again: TrialRecord, *, max_risk: float) -> TrialRecord:
    """Return a record with risk and accuracy averaged over both trainings, and the risk limit judged again.

    Both are weighted by the inverse squares of the risk's standard errors. The search chose by its
    numbers, so they are too good; the fresh ones alone often drop a point near its limit by chance.
    Together they are nearer to the truth than either, and the fresh numbers weigh more. The accuracy
    keeps the fresh standard error, since both trainings were judged on the same users.

    Args:
        searched: Record of the search.
        again: Record of the second training, on the same split.
        max_risk: Limit on the upper bound of risk.
    """
    old, new = searched.objectives[RISK], again.objectives[RISK]
    if not all(math.isfinite(m.value) and 0 < m.stderr < math.inf for m in (old, new)):
        return again
    weight = old.stderr**-2 / (old.stderr**-2 + new.stderr**-2)
    risk = _between(old, new, weight, stderr=(old.stderr**-2 + new.stderr**-2) ** -0.5)
    before, after = searched.objectives[ACCURACY], again.objectives[ACCURACY]
    accuracy = _between(before, after, weight, stderr=after.stderr)
    return dataclasses.replace(
        again,
        objectives={**again.objectives, ACCURACY: accuracy, RISK: risk},
        constraints={**again.constraints, "max_risk": over_limit(risk, max_risk)},
    )


def _between(old: Measurement, new: Measurement, weight: float, *, stderr: float) -> Measurement:
    return dataclasses.replace(new, value=weight * old.value + (1 - weight) * new.value, stderr=stderr)
