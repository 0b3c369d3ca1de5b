"""Records per user: from the guarantee of a unit to that of a person."""

import numpy as np

from moo.core.errors import InputError
from moo.data.catalogue import DATASETS, Records
from moo.privacy.composition import group_privacy
from moo.studies.spec.study import StudySpec


def records_per_user(spec: StudySpec, records: Records) -> int | None:
    """Return the most units of privacy that belong to one user, or None if it is unknown.

    It is 1 if a column names the users, since the user is then the unit; else the declared maximum, which nobody
    can check.

    Raises:
        InputError: If a column names the users, and one of them has more records than declared.
    """
    declared = 1 if spec.one_record_per_user else spec.max_records_per_user
    named = DATASETS[spec.data].unit != "record" if spec.data in DATASETS else bool(spec.user)
    if not named:
        return declared or None
    most = int(np.bincount(records.units).max())
    if declared and most > declared:
        key = "one_record_per_user = true" if spec.one_record_per_user else f"max_records_per_user = {declared}"
        raise InputError(
            "{key} must hold in {data}, but a {unit_name} has {most} records. Raise "
            "max_records_per_user, or leave both keys out: if a column names the users, the user is "
            "the unit of privacy.",
            key=key,
            data=spec.data,
            unit_name=records.unit_name,
            most=most,
        )
    return 1


def per_user(epsilon: float, delta: float, most: int | None) -> tuple[float, float] | None:
    """Return (epsilon, delta) of a user with `most` units, by group privacy; None if unknown."""
    return None if most is None else group_privacy(epsilon, delta, most)
