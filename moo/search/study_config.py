"""Studies in a storage: opened by name, with a configuration that must not change."""

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import optuna
from optuna.storages import BaseStorage

from moo.core.errors import ConfigChangedError

# Keys of the attributes of a study and of a trial.
CONFIG, OUTCOME = "moo:config", "moo:outcome"


def open_study(storage: BaseStorage, name: str, directions: Sequence[str], goals: Sequence[str]) -> optuna.Study:
    """Return the study of this name, new or known.

    Raises:
        ConfigChangedError: If it is known with other directions.
    """
    wanted = [optuna.study.StudyDirection[d.upper()] for d in directions]
    study = optuna.create_study(storage=storage, study_name=name, directions=wanted, load_if_exists=True)
    if study.directions != wanted:
        raise ConfigChangedError(
            "study {name!r} must keep its goals, got {n_wanted} ({goals}) where it has "
            "{n_directions}; use another name.",
            name=name,
            n_wanted=len(wanted),
            goals=", ".join(goals),
            n_directions=len(study.directions),
        )
    return study


def keep_config(study: optuna.Study, goals: Sequence[str], config: Mapping[str, Any]) -> None:
    """Write the configuration of a new study down.

    Raises:
        ConfigChangedError: If the study is known with another configuration; says what differs.
    """
    wanted = json.loads(json.dumps(config))
    known = study.user_attrs.get(CONFIG)
    if known is None:
        with warnings.catch_warnings():
            # the names are for the dashboard; nothing else depends on them
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study.set_metric_names(list(goals))
        study.set_user_attr(CONFIG, wanted)
    elif known != wanted:
        raise ConfigChangedError(
            "study {study_name!r} must keep its configuration, but {difference}; use another name.",
            study_name=study.study_name,
            difference=difference(known, wanted),
        )


def difference(known: object, wanted: object, path: str = "") -> str:
    """Return what differs between two JSON values, the first few places."""
    places = list(_differences(known, wanted, path))
    more = f" and {len(places) - 3} more" if len(places) > 3 else ""
    return "; ".join(places[:3]) + more


def _differences(known: object, wanted: object, path: str) -> Iterator[str]:
    if isinstance(known, dict) and isinstance(wanted, dict):
        for key in sorted({*known, *wanted}):
            yield from _differences(known.get(key), wanted.get(key), f"{path}.{key}" if path else key)
    elif known != wanted:
        yield f"{path} was {known!r} and is now {wanted!r}"
