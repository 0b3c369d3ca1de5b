"""The ledger of a data set: what every training run on it was, append-only and hash-chained.

Events are data; epsilon is derived from them and never stored. One SQLite file serves all studies on one data set:

    reserve  before a trial trains: charged in full until it is settled, so a crash keeps the full charge
    commit   it trained: charged for the steps it took
    abort    it did not come to an end: charged for the steps that ran
    deny     a policy refused it: nothing is charged
    answer   numbers computed from private units are told with noise: charged before they are
    gate, release   a decision of a person or a policy, for the record
    cap      the most that all studies together may compose to; every reservation and answer is held to the newest

hash = SHA-256(domain, previous hash, canonical JSON of the entry, RFC 8785). A chain shows edits. It does not show that its owner
rewrote all of it or cut its tail, unless its head was anchored elsewhere: `anchor` gives what to keep, `verify` takes it.
"""

import fcntl
import hashlib
import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import rfc8785

from moo.errors import InputError, MachineError, StorageError
from moo.privacy.caps import Cap, next_cap
from moo.privacy.events import Event, PrivateAnswer, TrainingRun

KINDS = ("genesis", "reserve", "commit", "abort", "deny", "answer", "gate", "release", "cap")
PREPARATION = "preparation"  # the study under which steps that read all units are charged, once for every study
NO_GUARANTEE = "with the non-private reference: no guarantee"
_DOMAIN = b"moo ledger 1\0"
_READ = "SELECT seq, at, kind, study, body, previous, hash FROM entries"
_WAIT = 60.0  # seconds that a writer waits for another
_SCHEMA = """
CREATE TABLE IF NOT EXISTS entries (
  seq INTEGER PRIMARY KEY, at TEXT NOT NULL, kind TEXT NOT NULL, study TEXT NOT NULL, body TEXT NOT NULL,
  previous TEXT NOT NULL, hash TEXT NOT NULL
) STRICT;
CREATE TRIGGER IF NOT EXISTS no_update BEFORE UPDATE ON entries BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
CREATE TRIGGER IF NOT EXISTS no_delete BEFORE DELETE ON entries BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
"""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One line of the ledger.

    Attributes:
        seq: From 1, without gaps.
        at: UTC, ISO 8601.
        kind: One of `KINDS`.
        study: Name of the study; empty in the first entry.
        body: What happened; no personal data.
        previous, hash: Hex.
    """

    seq: int
    at: str
    kind: str
    study: str
    body: Mapping[str, Any]
    previous: str
    hash: str

    def digest(self) -> str:
        """The hash that the entry must have."""
        content: dict[str, Any] = {
            "seq": self.seq,
            "at": self.at,
            "kind": self.kind,
            "study": self.study,
            "body": dict(self.body),
        }
        raw = _DOMAIN + bytes.fromhex(self.previous) + rfc8785.dumps(content)
        return hashlib.sha256(raw).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Verification:
    """What `verify` found.

    Attributes:
        entries: How many there are.
        head: Hash of the last; empty without any.
        broken: Seq of the first entry that does not fit; None if all fit.
        reason: What does not fit.
        anchored: Seq up to which an anchor vouches for the chain; 0 without one.
    """

    entries: int
    head: str
    broken: int | None = None
    reason: str = ""
    anchored: int = 0

    @property
    def intact(self) -> bool:
        return self.broken is None


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
        with _reported(self.path):
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._transaction() as connection:
            connection.executescript(f"BEGIN IMMEDIATE; {_SCHEMA}")
            first = connection.execute("SELECT body FROM entries WHERE seq = 1").fetchone()
            if first is None:
                _append(connection, "genesis", "", {"dataset": dataset})
            elif json.loads(first[0]).get("dataset") != dataset:
                raise InputError(
                    f"the ledger must be of this data set, but {self.path} is of another; name another file."
                )

    def reserve(self, study: str, trial: int, run: TrainingRun, answers: Sequence[PrivateAnswer] = ()) -> int:
        """Charge a run in full before it trains, and the noised answers that it will tell.

        Returns:
            Seq of the reservation, which `commit` and `abort` settle.

        Raises:
            PolicyError: If the cap on the data does not admit them; nothing is written.
        """
        note = {} if run.private else {"note": NO_GUARANTEE}
        with self._transaction() as connection:
            connection.execute("BEGIN IMMEDIATE")
            _hold_to_cap(connection, [run, *answers])
            seq = _append(connection, "reserve", study, {"trial": trial, "run": run.to_json(), **note})
            if answers:
                _append(connection, "answer", study, {"trial": trial, "answers": [a.to_json() for a in answers]})
        return seq

    def commit(self, study: str, reservation: int, *, steps: int) -> int:
        """The run trained; it is charged for the steps that it took."""
        return self._settle("commit", study, reservation, {"steps": steps})

    def abort(self, study: str, reservation: int, *, steps: int, cause: str) -> int:
        """The run did not come to an end; it is charged for the steps that ran."""
        return self._settle("abort", study, reservation, {"steps": steps, "cause": cause})

    def record(self, kind: str, study: str, body: Mapping[str, Any]) -> int:
        """A denial, a gate or a release."""
        if kind not in ("deny", "gate", "release"):
            raise InputError(f"kind in ['deny', 'gate', 'release'] must hold, but got kind={kind!r}.")
        return self._write(kind, study, body)

    def entries(self, study: str | None = None) -> tuple[Entry, ...]:
        """All entries in order, or those of one study."""
        return read_entries(self.path, study)

    def head(self) -> str:
        """Seq and hash of the last entry, "seq:hash": what to keep elsewhere."""
        with self._transaction() as connection:
            connection.execute("BEGIN")
            seq, digest = connection.execute("SELECT seq, hash FROM entries ORDER BY seq DESC LIMIT 1").fetchone()
        return f"{seq}:{digest}"

    def answer(self, study: str, trial: int, answers: Sequence[PrivateAnswer]) -> int:
        """Charge noised answers before they are told.

        Raises:
            PolicyError: If the cap on the data does not admit them.
        """
        with self._transaction() as connection:
            connection.execute("BEGIN IMMEDIATE")
            _hold_to_cap(connection, answers)
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
        """What the data set's units are charged for, by one study or by all: one run a reservation, with its steps; answers."""
        return charged(self.entries(study))

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Held by one thread of one process at a time, so that what is decided by the entries and written down then stays right.

        Not to be nested.
        """
        with _reported(self.path):
            lock = open(f"{self.path}.lock", "w")  # noqa: SIM115 - held until the end of the block
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _settle(self, kind: str, study: str, reservation: int, body: Mapping[str, Any]) -> int:
        with self._transaction() as connection:
            connection.execute("BEGIN IMMEDIATE")
            row = connection.execute("SELECT kind, study, body FROM entries WHERE seq = ?", (reservation,)).fetchone()
            if row is None or row[0] != "reserve" or row[1] != study:
                raise InputError(f"reservation must be one of study {study!r}, but got reservation={reservation}.")
            most = json.loads(row[2])["run"]["steps"]
            if not 0 <= body["steps"] <= most:
                raise InputError(f"0 <= steps <= {most}, those reserved, must hold, but got steps={body['steps']}.")
            settled = (
                "SELECT 1 FROM entries WHERE kind IN ('commit', 'abort') AND json_extract(body, '$.reservation') = ?"
            )
            if connection.execute(f"{settled} AND seq > ?", (reservation, reservation)).fetchone():
                raise InputError(f"a reservation is settled once, but reservation={reservation} was settled before.")
            return _append(connection, kind, study, {"reservation": reservation, **body})

    def _write(self, kind: str, study: str, body: Mapping[str, Any]) -> int:
        with self._transaction() as connection:
            connection.execute("BEGIN IMMEDIATE")
            return _append(connection, kind, study, body)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with (
            _reported(self.path),
            closing(sqlite3.connect(self.path, timeout=_WAIT, isolation_level=None)) as connection,
        ):
            connection.execute("PRAGMA synchronous = FULL")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise


def charged(entries: Sequence[Entry]) -> list[Event]:
    """What units pay for: reservations, in full while they are open and for the steps that ran once they are settled; answers."""
    steps = {e.body["reservation"]: e.body["steps"] for e in entries if e.kind in ("commit", "abort")}
    out: list[Event] = []
    for entry in entries:
        if entry.kind == "reserve":
            run = dict(entry.body["run"])
            out.append(TrainingRun.from_json(run | {"steps": steps.get(entry.seq, run["steps"])}))
        elif entry.kind == "answer":
            out += [PrivateAnswer.from_json(answer) for answer in entry.body["answers"]]
    return out


def cap_of(entries: Sequence[Entry]) -> Cap | None:
    """Return the newest cap among a ledger's entries; None without one."""
    return next((Cap.from_json(e.body) for e in reversed(entries) if e.kind == "cap"), None)


