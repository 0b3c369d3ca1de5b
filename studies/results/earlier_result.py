"""What an earlier call has left beside a study that the same call does not measure again: weights, and the front trained anew."""

import dataclasses
import json
from pathlib import Path

from moo.core.errors import InputError
from moo.studies.results.result import StudyResult, load_result
from moo.studies.results.weights import Weights


def carried_over(result: StudyResult, folder: Path, weights: str | Weights | None) -> StudyResult:
    """The result, weighed as asked or else as before, and confirmed as before where its front is still the one that was confirmed.

    Args:
        result: Of the study as it stands now.
        folder: Where an earlier result may stand; that of another study is left alone.
        weights: As of `StudyResult.weighed`; None keeps what the earlier result has.
    """
    try:
        before = load_result(folder)
    except InputError:
        return result.weighed(weights)
    if _measured(before) != _measured(result):
        return result.weighed(weights)
    result = dataclasses.replace(result, weights=before.weights)
    if _front(before) == _front(result):
        result = dataclasses.replace(result, refined=before.refined, confirmed=before.confirmed)
    return result if weights is None else result.weighed(weights)


def _measured(result: StudyResult) -> str:
    """Which study it is."""
    return json.dumps([result.name, result.cost.policy, dict(result.spec)], sort_keys=True)


def _front(result: StudyResult) -> dict[int, str]:
    """Number -> what was measured there."""
    points = (t for t in result.complete if t.number in result.on_front)
    return {t.number: json.dumps({n: m.to_json() for n, m in t.objectives.items()}, sort_keys=True) for t in points}
