"""A finished study made ready once more, on the users that it was searched on and no others."""

from pathlib import Path

from moo.core.errors import InputError
from moo.privacy.keys import StudyKey
from moo.privacy.release_policy import Policy
from moo.studies.results.result import StudyResult
from moo.studies.setup.prepared import Prepared, Stage, no_stage
from moo.studies.spec.study import StudySpec


def marks_of(prepared: Prepared) -> dict[str, str]:
    """What a later call must find again: the key that parted the users, and the data; keyed digests, hex."""
    return {"key": prepared.key.derive("fingerprint").hex()[:16], "data": prepared.digest[:16]}


def reopen_study(
    result: StudyResult, folder: Path, stage: Stage = no_stage, *, spec: StudySpec | None = None, split: str = ""
) -> Prepared:
    """The study on its own split, or on another of the same users.

    Args:
        result: Of the study.
        folder: Of the study, which holds its key.
        stage: Told what is being done.
        spec: In place of the study's own.
        split: As of `Prepared`.

    Raises:
        InputError: If the key is not the study's, or units are records and the table has changed: their places are their names, so
            that who was searched on could not be told from who was not.
    """
    policy = Policy(**result.about.get("policy", {}))
    share = policy.release_share if policy.name == "proxy_then_retrain" else 0.0
    key = StudyKey.load(folder / "study.key")
    prepared = Prepared(
        spec or result.specification(), key, folder, stage, release_share=share, split=split, name=result.name
    )
    check_same(result, prepared, folder)
    return prepared


def check_same(result: StudyResult, prepared: Prepared, folder: Path) -> None:
    """Refuse other users than those that the study was searched on; as of `reopen_study`."""
    known, found = result.about.get("marks"), marks_of(prepared)
    if known is None:
        raise InputError(
            "the result must say which users {name} was searched on; begin it anew under another name.",
            name=result.name,
        )
    if known["key"] != found["key"]:
        raise InputError(
            "the key must be the one that {name} was searched with; restore {folder}.",
            name=result.name,
            folder=folder / "study.key",
        )
    if prepared.records.unit_name == "record" and known["data"] != found["data"]:
        raise InputError(
            "the data must be as {name} was searched on, since records without a user are told apart "
            "by their places, but they have changed; restore them, name a user column, or start "
            "another study.",
            name=result.name,
        )
