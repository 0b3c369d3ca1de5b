"""Heads of the ledger, kept in a study's folder: they show if an older ledger was put back."""

import json
from pathlib import Path

from moo.core.atomic_files import write_whole
from moo.core.errors import PolicyError, StorageError
from moo.privacy.ledger import Ledger, parse_anchor

ANCHORS = "ledger.json"


def check_anchor(home: Path, study: str, ledger: Ledger) -> None:
    """Raise if the ledger lacks the charges of a study.

    Args:
        home: The study's folder.
        study: Name and fingerprint, as in the ledger.
        ledger: Ledger of the study's data.

    Raises:
        PolicyError: If it was replaced by another one, or by an older copy.
        StorageError: If the file of the heads is damaged.
    """
    anchor = _kept(home).get(study)
    if anchor is None:
        return
    seq, digest = parse_anchor(anchor)
    entries = ledger.entries()
    if not 1 <= seq <= len(entries) or entries[seq - 1].hash != digest:
        raise PolicyError(
            "The ledger must hold what {study} has spent so far, up to entry {seq}, but {path} does not. "
            "Set MOO_LEDGERS and the path of the data as they were, or restore the ledger.",
            study=study,
            seq=seq,
            path=ledger.path,
        )


def keep_anchor(home: Path, study: str, ledger: Ledger) -> None:
    """Keep the ledger's head in a study's folder. Call it while the ledger is held alone.

    Raises:
        StorageError: If the folder cannot be written.
    """
    kept = _kept(home) | {study: ledger.head()}
    try:
        write_whole(home / ANCHORS, json.dumps(kept, indent=1) + "\n")
    except OSError as error:
        raise StorageError(
            "The study's folder must be writable, but {home} is not: {strerror}. "
            "Free the disk, or name another folder.",
            home=home,
            strerror=error.strerror,
        ) from error


def _kept(home: Path) -> dict[str, str]:
    """Return study -> "seq:hash"."""
    path = home / ANCHORS
    if not path.is_file():
        return {}
    try:
        heads = json.loads(path.read_text(encoding="utf-8"))
        for anchor in heads.values():
            parse_anchor(anchor)
    except (OSError, ValueError, AttributeError) as error:
        raise StorageError(
            "{path} must hold the ledger's heads as moo wrote them, but does not. Restore it from a backup.", path=path
        ) from error
    return dict(heads)