def read_entries(path: str | Path, study: str | None = None) -> tuple[Entry, ...]:
    """All entries of a ledger's file as they stand, or those of one study.

    Raises:
        InputError: If there is no such file.
        StorageError: If it is not a ledger.
    """
    if not Path(path).is_file():
        raise InputError(f"the ledger must be a file, but {path} is none; run a study first.")
    # "rw" and not "ro": after a kill in the middle of a commit, the first reader has to roll the half-written pages back
    with _reported(Path(path)), closing(sqlite3.connect(f"file:{path}?mode=rw", uri=True, timeout=_WAIT)) as connection:
        rows = connection.execute(f"{_READ} WHERE ?1 IS NULL OR study = ?1 ORDER BY seq", (study,)).fetchall()
    try:
        return tuple(map(_entry, rows))
    except ValueError as error:
        raise StorageError(f"every entry of {path} must hold JSON, but one does not: it was edited.") from error


def verify(path: str | Path, anchors: Mapping[int, str] | None = None) -> Verification:
    """Check the whole chain, and anchors that were kept elsewhere.

    Args:
        path: The ledger's file.
        anchors: Seq -> hash.
    """
    try:
        entries = read_entries(path)
    except StorageError as error:
        return Verification(entries=0, head="", broken=0, reason=str(error))
    head = entries[-1].hash if entries else ""
    broken = _first_break(entries) or _missed(entries, anchors or {})
    if broken is not None:
        return Verification(entries=len(entries), head=head, broken=broken[0], reason=broken[1])
    return Verification(entries=len(entries), head=head, anchored=max(anchors or {0: ""}))


