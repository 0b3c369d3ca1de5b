"""Optuna's storages: any URL, path or storage object, and errors that say what to do."""

import fcntl
import os
import random
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import optuna
import sqlalchemy.exc
from optuna.storages import BaseStorage, JournalStorage, RDBStorage, get_storage
from optuna.storages.journal import JournalFileBackend
from sqlalchemy import create_engine
from sqlalchemy.engine import URL, make_url

from moo.core.errors import InputError, StorageError
from moo.search.executors import RAISED

_SQLITE, _JOURNAL = "sqlite:///", "journal:///"
_PACKAGES = {"psycopg": "'psycopg[binary]'", "psycopg2": "psycopg2-binary", "MySQLdb": "mysqlclient"}

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]+", re.IGNORECASE)
# The first bytes of SQLite's files, and of Optuna's journals.
_DATABASE, _LOG = b"SQLite format 3\0", b'{"op_code"'
_TRIES = 5

Storage = str | Path | BaseStorage | None


def opened(storage: Storage) -> BaseStorage:
    """Open a storage: URL, journal:///PATH, SQLite path or storage object; None is memory.

    Raises:
        InputError: If it is none of these.
        StorageError: If it cannot be opened, or if its driver is not installed.
    """
    if storage is None or isinstance(storage, BaseStorage):
        return get_storage(storage)
    url = _url_of(storage)
    with _refusing(storage):
        return _journal(url) if url.startswith(_JOURNAL) else _database(url)


@contextmanager
def storage_session(storage: Storage) -> Iterator[BaseStorage]:
    """Open a storage, and let its connections go in the end if it was opened here; see `opened`."""
    held_open = opened(storage)
    try:
        yield held_open
    finally:
        inner = getattr(held_open, "_backend", held_open)
        if isinstance(inner, RDBStorage) and not isinstance(storage, BaseStorage):
            inner.remove_session()
            inner.engine.dispose()


def check_storage(storage: Storage) -> None:
    """Refuse a storage that could not be opened; nothing is made and no server is asked.

    Raises:
        InputError: If it is no storage, or if its file could not be one.
        StorageError: If its driver is not installed, or if its file cannot be written or is of
            another kind.
    """
    if storage is None or isinstance(storage, BaseStorage):
        return
    url = _url_of(storage)
    journal = _journal_path(url) if url.startswith(_JOURNAL) else None
    if journal is None:
        with _refusing(storage):
            create_engine(url.format(SCHEMA_VERSION="")).dispose()
    file = journal or sqlite_file(storage)
    with storage_errors(storage):
        if file is not None:
            _check_file(file, storage)
        if journal is not None and journal.exists():
            _journal(url)


def _check_file(file: Path, storage: Storage) -> None:
    if file.is_dir():
        raise InputError(
            "storage must be a file, got the folder {file}; name a file in it, e.g. {file2}.",
            file=file,
            file2=file / "study.db",
        )
    there = next(p for p in (file, *file.absolute().parents) if p.exists())
    if there != file and not there.is_dir():
        raise StorageError(
            "the storage must be a file in a folder, got {file}, but {there} is a file; name another.",
            file=file,
            there=there,
        )
    if not os.access(there, os.W_OK):
        raise StorageError("the storage must be readable and writable, but {there} is not; name another.", there=there)
    if there == file and sqlite_file(storage) and not _begins(file, _DATABASE):
        raise StorageError(
            "the storage must be readable and writable, but {name_of} is not: file is not a database.",
            name_of=name_of(storage),
        )


def _begins(file: Path, mark: bytes) -> bool:
    """Return whether a file is empty or begins with these bytes."""
    with file.open("rb") as opened_file:
        return opened_file.read(len(mark)) in (b"", mark)


@contextmanager
def _refusing(storage: str | Path) -> Iterator[None]:
    """Give what Optuna and SQLAlchemy raise of a URL one line without its password."""
    try:
        yield
    except ImportError as error:
        missing = getattr(error.__cause__ or error, "name", None) or "its driver"
        raise StorageError(
            "storage {name_of} needs the package {missing}, which is not installed; pip install "
            "{packages}, or choose another storage.",
            name_of=name_of(storage),
            missing=missing,
            packages=_PACKAGES.get(missing, missing),
        ) from None
    except (sqlalchemy.exc.ArgumentError, ValueError, LookupError) as error:
        raise InputError(
            "storage must be a URL that Optuna knows, e.g. sqlite:///study.db, journal:///study.log "
            "or postgresql://HOST/NAME, got {name_of}{unknown}.",
            name_of=name_of(storage),
            unknown=_unknown(error),
        ) from None
    except RuntimeError as error:
        raise StorageError(
            "storage {name_of} must fit this Optuna: {first_line}",
            name_of=name_of(storage),
            first_line=_first_line(error),
        ) from None


