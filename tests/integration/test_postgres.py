"""One driver at a time on a real PostgreSQL server, which the test starts for itself."""

import os
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from moo.core.errors import StorageError
from tests.fixtures.black_box import run
from tests.fixtures.storages import all_begin_at_once, goes_on_after_a_kill

PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
SERVER = shutil.which("initdb") or (str(PROGRAMS[-1]) if PROGRAMS else "")
USER = {"user": "postgres"} if SERVER and os.geteuid() == 0 else {}  # initdb refuses root


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[str, str]]:
    """Folder of the socket and password of a server of its own."""
    pytest.importorskip("psycopg", reason="psycopg, the driver of PostgreSQL, is not installed")
    if not SERVER:
        pytest.skip("no PostgreSQL server is installed: there is no initdb")
    home, password = Path(tempfile.mkdtemp(prefix="moo-pg-")), secrets.token_hex(8)
    (home / "password").write_text(password)
    if USER:
        shutil.chown(home, "postgres")
        shutil.chown(home / "password", "postgres")
    data, programs = home / "data", Path(SERVER).parent

    def call(program: str, *options: str) -> None:
        command = [programs / program, "-D", data, *options]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=home, **USER)  # type: ignore[call-overload]

    try:
        call("initdb", "-U", "me", "--auth=scram-sha-256", f"--pwfile={home / 'password'}", "--no-sync")
        settings = f"-k {home} -c listen_addresses='' -c fsync=off -c shared_buffers=16MB"
        call("pg_ctl", "-l", str(home / "log"), "-o", settings, "-w", "start")
        try:
            yield str(home), password
        finally:
            call("pg_ctl", "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture
def url(server: tuple[str, str]) -> str:
    """Address of an empty database of the server."""
    psycopg = pytest.importorskip("psycopg")
    home, password = server
    name = f"study_{secrets.token_hex(4)}"
    with psycopg.connect(host=home, user="me", password=password, dbname="postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return f"postgresql+psycopg://me:{password}@/{name}?host={home}"


@pytest.mark.slow
def test_of_drivers_that_begin_at_once_on_an_empty_database_one_does_all(url: str, tmp_path: Path) -> None:
    all_begin_at_once(url, tmp_path)


@pytest.mark.slow
def test_a_driver_that_was_killed_leaves_its_study_on_a_server_free(url: str, server: tuple[str, str]) -> None:
    assert server[1] not in goes_on_after_a_kill(url)


@pytest.mark.slow
def test_a_server_that_lets_no_one_in_is_named_without_a_password(url: str, server: tuple[str, str]) -> None:
    with pytest.raises(StorageError, match="password authentication failed") as caught:
        run(storage=url.replace(server[1], "wr0ng"))
    assert "wr0ng" not in str(caught.value)
    assert "\n" not in str(caught.value)
