"""Storages of a search: every kind works or is refused in one line, and one driver at a time has a study."""

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import BaseStorage, InMemoryStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend

from moo.core.errors import ConfigChangedError, InputError, MooError, StorageError
from moo.search import Progress, lease
from moo.search.lease import Lease
from moo.search.storage import check_storage, name_of, opened, sqlite_file
from tests.fixtures.black_box import run, told
from tests.fixtures.storages import all_begin_at_once, goes_on_after_a_kill


def journal(path: Path) -> BaseStorage:
    return JournalStorage(JournalFileBackend(str(path)))


KINDS = {
    "memory object": lambda _: InMemoryStorage(),
    "journal object": lambda folder: journal(folder / "s.log"),
    "database object": lambda folder: RDBStorage(f"sqlite:///{folder / 's.db'}"),
    "journal URL": lambda folder: f"journal:///{folder / 's.log'}",
    "database URL": lambda folder: f"sqlite+pysqlite:///{folder / 's.db'}?timeout=5",
    "path": lambda folder: folder / "s.db",
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_storage_goes_on_where_it_stopped(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    storage = KINDS[kind](tmp_path)
    run(n_trials=3, population=4, storage=storage)
    assert told(run(n_trials=6, population=4, storage=storage)) == told(run(n_trials=6, population=4))
    assert {p.name for p in tmp_path.iterdir()} <= {"s.log", "s.db", "s.db.lock"}


@pytest.mark.parametrize("kind", KINDS)
def test_a_second_driver_of_any_storage_is_refused(kind: str, tmp_path: Path) -> None:
    storage = KINDS[kind](tmp_path)
    tried = []

    def second(_: Progress) -> None:
        with pytest.raises(StorageError, match="another holds") as caught:
            run(storage=storage)
        tried.append(str(caught.value))

    run(n_trials=2, population=2, storage=storage, callbacks=[second])
    assert len(tried) == 2
    assert not any("\n" in line for line in tried)
    run(n_trials=3, population=2, storage=storage)


def test_two_spellings_of_one_file_are_one_storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "s.db"
    (tmp_path / "link.db").symlink_to(file)
    spellings = [
        "s.db",
        "./s.db",
        "sqlite:///s.db",
        f"sqlite:///{file}?timeout=9",
        f"sqlite+pysqlite:///{file}",
        "link.db",
    ]
    uri = f"sqlite:///file:{file}?uri=true"
    assert {sqlite_file(s) for s in (*spellings, uri, Path("s.db"), RDBStorage(uri))} == {file}
    assert all(
        sqlite_file(s) is None
        for s in (None, "sqlite://", "sqlite:///:memory:", "journal:///s.log", "postgresql://h/n")
    )


@pytest.mark.parametrize(
    ("storage", "message"),
    [
        (
            "postgresql://me:secret@host/study",
            "needs the package psycopg, which is not installed; pip install 'psycopg",
        ),
        ("mysql://me:secret@host/study", "needs the package MySQLdb, which is not installed; pip install mysqlclient"),
        ("redis://me:secret@host", "must be a URL that Optuna knows"),
        ("mongodb://me:secret@host", "must be a URL that Optuna knows"),
        ("postgresql://me:secret@:x:/y", "must be a URL"),
        ("postgresql://me:secret", "must be a URL"),
        ("postgresql://me:{secret}@host/study", "must be a URL"),
        ("sqlite://me:secret@host/s.db", "must be a URL"),
        ("mysql://host/study?passwd=secret", "needs the package MySQLdb"),
        ("postgresql:me:secret@host/study", "must be a URL with ://"),
        ("sqlite:/s.db", "must be a URL with ://"),
        ("journal:///", "a journal must have a path"),
        ("what?.db", "must have no '\\?'"),
        ("{what}.db", "must have no '{'"),
        (".", "must be a file, got the folder"),
        ("sqlite:///.", "must be a file, got the folder"),
        ("journal:///.", "must have a path"),
        ("notes.txt", "is not: file is not a database"),
        ("journal:///notes.txt", "must be a journal"),
        ("notes.txt/s.db", "notes.txt is a file"),
        ("journal:///notes.txt/s.log", "notes.txt is a file"),
        (3, "must be a URL, a path or an Optuna storage"),
    ],
)
def test_a_storage_that_cannot_be_opened_is_refused_in_one_line_and_nothing_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, storage: Any, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("notes.txt").write_text("these are my notes, and neither a database nor a journal\n")
    for use in (check_storage, lambda storage: run(storage=storage)):
        with pytest.raises(MooError, match=message) as caught:
            use(storage)
        assert "\n" not in str(caught.value)
        assert "secret" not in str(caught.value)
        assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("kind", ["journal URL", "database URL", "path"])
def test_a_fit_storage_passes_its_check_before_and_after_it_is_made(kind: str, tmp_path: Path) -> None:
    storage = KINDS[kind](tmp_path / "new")
    check_storage(storage)
    assert not (tmp_path / "new").exists()
    run(n_trials=1, storage=storage)
    check_storage(storage)


def test_a_journal_that_is_none_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.log"
    path.write_text("these are my notes\nand no journal\n")
    with pytest.raises(StorageError, match="must be a journal"):
        run(storage=f"journal:///{path}")
    assert path.read_text() == "these are my notes\nand no journal\n"


def test_the_name_of_a_storage_keeps_its_password(tmp_path: Path) -> None:
    assert "secret" not in name_of("postgresql://me:secret@host/study")
    assert name_of(RDBStorage(f"sqlite:///{tmp_path / 's.db'}")) == f"sqlite:///{tmp_path / 's.db'}"


def test_another_set_of_goals_is_refused() -> None:
    storage = InMemoryStorage()
    optuna.create_study(storage=storage, study_name="search", directions=["minimize"])
    with pytest.raises((ConfigChangedError, InputError), match="goals"):
        run(storage=storage)


def leased(storage: BaseStorage) -> Lease:
    study = optuna.create_study(storage=storage, study_name="search", load_if_exists=True, directions=["minimize"])
    return Lease(study, "here")


def entry(storage: BaseStorage, **changes: Any) -> str:
    """Write the lease of another driver."""
    own = leased(storage)
    own._write(holds=True)
    found = own._entries()[own._key]
    own._study._storage.set_study_system_attr(own._study._study_id, own._key, found | changes)
    return own._key


def test_a_driver_that_died_on_this_machine_lets_go_at_once() -> None:
    storage = InMemoryStorage()
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    entry(storage, process=dead.pid)
    with leased(storage):
        pass


def test_a_driver_elsewhere_lets_go_when_it_gives_no_sign_of_life(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "BEAT", 0.02)
    storage = InMemoryStorage()
    entry(storage, machine="another", beat=time.time())
    with pytest.raises(StorageError, match="60 seconds after its last sign of life"), leased(storage):
        pass
    storage = InMemoryStorage()
    entry(storage, machine="another", beat=time.time() - lease.DEAD - 1)
    with leased(storage):
        pass


def test_a_driver_whose_clock_is_late_keeps_its_study(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "BEAT", 0.1)
    storage = InMemoryStorage()
    late = leased(storage)
    with late:
        # it beats on, an hour behind, on a machine of its own
        monkeypatch.setattr(lease, "_machine", lambda: "late")
        monkeypatch.setattr(lease.time, "time", lambda: 0.0)
        time.sleep(0.3)
        monkeypatch.undo()
        monkeypatch.setattr(lease, "BEAT", 0.1)
        late._write(holds=True)
        late.check()
        with pytest.raises(StorageError, match="another holds"), leased(storage):
            pass


def test_a_driver_that_was_taken_for_dead_stops_before_it_writes() -> None:
    storage = InMemoryStorage()

    def taken(progress: Progress) -> None:
        if progress.newest.candidate.number == 1:
            study = optuna.load_study(study_name="search", storage=storage)
            for key in [
                k for k in study._storage.get_study_system_attrs(study._study_id) if k.startswith("moo:driver:")
            ]:
                study._storage.set_study_system_attr(study._study_id, key, None)

    with pytest.raises(StorageError, match="was taken over by another search"):
        run(n_trials=4, population=4, storage=storage, callbacks=[taken])
    assert told(run(n_trials=4, population=4, storage=storage)) == told(run(n_trials=4, population=4))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["journal URL", "database URL"])
def test_of_drivers_that_begin_at_once_one_does_all(kind: str, tmp_path: Path) -> None:
    all_begin_at_once(str(KINDS[kind](tmp_path)), tmp_path)


def test_a_driver_that_was_killed_leaves_its_journal_free(tmp_path: Path) -> None:
    assert "journal:///" in goes_on_after_a_kill(f"journal:///{tmp_path / 's.log'}")


def test_a_dashboard_opens_what_a_search_opens(tmp_path: Path) -> None:
    run(n_trials=2, population=2, storage=f"journal:///{tmp_path / 's.log'}")
    assert len(optuna.load_study(study_name="search", storage=opened(f"journal:///{tmp_path / 's.log'}")).trials) == 2
