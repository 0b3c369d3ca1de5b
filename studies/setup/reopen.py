"""Finished study, prepared once more on the users that it was searched on and no others."""

from pathlib import Path

from moo.core.errors import InputError
from moo.privacy.keys import StudyKey
from moo.privacy.release_policy import Policy
from moo.studies.results.result import StudyResult
from moo.studies.setup.prepared import PreparedStudy, prepare_study
from moo.studies.setup.study_data import Stage, no_stage
from moo.studies.spec.study import StudySpec


def marks_of(prepared: PreparedStudy) -> dict[str, str]:
    """Return keyed digests, hex, of the key and the data, which a later call compares."""
    return {"key": prepared.key.derive("fingerprint").hex()[:16], "data": prepared.data.digest[:16]}


def reopen_study(
    result: StudyResult, folder: Path, stage: Stage = no_stage, *, spec: StudySpec | None = None, split: str = ""
) -> PreparedStudy:
    """Prepare a finished study on its own split, or on another split of the same users.

    Args:
        result: Result of the study.
        folder: Folder of the study, with its key.
        stage: Receiver of progress.
        spec: Specification to use instead of the study's own.
        split: Name of another split; see `prepare_study`.

    Raises:
        InputError: If the key is not the study's, or units are records and the table has changed: a record is named
            by its place, so the records that were searched on could not be recognised.
    """
    policy = Policy(**result.about.get("policy", {}))
    key = StudyKey.load(folder / "study.key")
    prepared = prepare_study(
        spec or result.specification(), key, folder, stage, policy=policy, split=split, name=result.name
    )
    check_same(result, prepared, folder)
    return prepared


def check_same(result: StudyResult, prepared: PreparedStudy, folder: Path) -> None:
    """Raise if the users are not those that the study was searched on.

    Raises:
        InputError: See `reopen_study`.
    """
    known, marks = result.about.get("marks"), marks_of(prepared)
    if known is None:
        raise InputError(
            "The result must name the users that {name} was searched on, but does not. "
            "Search again under another name.",
            name=result.name,
        )
    if known["key"] != marks["key"]:
        raise InputError(
            "The key must be the one that {name} was searched with. Restore {folder}.",
            name=result.name,
            folder=folder / "study.key",
        )
    if prepared.data.unit == "record" and known["data"] != marks["data"]:
        raise InputError(
            "The data must be those that {name} was searched on, since records without a user are named by "
            "their places, but they have changed. Restore them, name a user column, or start another study.",
            name=result.name,
        )
