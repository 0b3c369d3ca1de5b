"""Files of a trial's evidence, mode 0600 in the study's folder: they name the members."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from moo.core.errors import InputError
from moo.core.evidence import AttributeEvidence, MembershipEvidence, Population, TrialEvidence
from moo.core.trial_record import STATUS_QUO_TRIAL

if TYPE_CHECKING:
    from moo.studies.setup.prepared import PreparedStudy

_GROUP = "group_"


def evidence_path(folder: Path, number: int, *, again: str = "") -> Path:
    """Return the path of a trial's evidence.

    Args:
        folder: Folder of the study.
        number: Number of the trial.
        again: Name of a later training of the trial; empty for the search itself.
    """
    name = "reference" if number == STATUS_QUO_TRIAL else f"trial-{number:04d}"
    return folder / "evidence" / f"{name}{'-' + again if again else ''}.npz"


def save_evidence(evidence: TrialEvidence, prepared: "PreparedStudy", *, number: int, again: str = "") -> Path:
    """Write a trial's evidence: losses, members, predictions, spans, epsilon, timings.

    The files say who was trained on what; they stay there, mode 0600, and `moo data purge` removes them.
    """
    path = evidence_path(prepared.folder, number, again=again)
    path.parent.mkdir(mode=0o700, exist_ok=True)
    spans = prepared.features.masked("pool", evidence.params.masking_level, evidence.params).spans
    arrays = {
        **_arrays(evidence.membership, ""),
        **_arrays(evidence.unseen, "unseen_"),
        "test_log_probs": evidence.utility.log_probs,
        "test_labels": evidence.utility.labels,
        "test_units": evidence.utility.units,
        "spans": np.array([(i, s.start, s.end, s.level) for i, row in enumerate(spans) for s in row], dtype=np.int64),
    }
    if evidence.outputs is not None:
        pool = prepared.data.parts["pool"]
        arrays |= {"outputs": evidence.outputs, "labels": pool.labels}
        arrays |= {_GROUP + name: codes for name, codes in pool.groups.items()}
    meta: dict[str, Any] = {
        "params": evidence.params.to_json(),
        "epsilon_spent": str(evidence.privacy.epsilon_spent),
        "claim": evidence.privacy.claim,
        "facts": {k: None if v is None else str(v) for k, v in evidence.facts.items()},
        "seconds": dict(evidence.seconds),
    }
    _write_private(path, arrays)
    _write_private(path.with_suffix(".json"), meta)
    return path


def _arrays(evidence: MembershipEvidence, prefix: str) -> dict[str, Any]:
    out: dict[str, Any] = {"losses": evidence.losses, "members": evidence.members, "units": evidence.units}
    out |= {} if evidence.base_losses is None else {"base_losses": evidence.base_losses}
    return {prefix + name: values for name, values in out.items()}


def load_membership(folder: str | Path, number: int, *, again: str = "") -> MembershipEvidence:
    """Return the membership evidence of a trial, with the unseen records as its population.

    Raises:
        InputError: If the study has no such trial, or its evidence was purged.
    """
    at = _kept(folder, number, again)
    return MembershipEvidence(
        losses=at["losses"],
        members=at["members"],
        units=at["units"],
        base_losses=at.get("base_losses"),
        population=Population(losses=at["unseen_losses"], base_losses=at.get("unseen_base_losses")),
    )


def load_attributes(folder: str | Path, number: int) -> dict[str, AttributeEvidence]:
    """Return the evidence of every attribute of a trial's data, by name, none auxiliary.

    Raises:
        InputError: If the study has no such trial, its evidence was purged, or its data hold no attribute.
    """
    at = _kept(folder, number, "")
    names = sorted(name.removeprefix(_GROUP) for name in at if name.startswith(_GROUP))
    if not names or "outputs" not in at:
        raise InputError(
            "The data must hold an attribute, but {folder} has none. Name a column of a table as `attribute`.",
            folder=folder,
        )
    return {
        name: AttributeEvidence(
            name=name,
            log_probs=at["outputs"],
            labels=at["labels"],
            members=at["members"],
            units=at["units"],
            attribute=at[_GROUP + name],
        )
        for name in names
    }


def _kept(folder: str | Path, number: int, again: str) -> dict[str, Any]:
    path = evidence_path(Path(folder), number, again=again)
    try:
        kept = np.load(path)
    except OSError:
        raise InputError(
            "The trial's evidence must be in the folder, but there is no {path}: it was purged, or there is "
            "no such trial.",
            path=path,
        ) from None
    with kept:
        return {name: kept[name] for name in kept.files}


def _write_private(path: Path, content: Mapping[str, Any]) -> None:
    """Write a file whole or not at all, readable by the owner alone."""
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    with os.fdopen(os.open(temporary, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "wb") as out:
        if path.suffix == ".npz":
            np.savez_compressed(out, **content)
        else:
            out.write(json.dumps(content, indent=1).encode())
    os.replace(temporary, path)
