"""Terms of a study: all that its policy's guarantee rests on, fixed in the ledger's gate before anything is spent."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from moo.core.errors import PolicyError
from moo.privacy.keys import StudyKey
from moo.privacy.ledger import LedgerEntry
from moo.privacy.release_policy import Policy
from moo.privacy.renyi_filter import RenyiFilter
from moo.studies.spec.study import PLACES, StudySpec

if TYPE_CHECKING:
    from moo.studies.setup.prepared import Prepared

_DIGESTS = ("spec", "split", "data", "draw")
_FREE = {"policy": "internal"}


def terms_of(
    policy: Policy,
    prepared: "Prepared",
    limit: RenyiFilter | None = None,
    *,
    spec: StudySpec | None = None,
    law: tuple[int, StudyKey] | None = None,
) -> dict[str, Any]:
    """Return the terms of a study; those of `internal`, which guarantees nothing, are its name alone.

    Args:
        policy: The release policy.
        prepared: The study.
        limit: Budget of `publish_all`.
        spec: In place of the prepared study's specification.
        law: Of `select_one`, the mean number of trials, and the key that their number and settings are drawn from.
    """
    if policy.name == "internal":
        return dict(_FREE)
    spec = spec or prepared.spec
    from moo.studies.setup.reopen import marks_of

    marks = marks_of(prepared)
    return {
        "policy": str(policy),
        "answer_noise": policy.answer_noise,
        "delta": spec.training.target_delta,
        "spec": _digest({k: v for k, v in spec.to_json().items() if k not in PLACES}),
        "split": _digest([marks["key"], spec.pool, spec.test, spec.user]),
        "data": marks["data"],
        **({"release_share": policy.release_share} if policy.name == "proxy_then_retrain" else {}),
        **({} if law is None else {"mean_trials": law[0], "draw": law[1].derive("gate").hex()[:16]}),
        **({} if limit is None else dataclasses.asdict(limit)),
    }


def known_terms(
    policy: Policy, prepared: "Prepared", limit: RenyiFilter | None = None, *, spec: StudySpec | None = None
) -> dict[str, Any]:
    """Return the terms that must still be those of a study that ran; `check_same` judges the data by its own rule."""
    terms = terms_of(policy, prepared, limit, spec=spec)
    return {key: value for key, value in terms.items() if key != "data"}


def check_terms(terms: Mapping[str, Any], study: str, gates: list[LedgerEntry]) -> None:
    """Refuse terms that are not those under which a name began, in whatever folder or storage.

    Args:
        terms: Terms of the study; those that may have changed since are left out.
        study: Name and fingerprint, as in the ledger.
        gates: Entries with terms, of all studies on the data.

    Raises:
        PolicyError: If a study of this name began with others.
    """
    name = _name(study)
    for gate in gates:
        if _name(gate.study) != name or (gate.study != study and gate.body == terms == _FREE):
            continue
        changed = [
            _changed(key, gate.body.get(key), value) for key, value in terms.items() if gate.body.get(key) != value
        ]
        if changed:
            raise PolicyError(
                "policy and budget are fixed before a study's first trial: {name} began with {told}, but "
                "got {told2} ({changed}); give the new study another name.",
                name=name,
                told=_told(gate.body),
                told2=_told(terms),
                changed="; ".join(changed),
            )
        if gate.study != study:
            raise PolicyError(
                "one study alone may have a name under {terms}, but {name} began in another folder, with "
                "another key; go on there, or give the new study another name.",
                terms=terms["policy"],
                name=name,
            )


def _name(study: str) -> str:
    return study.rpartition(" ")[0]


def _changed(key: str, before: Any, now: Any) -> str:
    if before is None:
        return f"{key} was not fixed"
    if key in _DIGESTS:
        return f"{key} changed"
    was, becomes = (f"{value:g}" if isinstance(value, float | int) else str(value) for value in (before, now))
    return f"{key} was {was} and is now {becomes}"


def _told(terms: Mapping[str, Any]) -> str:
    order = f", order {terms['order']:g}" if "order" in terms else ""
    return f"{terms['policy']}{order}"


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