def _unknown(error: Exception) -> str:
    """Return the name of an unknown kind of database.

    Other errors quote parts of the URL, perhaps its password.
    """
    return f" ({_first_line(error)})" if isinstance(error, sqlalchemy.exc.NoSuchModuleError) else ""


def _database(url: str) -> BaseStorage:
    """Open a database, also where another driver makes its tables at the same moment."""
    for _ in range(_TRIES):
        try:
            return get_storage(url)
        except sqlalchemy.exc.DBAPIError as error:
            if not isinstance(error, sqlalchemy.exc.IntegrityError) and "already exists" not in str(error):
                raise
            time.sleep(random.uniform(0.1, 0.5))
    return get_storage(url)


def _url_of(storage: str | Path) -> str:
    """Return a URL as it is, and a path as the URL of an SQLite file."""
    if not isinstance(storage, str | Path):
        raise InputError("storage must be a URL, a path or an Optuna storage, got {storage!r}.", storage=storage)
    if isinstance(storage, str) and "://" in storage:
        return storage
    if bad := next((c for c in "?{}\0" if c in str(storage)), ""):
        raise InputError(
            "a storage's path must have no {bad!r}, got {storage!r}; name another file.", bad=bad, storage=str(storage)
        )
    scheme, colon, _ = str(storage).partition(":")
    if isinstance(storage, str) and colon and _SCHEME.fullmatch(scheme):
        raise InputError(
            "storage must be a URL with ://, e.g. sqlite:///study.db, or a path, got {scheme}:...; "
            "write ./{scheme}:... for a path.",
            scheme=scheme,
        )
    return f"{_SQLITE}{Path(storage).expanduser()}"


def _journal_path(url: str) -> Path:
    path = Path(url.removeprefix(_JOURNAL))
    if not path.name or "\0" in url:
        raise InputError("a journal must have a path, got {url!r}; write journal:///study.log.", url=url)
    return path


def _journal(url: str) -> BaseStorage:
    path = _journal_path(url)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        if path.exists() and not _begins(path, _LOG):
            raise ValueError("its first line is another")
        return JournalStorage(JournalFileBackend(str(path)))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StorageError(
            "{path} must be a journal that Optuna wrote, but is not: {first_line}.",
            path=path,
            first_line=_first_line(error),
        ) from None


def name_of(storage: Storage) -> str:
    """Return how messages name a storage, without its password."""
    if storage is None:
        return "memory"
    if isinstance(storage, RDBStorage):
        storage = str(storage.url)
    if isinstance(storage, BaseStorage):
        return type(storage).__name__
    try:
        if "://" not in str(storage):
            return str(storage)
        # Its options may hold a password too.
        url = make_url(str(storage))
        return url.set(query={}).render_as_string(hide_password=True) + ("?..." if url.query else "")
    except (sqlalchemy.exc.ArgumentError, ValueError):
        return str(storage).partition("://")[0] + "://..."


def sqlite_file(storage: Storage) -> Path | None:
    """Return the file of an SQLite storage, however it is written; None of any other."""
    inner = getattr(storage, "_backend", storage)
    if isinstance(inner, RDBStorage):
        storage = str(inner.url)
    if storage is None or isinstance(storage, BaseStorage):
        return None
    text = _url_of(storage)
    try:
        url: URL = make_url(text)
    except (sqlalchemy.exc.ArgumentError, ValueError):
        return None
    if url.get_backend_name() != "sqlite" or not url.database or ":memory:" in url.database:
        return None
    return Path(urlsplit(url.database).path if url.database.startswith("file:") else url.database).resolve()


@contextmanager
def locked_file(path: Path | None) -> Iterator[None]:
    """Hold an SQLite file for one driver.

    The system releases it when the driver ends, however it ends.

    Raises:
        StorageError: If another driver holds it.
    """
    if path is None:
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path.with_name(path.name + ".lock"), "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StorageError(
                "one search at a time may use a storage, but another holds {path}; wait for it or name another.",
                path=path,
            ) from None
        yield


@contextmanager
def storage_errors(storage: Storage) -> Iterator[None]:
    """Turn a storage's failures into `StorageError`."""
    try:
        yield
    except (sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        origin: BaseException = error
        while origin.__cause__ is not None:
            origin = origin.__cause__
        raise StorageError(
            "the storage must be readable and writable, but {name_of} is not: {first_line}.",
            name_of=name_of(storage),
            first_line=_first_line(origin),
        ) from error
    except OSError as error:
        notes = getattr(error, "__notes__", ())
        if isinstance(error, StorageError) or error.errno is None or any(n.startswith(RAISED) for n in notes):
            raise
        raise StorageError(
            "the storage must be readable and writable, but {name_of} is not: {strerror}.",
            name_of=name_of(storage),
            strerror=error.strerror,
        ) from error


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
