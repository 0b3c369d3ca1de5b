"""Optuna's storage with one driver at a time, and errors that say what to do."""

import fcntl
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy.exc

from moo.errors import ConfigChangedError, StorageError

CONFIG, OUTCOME = "moo:config", "moo:outcome"
_SQLITE = "sqlite:///"


def as_url(storage: str | Path | None) -> str | None:
    """A path becomes an SQLite URL; a URL stays; None is memory alone."""
    if storage is None or "://" in str(storage):
        return None if storage is None else str(storage)
    return f"{_SQLITE}{storage}"


@contextmanager
def driver(url: str | None) -> Iterator[None]:
    """Hold the storage for one driver, and turn its failures into `StorageError`."""
    if url is None or not url.startswith(_SQLITE):
        with reading(url):
            yield
        return
    path = Path(url.removeprefix(_SQLITE))
    with reading(url):
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path.with_name(path.name + ".lock"), "w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise StorageError(
                    f"one search at a time may use a storage, but another holds {path}; wait for it or name another."
                ) from None
            yield


@contextmanager
def reading(url: str | None) -> Iterator[None]:
    """Turn a storage's failures into `StorageError`."""
    where = url or "memory"
    try:
        yield
    except (sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        origin: BaseException = error
        while origin.__cause__ is not None:
            origin = origin.__cause__
        raise StorageError(f"the storage must be readable and writable, but {where} is not: {origin}.") from error
    except OSError as error:
        if isinstance(error, StorageError) or error.errno is None:
            raise
        raise StorageError(
            f"the storage must be readable and writable, but {where} is not: {error.strerror}."
        ) from error


def open_study(
    url: str | None, name: str, directions: Sequence[str], goals: Sequence[str], config: Mapping[str, Any]
) -> optuna.Study:
    """The study of this name, new or resumed.

    Raises:
        ConfigChangedError: If it exists with another configuration; says what differs.
    """
    study = optuna.create_study(
        storage=url,
        study_name=name,
        directions=[optuna.study.StudyDirection[d.upper()] for d in directions],
        load_if_exists=True,
    )
    wanted = json.loads(json.dumps(config))
    known = study.user_attrs.get(CONFIG)
    if known is None:
        with warnings.catch_warnings():  # the names are for the dashboard; nothing else depends on them
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study.set_metric_names(list(goals))
        study.set_user_attr(CONFIG, wanted)
    elif known != wanted:
        raise ConfigChangedError(
            f"study {name!r} must keep its configuration, but {difference(known, wanted)}; use another name."
        )
    return study


def difference(known: Any, wanted: Any, path: str = "") -> str:
    """What differs between two JSON values, the first few places."""
    found = list(_differences(known, wanted, path))
    more = f" and {len(found) - 3} more" if len(found) > 3 else ""
    return "; ".join(found[:3]) + more


def _differences(known: Any, wanted: Any, path: str) -> Iterator[str]:
    if isinstance(known, dict) and isinstance(wanted, dict):
        for key in sorted({*known, *wanted}):
            yield from _differences(known.get(key), wanted.get(key), f"{path}.{key}" if path else key)
    elif known != wanted:
        yield f"{path} was {known!r} and is now {wanted!r}"
