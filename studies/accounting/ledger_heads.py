"""Heads of the ledger that a study's folder keeps: what shows that an older ledger was put back."""

import json
from pathlib import Path

from moo.core.atomic_files import write_whole
from moo.core.errors import PolicyError, StorageError
from moo.privacy.ledger import Ledger, parse_anchor

ANCHORS = "ledger.json"


def check_anchor(home: Path, study: str, ledger: Ledger) -> None:
    """Refuse a ledger that does not hold what a study has spent.

    Args:
        home: The study's folder.
        study: Name and fingerprint, as in the ledger.
        ledger: Ledger of the study's data.

    Raises:
        PolicyError: If another one, or an older copy, lies where the ledger did.
        StorageError: If the file of the heads is damaged.
    """
    anchor = _kept(home).get(study)
    if anchor is None:
        return
    seq, digest = parse_anchor(anchor)
    entries = ledger.entries()
    if not 1 <= seq <= len(entries) or entries[seq - 1].hash != digest:
        raise PolicyError(
            "the ledger must hold what {study} has spent so far, up to entry {seq}, but {path} does "
            "not; set MOO_LEDGERS and the data's place as they were, or restore the ledger.",
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
            "the study's folder must be writable, but {home} is not: {strerror}.", home=home, strerror=error.strerror
        ) from error


def _kept(home: Path) -> dict[str, str]:
    """Study -> "seq:hash"."""
    path = home / ANCHORS
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        for anchor in found.values():
            parse_anchor(anchor)
    except (OSError, ValueError, AttributeError) as error:
        raise StorageError(
            "{path} must hold the ledger's heads as moo wrote them, but does not; restore it from a backup.", path=path
        ) from error
    return dict(found)