def parse_anchor(text: str) -> tuple[int, str]:
    """Seq and hash of "seq:hash".

    Raises:
        InputError: If it is something else.
    """
    seq, _, digest = text.partition(":")
    if not seq.isdigit() or len(digest) != 64:
        raise InputError(f"an anchor must be SEQ:HASH with 64 hexadecimal digits, but got {text!r}.")
    return int(seq), digest


def place_of(digest: str, entries: Sequence[Entry]) -> int:
    """Return the seq of the entry with a hash, kept without its seq.

    Raises:
        StorageError: If no entry has it: it was cut off or edited.
    """
    found = next((e.seq for e in entries if e.hash == digest), None)
    if found is None:
        raise StorageError(f"the ledger must hold the anchored entry {digest}, but does not: it was cut off or edited.")
    return found


def _first_break(entries: Sequence[Entry]) -> tuple[int, str] | None:
    previous, before = "0" * 64, ""
    for place, entry in enumerate(entries, start=1):
        if entry.seq != place:
            return place, f"entry {place} is missing"
        if entry.previous != previous:
            return place, f"entry {place} does not follow on the one before"
        try:
            fits = entry.digest() == entry.hash
        except (ValueError, TypeError):
            fits = False
        if not fits or entry.kind not in KINDS:
            return place, f"entry {place} was edited"
        if entry.at < before:
            return place, f"entry {place} is older than the one before"
        previous, before = entry.hash, entry.at
    return None


def _missed(entries: Sequence[Entry], anchors: Mapping[int, str]) -> tuple[int, str] | None:
    for seq, digest in sorted(anchors.items()):
        if seq > len(entries):
            return seq, f"entry {seq}, which was anchored, has been cut off"
        if entries[seq - 1].hash != digest:
            return seq, f"entry {seq} is not the one that was anchored"
    return None


def _cap(connection: sqlite3.Connection) -> Cap | None:
    row = connection.execute("SELECT body FROM entries WHERE kind = 'cap' ORDER BY seq DESC LIMIT 1").fetchone()
    return None if row is None else Cap.from_json(json.loads(row[0]))


def _hold_to_cap(connection: sqlite3.Connection, following: Sequence[Event]) -> None:
    cap = _cap(connection)
    if cap is not None:
        cap.refuse(charged([_entry(row) for row in connection.execute(f"{_READ} ORDER BY seq")]), following)


def _entry(row: Sequence[Any]) -> Entry:
    seq, at, kind, study, body, previous, digest = row
    return Entry(seq=seq, at=at, kind=kind, study=study, body=json.loads(body), previous=previous, hash=digest)


def _append(connection: sqlite3.Connection, kind: str, study: str, body: Mapping[str, Any]) -> int:
    last = connection.execute("SELECT seq, at, hash FROM entries ORDER BY seq DESC LIMIT 1").fetchone()
    seq, before, previous = (last[0] + 1, last[1], last[2]) if last else (1, "", "0" * 64)
    at = _now()
    if at < before:
        raise MachineError(f"the clock must not go backwards, but it says {at} after {before}; set it right.")
    unsigned = Entry(seq=seq, at=at, kind=kind, study=study, body=body, previous=previous, hash="")
    text = rfc8785.dumps(dict(body)).decode()
    row = (seq, at, kind, study, text, previous, unsigned.digest())
    connection.execute("INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?, ?)", row)
    return seq


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")


@contextmanager
def _reported(path: Path) -> Iterator[None]:
    """A storage's failure as one line; the transaction has been rolled back."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        raise StorageError(f"the ledger must be readable and writable, but {path} is not: {error}.") from error
    except OSError as error:
        if isinstance(error, MachineError):
            raise
        raise StorageError(f"the ledger must be readable and writable, but {path} is not: {error.strerror}.") from error
