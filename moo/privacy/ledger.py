"""The ledger of a data set: what every training run on it was, append-only and hash-chained.

Events are data; epsilon is derived from them and never stored. One SQLite file serves all studies
on one data set:

    reserve  before a trial trains: charged in full until it is settled, so a crash keeps the full charge
    commit   it trained: charged for the steps it took
    abort    it did not come to an end: charged for the steps that ran
    deny     a policy refused it: nothing is charged
    answer   numbers computed from private units are released with noise: charged before
    gate, release   a decision of a person or a policy, for the record
    cap      the most that all studies together may compose to; every reservation and answer is held to the newest

hash = SHA-256(domain, previous hash, canonical JSON of the entry, RFC 8785). A chain shows edits.
It does not show that its owner rewrote all of it or cut its tail, unless its head was anchored
elsewhere: `anchor` gives what to keep, `verify` takes it.
"""

import fcntl
import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import rfc8785

from moo.core.errors import InputError, MachineError
from moo.privacy.caps import Cap, next_cap
from moo.privacy.events import Event, PrivateAnswer, TrainingRun
from moo.privacy.ledger_chain import (
    KINDS,
    READ,
    WAIT,
    LedgerEntry,
    Verification,
    cap_of,
    charged,
    entry_of,
    parse_anchor,
    read_entries,
    seq_of,
    storage_errors,
    verify,
)

__all__ = [
    "KINDS",
    "NO_GUARANTEE",
    "PREPARATION",
    "Ledger",
    "LedgerEntry",
    "Verification",
    "cap_of",
    "charged",
    "parse_anchor",
    "read_entries",
    "seq_of",
    "verify",
]

# The study under which steps that read all units are charged, once for every study.
PREPARATION = "preparation"
NO_GUARANTEE = "with the non-private reference: no guarantee"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS entries (
  seq INTEGER PRIMARY KEY, at TEXT NOT NULL, kind TEXT NOT NULL, study TEXT NOT NULL, body TEXT NOT NULL,
  previous TEXT NOT NULL, hash TEXT NOT NULL
) STRICT;
CREATE TRIGGER IF NOT EXISTS no_update BEFORE UPDATE ON entries
    BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
CREATE TRIGGER IF NOT EXISTS no_delete BEFORE DELETE ON entries
    BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
