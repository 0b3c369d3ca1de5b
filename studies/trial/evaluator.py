"""Evaluation of a candidate: plan, train, keep the evidence, judge, add planned noise."""

import dataclasses
import json
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from moo.core.errors import InputError, TrialError
from moo.core.messages import Message
from moo.core.trial_record import STATUS_QUO_TRIAL, TrialParams, TrialRecord
from moo.objectives.compliance.loader import load_rules
from moo.privacy.claims import withdrawn
from moo.privacy.events import PrivateAnswer
from moo.privacy.keys import StudyKey
from moo.privacy.release_policy import Policy
from moo.search import FAILED, LOST, REFUSED, Candidate, Outcome
from moo.search.outcomes import checked
from moo.studies.setup.prepared import PreparedStudy, prepare_study
from moo.studies.setup.study_data import Stage, no_stage
from moo.studies.spec.search_space import GOALS, params_of
from moo.studies.spec.study import StudySpec
from moo.studies.trial.evidence_files import save_evidence
from moo.studies.trial.judge import CONSTRAINTS, judge
from moo.studies.trial.noised_record import Floors, counts, noise_record, noised_floors, planned_answers
from moo.studies.trial.plan import TrialPlan, plan_trial
from moo.studies.trial.run import run_trial, within_memory


@dataclass(frozen=True)
class Evaluator:
    """Evaluation of candidates. Travels to other processes without what it has loaded.

    Attributes:
        spec: The study.
        folder: The study's folder.
        policy: Release policy.
        stage: Receiver of progress.
        covered: Names of the dataset-scoped steps that the ledger charges.
        name: Name of the study in storage and ledger.
    """

    spec: StudySpec
    folder: Path
    policy: Policy = field(default_factory=Policy)
    stage: Stage = no_stage
    covered: frozenset[str] = frozenset()
    name: str = ""
    _prepared: list[PreparedStudy] = field(default_factory=list, repr=False, compare=False)
    _plans: dict[TrialParams, TrialPlan] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "spec", self.spec.on(date.today()))

    @property
    def prepared(self) -> PreparedStudy:
        """The prepared study, made when it is first needed."""
        if not self._prepared:
            key = StudyKey.load_or_create(self.folder / "study.key")
            prepared = prepare_study(self.spec, key, self.folder, self.stage, policy=self.policy, name=self.name)
            self._prepared.append(prepared.covering(self.covered))
        return self._prepared[0]

    def covering(self, steps: frozenset[str]) -> "Evaluator":
        """Return the evaluator with the dataset-scoped steps that the ledger charges."""
        return dataclasses.replace(self, covered=steps, _prepared=[self.prepared.covering(steps)])

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "stage": no_stage, "_prepared": [], "_plans": {}}

    def plan(self, params: TrialParams) -> TrialPlan:
        """Return the plan of a configuration: the same for its charge, its training and its judgement."""
        if params not in self._plans:
            self._plans[params] = plan_trial(params, self.prepared)
        return self._plans[params]

    def __call__(self, candidate: Candidate) -> Outcome:
        params = params_of(candidate.params)
        try:
            record = self.record(
                params, number=candidate.number, replicate=candidate.replicate, attempt=candidate.attempt
            )
            return _complete(record)
        except TrialError as error:
            # sizes in an error's text are of private batches
            return self._failed(candidate, error.cause if self.answers else str(error), error.cause)

    def refused(self, candidate: Candidate) -> Outcome:
        """Return the outcome of a trial that the budget does not admit; nothing is trained."""
        return self._failed(candidate, "it would have passed the budget", REFUSED)

    def lost(self, candidate: Candidate) -> Outcome:
        """Return the outcome of a trial that ended its process twice."""
        return self._failed(candidate, "its process died twice, e.g. since memory ended", LOST)

    def _failed(self, candidate: Candidate, reason: str, cause: str) -> Outcome:
        params = params_of(candidate.params)
        return _outcome(failed_record(params, candidate.number, reason, self.prepared, cause=cause))

    def record(self, params: TrialParams, *, number: int, replicate: int = 0, attempt: str = "") -> TrialRecord:
        """Return the record of a training.

        Args:
            params: Configuration of the trial.
            number: Number of the trial.
            replicate: Earlier trials of the same configuration.
            attempt: Name of the attempt in its checkpoints.
        """
        plan, prepared = self.plan(params), self.prepared
        with within_memory():
            evidence = run_trial(plan, prepared, number=number, replicate=replicate, attempt=attempt)
        save_evidence(evidence, prepared, number=number)
        record = judge(plan, evidence, prepared, number=number)
        if not self.answers or number == STATUS_QUO_TRIAL:
            return record
        answered = json.dumps([vars(self.policy), [a.to_json() for a in self.answers]], sort_keys=True)
        key = prepared.streams.trial_key(params, answered, number=number, replicate=replicate)
        return noise_record(
            record,
            evidence,
            self.answers,
            spec=self.spec,
            flags=prepared.context.flags,
            wordless=prepared.features.masked("pool", params.masking_level, params).wordless,
            floors=self.floors,
            rng=key.generator("answers"),
        )

    @property
    def answers(self) -> tuple[PrivateAnswer, ...]:
        """Noised answers of each trial."""
        return planned_answers(self.policy, self.floors) if self.policy.answer_noise else ()

    @property
    def counts(self) -> tuple[PrivateAnswer, ...]:
        """Noised counts that the answers' floors come from, drawn once."""
        return counts(self.policy)

    @property
    def floors(self) -> Floors:
        """Floors from the noised counts, the same at every call.

        Their noise derives from data, settings and key.
        """
        units = {part: records.n_units for part, records in self.prepared.data.parts.items()}
        key = self.prepared.streams.parts_key(json.dumps(vars(self.policy), sort_keys=True))
        return noised_floors(units, self.policy, key.generator("counts"))


def _complete(record: TrialRecord) -> Outcome:
    """Return the outcome of a finished trial.

    Raises:
        TrialError: If an objective or a constraint is no number: the trial is charged, and must not stop the study.
    """
    try:
        return checked(_outcome(record), GOALS, CONSTRAINTS, number=record.number)
    except InputError as error:
        raise TrialError(error.message, cause="not a number") from error


def _outcome(record: TrialRecord) -> Outcome:
    """Return a record as the search sees it."""
    return Outcome(
        values=record.objectives,
        constraints={k: min(1.0, max(-1.0, v)) for k, v in record.constraints.items() if k != FAILED},
        payload=record.to_json(),
        cause=record.cause,
    )


def failed_record(params: TrialParams, number: int, reason: str, prepared: PreparedStudy, *, cause: str) -> TrialRecord:
    """Return the record of a failed trial, with its cause; it breaks every constraint."""
    gates = [rule.id for rule in load_rules(prepared.spec.packs).at(prepared.context.flags) if rule.kind == "gate"]
    return TrialRecord(
        number=number,
        params=params,
        state="failed",
        objectives={},
        constraints={**dict.fromkeys((*CONSTRAINTS, *gates), 1.0), FAILED: 1.0},
        claim=withdrawn(Message("the trial failed: {reason}", reason=reason)),
        cause=cause,
    )
