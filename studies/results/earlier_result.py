"""Parts of an earlier result that the same call does not measure again."""

import dataclasses
import json
from pathlib import Path

from moo.core.errors import InputError
from moo.studies.results.result import StudyResult, load_result
from moo.studies.results.weights import Weights


def keep_from_earlier_result(result: StudyResult, folder: Path, weights: str | Weights | None) -> StudyResult:
    """Return a result with the weights and the confirmation of an earlier one, as far as they hold.

    The confirmation is kept if the front is still the one that was confirmed.

    Args:
        result: Result of the study now.
        folder: Folder of an earlier result, if there is one; that of another study is ignored.
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
    """Return the identity of a study: name, policy, specification."""
    return json.dumps([result.name, result.cost.policy, dict(result.spec)], sort_keys=True)


def _front(result: StudyResult) -> dict[int, str]:
    """Return number -> measurements, of the trials on the front."""
    points = (t for t in result.complete if t.number in result.on_front)
    return {t.number: json.dumps({n: m.to_json() for n, m in t.objectives.items()}, sort_keys=True) for t in points}
