"""Likeness of penalty and membership risk: nearly one objective where they correlate too well."""

from moo.core.trial_record import PENALTY, RISK
from moo.objectives.compliance.sensitivity import alike
from moo.studies.results.result import StudyResult


def likeness(result: StudyResult) -> float:
    """Return the correlation of penalty and risk over the complete trials; NaN if there are too few."""
    trials = result.complete
    return alike([t.objectives[PENALTY].value for t in trials], [t.objectives[RISK].value for t in trials])
