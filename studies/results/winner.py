"""Winner of `select_one`: the trial with the highest score of its own, whichever others there are."""

import json
import math
from collections.abc import Sequence

from moo.core.messages import Message, joined
from moo.core.trial_record import ACCURACY, TrialRecord
from moo.studies.results.recommendation import Recommendation


def selected(complete: Sequence[TrialRecord]) -> Recommendation:
    """Return the trial with the highest score of its own.

    A score does not depend on the other trials: Theorem 2 asks for that.
    """
    winner = max(complete, key=own_score)
    if winner.feasible:
        return Recommendation(
            trial=winner, reason="the most accurate within the limits, by noised answers; it alone may leave"
        )
    return Recommendation(
        trial=winner,
        reason=Message(
            "no trial is within the limits; this one is nearest, and breaks {limits}",
            limits=joined(", ", winner.blocking),
        ),
    )


def own_score(trial: TrialRecord) -> tuple[bool, float, str]:
    """Return the score that `select_one` ranks by, from one trial's settings and noised answers alone.

    Within the limits comes first and then accuracy; outside, the sum of the violations. Ties go by the
    settings, so that the order of
    the trials decides nothing.
    """
    violation = sum(v for v in trial.constraints.values() if v > 0)
    value = trial.objectives[ACCURACY].value if trial.feasible else -violation
    settings = json.dumps([trial.params.to_json(), trial.to_json()["constraints"]], sort_keys=True)
    return trial.feasible, -math.inf if math.isnan(value) else value, settings
