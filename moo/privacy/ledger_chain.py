"""Hash chain of a ledger's entries: reading and verification."""

import hashlib
import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rfc8785

from moo.core.errors import InputError, MachineError, StorageError
from moo.core.messages import Message
from moo.privacy.caps import Cap
from moo.privacy.events import Event, PrivateAnswer, TrainingRun

KINDS = ("genesis", "reserve", "commit", "abort", "deny", "answer", "gate", "release", "cap")
READ = "SELECT seq, at, kind, study, body, previous, hash FROM entries"
# Seconds that a writer waits for another.
WAIT = 60.0
_DOMAIN = b"moo ledger 1\0"


@dataclass(frozen=True, kw_only=True)
class LedgerEntry:
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
        """Return the hash that the entry must have."""
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
    """Result of `verify`.

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


def charged(entries: Sequence[LedgerEntry]) -> list[Event]:
    """Return the events that units pay for: reservations and answers.

    A reservation counts in full while open, and for the steps that ran once settled.
    """
    steps = {e.body["reservation"]: e.body["steps"] for e in entries if e.kind in ("commit", "abort")}
    out: list[Event] = []
    for entry in entries:
        if entry.kind == "reserve":
            run = dict(entry.body["run"])
            out.append(TrainingRun.from_json(run | {"steps": steps.get(entry.seq, run["steps"])}))
        elif entry.kind == "answer":
            out += [PrivateAnswer.from_json(answer) for answer in entry.body["answers"]]
    return out


def cap_of(entries: Sequence[LedgerEntry]) -> Cap | None:
    """Return the newest cap among a ledger's entries; None without one."""
    return next((Cap.from_json(e.body) for e in reversed(entries) if e.kind == "cap"), None)


def read_entries(path: str | Path, study: str | None = None) -> tuple[LedgerEntry, ...]:
    """Return the entries of a ledger's file as written, unverified; all, or those of one study.

    Raises:
        InputError: If there is no such file.
        StorageError: If it is not a ledger.
    """
    if not Path(path).is_file():
        raise InputError("There is no ledger at {path}; run a study first.", path=path)
    # "rw" and not "ro": after a kill in the middle of a commit, the first reader has to roll the
    # half-written pages back
    with (
        storage_errors(Path(path)),
        closing(sqlite3.connect(f"file:{path}?mode=rw", uri=True, timeout=WAIT)) as connection,
    ):
        rows = connection.execute(f"{READ} WHERE ?1 IS NULL OR study = ?1 ORDER BY seq", (study,)).fetchall()
    try:
        return tuple(map(entry_of, rows))
    except ValueError as error:
        raise StorageError("Every entry of {path} must be JSON, but one is not: it was edited.", path=path) from error


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
    """Return seq and hash of "seq:hash".

    Raises:
        InputError: If it is something else.
    """
    seq, _, digest = text.partition(":")
    if not seq.isdigit() or len(digest) != 64:
        raise InputError("An anchor must be SEQ:HASH with 64 hexadecimal digits, got {text!r}.", text=text)
    return int(seq), digest


def seq_of(digest: str, entries: Sequence[LedgerEntry]) -> int:
    """Return the seq of the entry with a hash, kept without its seq.

    Raises:
        StorageError: If no entry has it: it was cut off or edited.
    """
    found = next((e.seq for e in entries if e.hash == digest), None)
    if found is None:
        raise StorageError("The ledger lacks the anchored entry {digest}: it was cut off or edited.", digest=digest)
    return found


def _first_break(entries: Sequence[LedgerEntry]) -> tuple[int, str] | None:
    previous, before = "0" * 64, ""
    for place, entry in enumerate(entries, start=1):
        if entry.seq != place:
            return place, Message("entry {n} is missing", n=place)
        if entry.previous != previous:
            return place, Message("entry {n} does not follow on the one before", n=place)
        try:
            fits = entry.digest() == entry.hash
        except (ValueError, TypeError):
            fits = False
        if not fits or entry.kind not in KINDS:
            return place, Message("entry {n} was edited", n=place)
        if entry.at < before:
            return place, Message("entry {n} is older than the one before", n=place)
        previous, before = entry.hash, entry.at
    return None


def _missed(entries: Sequence[LedgerEntry], anchors: Mapping[int, str]) -> tuple[int, str] | None:
    for seq, digest in sorted(anchors.items()):
        if seq > len(entries):
            return seq, Message("entry {n}, which was anchored, has been cut off", n=seq)
        if entries[seq - 1].hash != digest:
            return seq, Message("entry {n} is not the one that was anchored", n=seq)
    return None


def entry_of(row: Sequence[Any]) -> LedgerEntry:
    seq, at, kind, study, body, previous, digest = row
    return LedgerEntry(seq=seq, at=at, kind=kind, study=study, body=json.loads(body), previous=previous, hash=digest)


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Raise a storage's failure as one line; the transaction has been rolled back."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        raise StorageError(
            "The ledger must be readable and writable, but {path} is not: {error}.", path=path, error=error
        ) from error
    except OSError as error:
        if isinstance(error, MachineError):
            raise
        raise StorageError(
            "The ledger must be readable and writable, but {path} is not: {strerror}.",
            path=path,
            strerror=error.strerror,
        ) from error
