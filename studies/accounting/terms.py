"""Terms of a study: the ground of its guarantee, fixed in the ledger before any spending."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from moo.core.errors import PolicyError
from moo.core.messages import Message, joined
from moo.privacy.keys import StudyKey
from moo.privacy.ledger import LedgerEntry
from moo.privacy.release_policy import Policy
from moo.privacy.renyi_filter import RenyiFilter
from moo.studies.spec.study import StudySpec

if TYPE_CHECKING:
    from moo.studies.setup.prepared import PreparedStudy

_DIGESTS = ("spec", "split", "data", "draw")
_FREE = {"policy": "internal"}


def terms_of(
    policy: Policy,
    prepared: "PreparedStudy",
    limit: RenyiFilter | None = None,
    *,
    spec: StudySpec | None = None,
    law: tuple[int, StudyKey] | None = None,
) -> dict[str, Any]:
    """Return the terms of a study; for `internal`, without a guarantee, its name alone.

    Args:
        policy: Release policy.
        prepared: The study.
        limit: Budget of `publish_all`.
        spec: Specification to use instead of the prepared study's.
        law: Under `select_one`: mean number of trials, and the key that their number and settings are drawn from.
    """
    if policy.name == "internal":
        return dict(_FREE)
    spec = spec or prepared.spec
    from moo.studies.setup.reopen import marks_of
    from moo.studies.setup.trial_streams import without_places

    marks = marks_of(prepared)
    return {
        "policy": str(policy),
        "answer_noise": policy.answer_noise,
        "delta": spec.training.target_delta,
        "spec": _digest(without_places(spec)),
        "split": _digest([marks["key"], spec.pool, spec.test, spec.user]),
        "data": marks["data"],
        **({"release_share": policy.release_share} if policy.name == "proxy_then_retrain" else {}),
        **({} if law is None else {"mean_trials": law[0], "draw": law[1].derive("gate").hex()[:16]}),
        **({} if limit is None else dataclasses.asdict(limit)),
    }


def known_terms(
    policy: Policy, prepared: "PreparedStudy", limit: RenyiFilter | None = None, *, spec: StudySpec | None = None
) -> dict[str, Any]:
    """Return the terms that a finished study must still have; `check_same` judges the data."""
    terms = terms_of(policy, prepared, limit, spec=spec)
    return {key: value for key, value in terms.items() if key != "data"}


def check_terms(terms: Mapping[str, Any], study: str, gates: list[LedgerEntry]) -> None:
    """Raise if the terms are not those that a name began with, in any folder or storage.

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
                "Policy and budget are fixed before a study's first trial: {name} began with {first}, but "
                "got {now} ({changed}). Give the new study another name.",
                name=name,
                first=_named(gate.body),
                now=_named(terms),
                changed=joined("; ", changed),
            )
        if gate.study != study:
            raise PolicyError(
                "One study alone may have a name under {policy}, but {name} began in another folder, with "
                "another key. Go on there, or give the new study another name.",
                policy=terms["policy"],
                name=name,
            )


def _name(study: str) -> str:
    return study.rpartition(" ")[0]


def _changed(key: str, before: Any, now: Any) -> Message:
    if before is None:
        return Message("{key} was not fixed", key=key)
    if key in _DIGESTS:
        return Message("{key} changed", key=key)
    was, becomes = (f"{value:g}" if isinstance(value, float | int) else str(value) for value in (before, now))
    return Message("{key} was {was} and is now {becomes}", key=key, was=was, becomes=becomes)


def _named(terms: Mapping[str, Any]) -> str:
    """Return policy and order of terms, in words."""
    if "order" not in terms:
        return str(terms["policy"])
    return Message("{policy}, order {order:g}", policy=terms["policy"], order=terms["order"])


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