"""


class Ledger:
    """A data set's ledger. Safe for many processes; each write is one transaction.

    Args:
        path: The SQLite file; made if it is missing.
        dataset: Keyed digest of the data set's identity.

    Raises:
        InputError: If the file is the ledger of another data set.
        StorageError: If it cannot be read or written.
    """

    def __init__(self, path: str | Path, dataset: str) -> None:
        self.path = Path(path)
        self.dataset = dataset
        with storage_errors(self.path):
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._transaction() as connection:
            connection.executescript(f"BEGIN IMMEDIATE; {_SCHEMA}")
            first = connection.execute("SELECT body FROM entries WHERE seq = 1").fetchone()
            if first is None:
                _append(connection, "genesis", "", {"dataset": dataset})
            elif json.loads(first[0]).get("dataset") != dataset:
                raise InputError(
                    "The ledger must belong to this data set, but {path} belongs to another; name another file.",
                    path=self.path,
                )

    def reserve(self, study: str, trial: int, run: TrainingRun, answers: Sequence[PrivateAnswer] = ()) -> int:
        """Charge a run in full before it trains, together with its noised answers.

        Returns:
            Seq of the reservation, which `commit` and `abort` settle.

        Raises:
            PolicyError: If the cap on the data does not admit them; nothing is written.
        """
        note = {} if run.private else {"note": NO_GUARANTEE}
        with self._transaction() as connection:
            connection.execute("BEGIN IMMEDIATE")
            _check_cap(connection, [run, *answers])
            seq = _append(connection, "reserve", study, {"trial": trial, "run": run.to_json(), **note})
            if answers:
                _append(connection, "answer", study, {"trial": trial, "answers": [a.to_json() for a in answers]})
        return seq

    def commit(self, study: str, reservation: int, *, steps: int) -> int:
        """Settle a reservation as trained: it is charged for the steps that it took."""
        return self._settle("commit", study, reservation, {"steps": steps})

    def abort(self, study: str, reservation: int, *, steps: int, cause: str) -> int:
        """Settle a reservation as ended early: it is charged for the steps that ran."""
        return self._settle("abort", study, reservation, {"steps": steps, "cause": cause})

    def record(self, kind: str, study: str, body: Mapping[str, Any]) -> int:
        """Record a denial, a gate or a release, and return its seq."""
        if kind not in ("deny", "gate", "release"):
            raise InputError("kind must be one of deny, gate, release, got {kind!r}.", kind=kind)
        return self._write(kind, study, body)

    def entries(self, study: str | None = None) -> tuple[LedgerEntry, ...]:
        """Return all entries in order, or those of one study."""
        return read_entries(self.path, study)

    def head(self) -> str:
        """Return seq and hash of the last entry, "seq:hash": the anchor to keep elsewhere."""
        with self._transaction() as connection:
            connection.execute("BEGIN")
            seq, digest = connection.execute("SELECT seq, hash FROM entries ORDER BY seq DESC LIMIT 1").fetchone()
        return f"{seq}:{digest}"

    def answer(self, study: str, trial: int, answers: Sequence[PrivateAnswer]) -> int:
        """Charge noised answers before they are released.

        Raises:
            PolicyError: If the cap on the data does not admit them.
        """
        with self._transaction() as connection:
            connection.execute("BEGIN IMMEDIATE")
            _check_cap(connection, answers)
            return _append(connection, "answer", study, {"trial": trial, "answers": [a.to_json() for a in answers]})

    def cap(self, cap: Cap, *, reason: str = "") -> int:
        """Cap what all studies on the data may compose to, from the next reservation on.

        Args:
            cap: The new cap. Lower is always allowed.
            reason: Reason of a cap that is higher than the one before; it stays in the chain.

        Raises:
            InputError: If the cap rises without a reason.
        """
        with self._transaction() as connection:
            connection.execute("BEGIN IMMEDIATE")
            return _append(connection, "cap", "", next_cap(cap, _cap(connection), reason))

    def charged(self, study: str | None = None) -> list[Event]:
        """Return the events that units are charged for, by one study or by all.

        One run a reservation, with its steps, and the answers.
        """
        return charged(self.entries(study))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the ledger in one thread of one process, so that its entries stay as read.

        Not to be nested.
        """
        with storage_errors(self.path):
            lock = open(f"{self.path}.lock", "w")  # noqa: SIM115 - held until the end of the block
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _settle(self, kind: str, study: str, reservation: int, body: Mapping[str, Any]) -> int:
        with self._transaction() as connection:
            connection.execute("BEGIN IMMEDIATE")
            row = connection.execute("SELECT kind, study, body FROM entries WHERE seq = ?", (reservation,)).fetchone()
            if row is None or row[0] != "reserve" or row[1] != study:
                raise InputError(
                    "reservation must be one of study {study!r}, got {reservation}.",
                    study=study,
                    reservation=reservation,
                )
            most = json.loads(row[2])["run"]["steps"]
            if not 0 <= body["steps"] <= most:
                raise InputError(
                    "steps must be between 0 and the {most} reserved, got {steps}.",
                    most=most,
                    steps=body["steps"],
                )
            settled = (
                "SELECT 1 FROM entries WHERE kind IN ('commit', 'abort') AND json_extract(body, '$.reservation') = ?"
            )
            if connection.execute(f"{settled} AND seq > ?", (reservation, reservation)).fetchone():
                raise InputError(
                    "A reservation is settled once, but reservation {reservation} was settled before.",
                    reservation=reservation,
                )
            return _append(connection, kind, study, {"reservation": reservation, **body})

    def _write(self, kind: str, study: str, body: Mapping[str, Any]) -> int:
        with self._transaction() as connection:
            connection.execute("BEGIN IMMEDIATE")
            return _append(connection, kind, study, body)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with (
            storage_errors(self.path),
            closing(sqlite3.connect(self.path, timeout=WAIT, isolation_level=None)) as connection,
        ):
            connection.execute("PRAGMA synchronous = FULL")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise


def _cap(connection: sqlite3.Connection) -> Cap | None:
    row = connection.execute("SELECT body FROM entries WHERE kind = 'cap' ORDER BY seq DESC LIMIT 1").fetchone()
    return None if row is None else Cap.from_json(json.loads(row[0]))


def _check_cap(connection: sqlite3.Connection, following: Sequence[Event]) -> None:
    cap = _cap(connection)
    if cap is not None:
        cap.check(charged([entry_of(row) for row in connection.execute(f"{READ} ORDER BY seq")]), following)


def _append(connection: sqlite3.Connection, kind: str, study: str, body: Mapping[str, Any]) -> int:
    last = connection.execute("SELECT seq, at, hash FROM entries ORDER BY seq DESC LIMIT 1").fetchone()
    seq, before, previous = (last[0] + 1, last[1], last[2]) if last else (1, "", "0" * 64)
    at = _now()
    if at < before:
        raise MachineError(
            "The clock must not go backwards, got {at} after {before}; set it right.", at=at, before=before
        )
    unsigned = LedgerEntry(seq=seq, at=at, kind=kind, study=study, body=body, previous=previous, hash="")
    text = rfc8785.dumps(dict(body)).decode()
    row = (seq, at, kind, study, text, previous, unsigned.digest())
    connection.execute("INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?, ?)", row)
    return seq


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")
