"""Classes of few users: merged into one by a declared step, or refused by name."""

import numpy as np

from moo.core.errors import InputError
from moo.core.messages import Message, joined
from moo.core.trial_record import Transformation
from moo.data.catalogue import DATASETS, Records
from moo.data.records import UNLABELLED
from moo.studies.spec.study import StudySpec

OTHER = "other"


def users_by_class(records: Records) -> dict[str, int]:
    """Return class -> users with a record of it."""
    pairs = np.unique(np.stack([records.labels, records.units]), axis=1)[0]
    counts = np.bincount(pairs, minlength=len(records.classes))
    return {name: int(n) for name, n in zip(records.classes, counts, strict=True)}


def merged(records: Records, least: int) -> Records:
    """Merge classes of fewer users into "other", a step that reads all users.

    Below 2 nothing can be merged.

    Args:
        records: Labelled records.
        least: Users that a class needs.

    Raises:
        InputError: If fewer than two classes are left.
    """
    if least < 2 or records.classes == UNLABELLED:
        return records
    small = {name: n for name, n in users_by_class(records).items() if n < least}
    step = Transformation(
        name="rare_classes",
        scope="dataset",
        detail=Message("classes of fewer than {least} users became one: {classes}", least=least, classes=_listed(small))
        if small
        else Message("no class has fewer than {least} users", least=least),
        before=len(records),
        after=len(records),
        changed=int(np.isin(records.labels, [records.classes.index(name) for name in small]).sum()),
        why="min_class_users asks for it; what is merged depends on all users, so for a DP claim set "
        "min_class_users = 0, and merge classes in the table by a list that was made without it",
    )
    classes = [name for name in records.classes if name not in small]
    classes += [OTHER] if small and OTHER not in classes else []
    if len(classes) < 2:
        raise InputError(
            "Two classes or more must have {least} users each, but only {name!r} is left of {counts}. "
            "Lower min_class_users, or bring more users.",
            least=least,
            name=classes[0],
            counts=_listed(users_by_class(records)),
        )
    place = {name: i for i, name in enumerate(classes)}
    codes = np.array([place.get(name, place.get(OTHER, 0)) for name in records.classes], dtype=np.int64)
    return records.with_classes(codes[records.labels], tuple(classes), step)


def check_class_sizes(records: Records, spec: StudySpec) -> None:
    """Raise if a class has fewer users than two for each shadow, or than `min_class_users`.

    Raises:
        InputError: With the names of the classes.
    """
    shadows = spec.training.n_shadows
    least = spec.min_class_users or 2 * shadows
    small = {name: n for name, n in users_by_class(records).items() if n < least}
    if small and records.classes != UNLABELLED:
        raise InputError(
            "Every class must have at least {least} {unit_name}s{why}, but got {counts}; bring more, "
            "take those rows out, or set min_class_users: smaller classes are merged into {other!r}, "
            "without a DP claim, and 1 keeps all.",
            least=least,
            unit_name=records.unit_name,
            why="" if spec.min_class_users else Message(", two for each of {shadows} shadows", shadows=shadows),
            counts=_listed(small),
            other=OTHER,
        )


def _listed(counts: dict[str, int]) -> Message:
    """Return classes with their users, in words."""
    return joined(", ", [Message("{name!r} with {n}", name=name, n=n) for name, n in counts.items()])


def study_steps(spec: StudySpec) -> tuple[Transformation, ...]:
    """Return the steps of a study on the records of all users, its filters aside."""
    split = Transformation(
        name="split",
        scope="user",
        detail="pool, test and unseen users by a keyed hash of each user's own id",
        why="nobody who was trained on may be tested on",
    )
    if spec.data in DATASETS:
        return (split,)
    counted = Transformation(
        name="number_of_users",
        scope="dataset",
        effect="takes_as_public",
        detail="batch sizes and the divisor of gradients are planned from it, so the claim takes it as public",
        why="a training needs a size to plan for",
    )
    read = Transformation(
        name="class_list",
        scope="dataset",
        effect="takes_as_public",
        detail="read from the labels of all users, so the claim takes it as public; declare it by classes = [...]",
        why="a classifier has an output for each class",
    )
    rare = Transformation(
        name="users_of_each_class",
        scope="dataset",
        effect="refuses",
        detail="counted to refuse the data or leave them as they are",
        why="a class of few users is missing from some half, pool or test part",
    )
    classify = spec.task == "classification"
    return (counted, *([read] if classify and not spec.classes else []), *([rare] if classify else []), split)
