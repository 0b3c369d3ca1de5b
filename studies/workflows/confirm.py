"""Second training of the front with more shadows, against the winner's curse, and a third of the recommended point.

A front is what looked best among many noisy numbers, so its numbers are too good. Every point is trained again with
fresh coins, halves and noise, at K = 8 where the search had 4; the recommendation is made from both trainings
together. The recommended point is then trained a third time, on a fresh split of the users into pool, test and
unseen: that number chose nothing.
"""

import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from moo.core import validate
from moo.core.atomic_files import write_whole
from moo.core.errors import InputError, PolicyError
from moo.core.measurement import Measurement
from moo.core.messages import pack
from moo.core.trial_record import TrialRecord
from moo.objectives.membership.attacks.registry import ATTACKS
from moo.objectives.membership.choice import CHOSEN
from moo.objectives.membership.permutation import permutation_p_value
from moo.objectives.membership.risk import Level
from moo.privacy.release_policy import Policy
from moo.studies.accounting.charge import account_of, charge_training
from moo.studies.accounting.cost import search_cost
from moo.studies.accounting.terms import known_terms
from moo.studies.results.result import StudyResult, load_result
from moo.studies.search.folder_lock import locked_folder
from moo.studies.setup.prepared import PreparedStudy
from moo.studies.setup.reopen import reopen_study
from moo.studies.setup.study_data import Stage, no_stage
from moo.studies.spec.study import StudySpec
from moo.studies.trial.evidence_files import save_evidence
from moo.studies.trial.judge import judge
from moo.studies.trial.paths import forget_trial
from moo.studies.trial.plan import plan_trial
from moo.studies.trial.run import run_trial, within_memory
from moo.studies.workflows.pooled import pooled

# Streams of randomness are named by (trial, replicate); the search counts replicates from 0 upward, so these
# are never its own.
SAME_SPLIT, FRESH_SPLIT = -1, -2
_FRESH = "confirmation"


def confirm(folder: str | Path, *, n_shadows: int = 8, stage: Stage = no_stage) -> StudyResult:
    """Train the front of a finished study again, recommend from both trainings, confirm on a fresh split.

    Every training is reserved in the ledger before it starts and charged like any other: a unit is in half
    of the shadows. Trained records are kept in the folder, so the same call after a crash, or on a front
    that has grown, trains what is missing.

    Args:
        folder: Folder of the study; evidence is kept there, and `StudyResult.save` writes the result back.
        n_shadows: K, even, at least 4.
        stage: Callback that hears of each stage.

    Returns:
        The result with `refined` and `confirmed`; its cost holds the trainings of both.

    Raises:
        PolicyError: If the policy noises its answers: confirming would need a budget that was not planned.
        InputError: If the folder holds no study, n_shadows is unfit, or the front is empty.
        TrialError: If a training fails; what it was charged stays charged.
    """
    home = Path(folder)
    if validate.whole(4, 1024, n_shadows=n_shadows) % 2:
        raise validate.argument_error("{name} must be even", "n_shadows", n_shadows, "shadows come in pairs")
    result = load_result(home)
    policy = Policy(**result.about.get("policy", {}))
    if policy.answer_noise or policy.name not in ("internal", "proxy_then_retrain"):
        raise PolicyError(
            "The policy must be internal or proxy_then_retrain(m), which tell exact numbers, got {policy} of {name}: "
            "confirming would cost its users more than the budget that was fixed before.",
            name=result.name,
            policy=policy,
        )
    recommended = result.recommend().trial
    front = [t for t in result.complete if t.number in result.on_front or t is recommended]
    if not front:
        raise InputError(
            "The front must hold a point to confirm, but that of {name} is empty: {reason}.",
            name=result.name,
            reason=result.recommend().reason,
        )
    plain = result.specification()
    spec = dataclasses.replace(plain, training=dataclasses.replace(plain.training, n_shadows=n_shadows))
    with locked_folder(home):
        again = _Again(home, spec, result, stage)
        refined = tuple(pooled(t, again.record(t, replicate=SAME_SPLIT), max_risk=spec.max_risk) for t in front)
        result = dataclasses.replace(result, refined=refined)
        choice = result.recommend().trial
        confirmed = None if choice is None else again.record(choice, replicate=FRESH_SPLIT)
        cost = search_cost(
            again.account, again.prepared(SAME_SPLIT), policy, result.trials, n_trials=len(result.trials)
        )
        return dataclasses.replace(result, confirmed=confirmed, cost=cost)


@dataclass
class _Again:
    """Second trainings of a study's settings, each run at most once and charged."""

    home: Path
    spec: StudySpec
    result: StudyResult
    stage: Stage

    def __post_init__(self) -> None:
        self._ready: dict[int, PreparedStudy] = {}
        prepared, policy = self.prepared(SAME_SPLIT), Policy(**self.result.about.get("policy", {}))
        self.account = account_of(prepared, name=self.result.name)
        self.account.open(known_terms(policy, prepared, spec=self.result.specification()), begun=True)
        self._covered = self.account.covered()

    def prepared(self, replicate: int) -> PreparedStudy:
        """Return the study on its first split, or on the fresh one."""
        if replicate not in self._ready:
            split = _FRESH if replicate == FRESH_SPLIT else ""
            self._ready[replicate] = reopen_study(self.result, self.home, self.stage, spec=self.spec, split=split)
        return self._ready[replicate]

    def record(self, trial: TrialRecord, *, replicate: int) -> TrialRecord:
        """Return the record of a second training; read it from the folder if it was trained before."""
        k = self.spec.training.n_shadows
        again = f"{_FRESH if replicate == FRESH_SPLIT else 'again'}-k{k}"
        prepared = self.prepared(replicate).covering(self._covered)
        identity = {
            "spec": self.spec.to_json(),
            "params": trial.params.to_json(),
            "data": prepared.data.digest[:16],
            "key": prepared.key.derive("fingerprint").hex()[:16],
        }
        path = self.home / "again" / f"trial-{trial.number:04d}-{again}.json"
        return _once(path, identity, lambda: self._train(trial, prepared, replicate, again))

    def _train(self, trial: TrialRecord, prepared: PreparedStudy, replicate: int, again: str) -> TrialRecord:
        # The fresh split shares users with the old one: they are charged in one part, as if every unit were in both.
        plan, number = plan_trial(trial.params, prepared), trial.number
        with charge_training(self.account, number, plan.run):
            attempt = self.account.attempts()[number]
            with within_memory():
                evidence = run_trial(plan, prepared, number=number, replicate=replicate, attempt=attempt)
            self.account.settle(number, resumed_at=evidence.resumed_at)
        forget_trial(self.home, number)
        save_evidence(evidence, prepared, number=trial.number, again=again)
        record = judge(plan, evidence, prepared, number=trial.number)
        if self.spec.attack == CHOSEN:
            return record
        level = cast(Level, self.spec.attack_level)
        p = permutation_p_value(evidence.membership, ATTACKS[self.spec.attack], n_draws=384, level=level)
        return dataclasses.replace(record, extras={**record.extras, "permutation_p": Measurement(value=p)})


def _once(path: Path, identity: Mapping[str, Any], make: Callable[[], TrialRecord]) -> TrialRecord:
    """Return a record from its file if that is of the same configuration; else make and keep it."""
    if path.is_file():
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept["identity"] == json.loads(json.dumps(identity)):
            return TrialRecord.from_json(kept["record"])
    record = make()
    path.parent.mkdir(mode=0o700, exist_ok=True)
    write_whole(path, json.dumps({"identity": identity, "record": pack(record.to_json())}))
    return record
