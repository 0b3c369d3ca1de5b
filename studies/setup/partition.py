"""Partition of the records: filtered by law, then split by whole units under a key."""

import numpy as np

from moo.core.errors import InputError
from moo.core.trial_record import Transformation
from moo.data.catalogue import Records
from moo.data.keyed_split import split_units
from moo.data.legal.gates import PreparationReport, Terms, consent_filter
from moo.studies.setup.rare_classes import merged
from moo.studies.spec.study import StudySpec

PARTS = ("pool", "test", "unseen")


def filtered(loaded: Records, spec: StudySpec, terms: Terms) -> tuple[Records, PreparationReport]:
    """Return the records that pass the legal gates, and a report of the dropped ones.

    Without a consent filter all records pass.
    """
    kept, report = loaded, PreparationReport(before=len(loaded), after=len(loaded), dropped={})
    if spec.consent_filter:
        kept, report = consent_filter(loaded, terms, sensitive_rows=spec.sensitive_rows)
    return merged(kept, spec.min_class_users), report


def split_off_release_users(records: Records, key: bytes, share: float) -> tuple[Records, Records | None]:
    """Return the records to search on, and those of the release users, by keyed hash.

    Raises:
        InputError: If either side is empty.
    """
    if not share:
        return records, None
    step = Transformation(
        name="release_users",
        scope="user",
        detail="set aside by a keyed hash of each user's own id",
        why="the models that leave are trained on users whom no trial has read",
    )
    held = split_units(records.unit_ids, key, {"release": share})["release"][records.units]
    if held.all() or not held.any():
        raise InputError(
            "Both sides of the release split must hold users, but {n_records} records fill one side alone. "
            "Take more records.",
            n_records=len(records),
        )
    return records.take(~held, step), records.take(held, step)


def split(records: Records, spec: StudySpec, key: bytes) -> dict[str, Records]:
    """Return name of a part -> its records, for each of `PARTS`.

    Raises:
        InputError: If a part is empty, or a classifier's pool holds one class alone.
    """
    masks = split_units(records.unit_ids, key, {"pool": spec.pool, "test": spec.test})
    parts = {}
    for part, name in zip(PARTS, ("pool", "test", "rest"), strict=True):
        rows = masks[name][records.units]
        if not rows.any():
            raise InputError(
                "Every part must hold records, but {part} got none of the {n_records} of {n_units} units. "
                "Bring more units.",
                part=part,
                n_records=len(records),
                n_units=records.n_units,
            )
        parts[part] = records.take(rows)
    labels = np.unique(parts["pool"].labels)
    if spec.task == "classification" and len(labels) < 2:
        raise InputError(
            "The pool must hold at least two classes, but each of its {n_records} records is {name!r}; take more data.",
            n_records=len(parts["pool"]),
            name=records.classes[int(labels[0])],
        )
    return parts
