"""From a candidate of the search to what the search is told of it: train, keep evidence, judge, add noise where the policy asks."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from moo.core.errors import InputError, TrialError
from moo.core.trial_record import STATUS_QUO_TRIAL, TrialParams, TrialRecord
from moo.objectives.compliance.loader import load_rules
from moo.privacy.events import PrivateAnswer
from moo.privacy.keys import StudyKey
from moo.privacy.release_policy import Policy
from moo.search import FAILED, LOST, REFUSED, Candidate, Outcome
from moo.search.outcomes import checked
from moo.studies.setup.prepared import Prepared, no_stage
from moo.studies.spec.search_space import GOALS, params_of
from moo.studies.spec.study import StudySpec
from moo.studies.trial.evidence_files import save_evidence
from moo.studies.trial.noised_record import Floors, counts, noise_record, noised_floors, planned_answers
from moo.studies.trial.run import BUDGETED, CONSTRAINTS, judge, run_trial, within_memory


@dataclass
class Evaluator:
    """Evaluation of candidates. Travels to other processes without what it has loaded."""

    spec: StudySpec
    folder: Path
    policy: Policy = field(default_factory=Policy)
    stage: Callable[[str, int, int], None] = no_stage
    covered: frozenset[str] = frozenset()
    name: str = ""
    _prepared: Prepared | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        self.spec = self.spec.on(date.today())

    @property
    def prepared(self) -> Prepared:
        if self._prepared is None:
            key = StudyKey.load_or_create(self.folder / "study.key")
            share = self.policy.release_share if self.policy.name == "proxy_then_retrain" else 0.0
            self._prepared = Prepared(self.spec, key, self.folder, self.stage, release_share=share, name=self.name)
            self._prepared.covered = self.covered
            self._prepared.stays_inside = self.policy.name in ("internal", "proxy_then_retrain")
            self._prepared.flags |= {BUDGETED} if self.policy.name == "publish_all" else set()
        return self._prepared

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "stage": no_stage, "_prepared": None}

    def __call__(self, candidate: Candidate) -> Outcome:
        params = params_of(candidate.params)
        try:
            record = self.record(
                params, number=candidate.number, replicate=candidate.replicate, attempt=candidate.attempt
            )
            return _judged(record)
        except TrialError as error:
            # sizes in an error's text are of private batches
            return self._failed(candidate, error.cause if self.answers else str(error), error.cause)

    def refused(self, candidate: Candidate) -> Outcome:
        """Return the outcome of a trial that the budget does not admit; nothing is trained."""
        return self._failed(candidate, "it would have passed the budget", REFUSED)

    def lost(self, candidate: Candidate) -> Outcome:
        """Return the outcome of a trial whose process died twice."""
        return self._failed(candidate, "its process died twice, e.g. since memory ended", LOST)

    def _failed(self, candidate: Candidate, reason: str, cause: str) -> Outcome:
        params = params_of(candidate.params)
        return _outcome(failed_record(params, candidate.number, reason, self.prepared, cause=cause))

    def record(self, params: TrialParams, *, number: int, replicate: int = 0, attempt: str = "") -> TrialRecord:
        """Return the record of a training.

        Args:
            params: Settings of the trial.
            number: Number of the trial.
            replicate: Earlier trials with the same settings.
            attempt: Name of its checkpoints.
        """
        with within_memory():
            evidence = run_trial(params, self.prepared, number=number, replicate=replicate, attempt=attempt)
        save_evidence(evidence, self.prepared, number=number)
        record = judge(evidence, self.prepared, number=number)
        if not self.answers or number == STATUS_QUO_TRIAL:
            return record
        told = json.dumps([vars(self.policy), [a.to_json() for a in self.answers]], sort_keys=True)
        return noise_record(
            record,
            evidence,
            self.answers,
            spec=self.spec,
            flags=self.prepared.flags,
            wordless=self.prepared.masked("pool", params.masking_level, params).wordless,
            floors=self.floors,
            rng=self.prepared.trial_key(params, told, number=number, replicate=replicate).generator("answers"),
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
        """Floors from the noised counts: the same at every call, since their noise derives from data, settings and key."""
        units = {part: records.n_units for part, records in self.prepared.parts.items()}
        rng = self.prepared.parts_key(json.dumps(vars(self.policy), sort_keys=True)).generator("counts")
        return noised_floors(units, self.policy, rng)


def _judged(record: TrialRecord) -> Outcome:
    """Return the outcome of a trial that came to an end.

    Raises:
        TrialError: If an objective or a constraint is no number: the trial is charged, and must not stop the study.
    """
    try:
        return checked(_outcome(record), GOALS, CONSTRAINTS, number=record.number)
    except InputError as error:
        raise TrialError(str(error), cause="not a number") from error


def _outcome(record: TrialRecord) -> Outcome:
    """Return a record as the search sees it."""
    return Outcome(
        values=record.objectives,
        constraints={k: min(1.0, max(-1.0, v)) for k, v in record.constraints.items() if k != FAILED},
        payload=record.to_json(),
        cause=record.cause,
    )


def failed_record(params: TrialParams, number: int, reason: str, prepared: Prepared, *, cause: str) -> TrialRecord:
    """A trial that did not come to an end, with its cause; infeasible by every constraint."""
    gates = [rule.id for rule in load_rules(prepared.spec.packs).at(prepared.flags) if rule.kind == "gate"]
    return TrialRecord(
        number=number,
        params=params,
        state="failed",
        objectives={},
        constraints={**dict.fromkeys((*CONSTRAINTS, *gates), 1.0), FAILED: 1.0},
        claim=f"withdrawn because the trial failed: {reason}",
        cause=cause,
    )
