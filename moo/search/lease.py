"""Lease of a study in its storage: one driver at a time wherever the storage is."""

import contextlib
import os
import random
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import optuna
import sqlalchemy.exc

from moo.core.errors import StorageError

# Seconds between two signs of life.
BEAT = 10.0
# Seconds without one after which a driver counts as crashed.
DEAD = 60.0
_KEY = "moo:driver:"
_TRIES = 4


class Lease:
    """Held by one driver of a study at a time.

    Each driver writes its entry and then reads those of all others; of two that do so at
    the same time at least one sees the other and steps back. A driver that has died lets go: at
    once where it ran on this machine, else `DEAD` seconds after its last sign of life. A driver
    that was taken for dead and lives on finds its entry gone and stops.
    """

    def __init__(self, study: optuna.Study, where: str) -> None:
        self._study, self._where = study, where
        self._key = _KEY + secrets.token_hex(8)
        self._ended = threading.Event()
        self._heart = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> Self:
        rivals = self._rivals()
        for _ in range(_TRIES):
            if not any(r["holds"] for r in rivals):
                self._write(holds=False)
                rivals = self._rivals()
                if not rivals:
                    self._write(holds=True)
                    self._heart.start()
                    return self
                self._clear(self._key)
            if any(r["holds"] for r in rivals):
                break
            time.sleep(random.uniform(0.05, 0.5))
            rivals = self._rivals()
        raise self._refusal(rivals[0])

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._heart.join()
        with contextlib.suppress(sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError, OSError):
            self._clear(self._key)

    def check(self) -> None:
        """Raise if this driver was taken for dead: another may be at work.

        Raises:
            StorageError: In that case.
        """
        entries = self._entries()
        if self._key not in entries or any(e["holds"] for key, e in entries.items() if key != self._key):
            raise StorageError(
                "study {study_name!r} in {where} was taken over by another search, since this one gave "
                "no sign of life for {dead:.0f} seconds; run it again when the other has ended.",
                study_name=self._study.study_name,
                where=self._where,
                dead=DEAD,
            )

    def _refusal(self, rival: dict[str, Any]) -> StorageError:
        return StorageError(
            "one search at a time may use a study, but another holds {study!r} in {where}: process {process} on "
            "{host}, "
            "last seen {age:.0f} seconds ago; wait for it. After a crash the study is free at once on the same "
            "machine, "
            "and {dead:.0f} seconds after its last sign of life on any other.",
            study=self._study.study_name,
            where=self._where,
            process=rival["process"],
            host=rival["host"],
            age=max(0.0, time.time() - rival["beat"]),
            dead=DEAD,
        )

    def _entries(self) -> dict[str, dict[str, Any]]:
        found = self._study._storage.get_study_system_attrs(self._study._study_id)
        return {key: entry for key, entry in found.items() if key.startswith(_KEY) and entry}

    def _rivals(self) -> list[dict[str, Any]]:
        """Return the entries of others that live, and clear those of the dead."""
        living = []
        for key, entry in self._entries().items():
            if key == self._key:
                continue
            if self._is_dead(key, entry):
                self._clear(key)
            else:
                living.append(entry)
        return living

    def _is_dead(self, key: str, entry: dict[str, Any]) -> bool:
        if entry["machine"] == _machine():
            return not _runs(entry["process"])
        if time.time() - entry["beat"] < DEAD:
            return False
        # another machine's clock may be late: a driver that lives gives a sign within a beat
        time.sleep(1.5 * BEAT)
        return self._entries().get(key) == entry

    def _write(self, *, holds: bool) -> None:
        entry: dict[str, Any] = {
            "holds": holds,
            "process": os.getpid(),
            "host": socket.gethostname(),
            "machine": _machine(),
            "beat": time.time(),
        }
        self._study._storage.set_study_system_attr(self._study._study_id, self._key, entry)

    def _clear(self, key: str) -> None:
        self._study._storage.set_study_system_attr(self._study._study_id, key, None)

    def _beat(self) -> None:
        while not self._ended.wait(BEAT):
            # whatever a storage raises that is away for a moment, the next beat tries again
            with contextlib.suppress(Exception):
                if self._key not in self._entries():
                    return
                self._write(holds=True)


@contextlib.contextmanager
def no_lease() -> Iterator[None]:
    """Hold nothing: the study is this process's own, or its file is locked."""
    yield


def _machine() -> str:
    """Return what a process number is unique within: the boot, and the namespace of a container."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return socket.gethostname()


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
