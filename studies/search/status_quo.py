"""Status quo of a study: one training without DP and without masking, outside the search."""

import json
from collections.abc import Mapping
from typing import Any

from moo.core.atomic_files import write_whole
from moo.core.errors import InputError, TrialError
from moo.core.messages import pack
from moo.core.trial_record import STATUS_QUO_TRIAL, TrialRecord
from moo.studies.accounting.account import Account
from moo.studies.accounting.charge import charge_training
from moo.studies.spec.search_space import STATUS_QUO
from moo.studies.trial.evaluator import Evaluator
from moo.studies.trial.paths import forget_trial


def status_quo_record(evaluator: Evaluator, identity: Mapping[str, Any], account: Account) -> TrialRecord:
    """Return the record of the status quo, trained once before the first generation.

    The sampler never sees it.

    Raises:
        InputError: If its training fails.
    """
    path = evaluator.folder / "reference.json"
    if path.is_file():
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept["identity"] == json.loads(json.dumps(identity)):
            return TrialRecord.from_json(kept["record"])
    evaluator.stage("the status quo: no DP, nothing masked", 0, 0)
    try:
        with charge_training(account, STATUS_QUO_TRIAL, evaluator.plan(STATUS_QUO).run):
            attempt = account.attempts().get(STATUS_QUO_TRIAL, "")
            record = evaluator.record(STATUS_QUO, number=STATUS_QUO_TRIAL, attempt=attempt)
            settle_trial(account, evaluator, record)
    except TrialError as error:
        raise InputError("The status quo must be trainable, but: {error}", error=error.message) from error
    write_whole(path, json.dumps({"identity": identity, "record": pack(record.to_json())}))
    return record


def settle_trial(account: Account, evaluator: Evaluator, record: TrialRecord) -> None:
    """Settle the charge of a finished trial, and remove its checkpoints."""
    account.settle(record.number, record.cause, resumed_at=record.resumed_at)
    forget_trial(evaluator.folder, record.number)
