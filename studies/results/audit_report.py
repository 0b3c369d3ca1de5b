"""Report of an audit, as the study's folder keeps it."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moo.core.atomic_files import write_whole
from moo.core.errors import StorageError
from moo.core.measurement import number_in, number_out
from moo.core.messages import Message
from moo.core.trial_record import TrialParams
from moo.objectives.auditing.one_run import Guessed

# probability of taking sound sampling for another kind
SAMPLER_ERROR = 1e-3
_FOLDER = "audits"


@dataclass(frozen=True, kw_only=True)
class AuditReport:
    """Findings of an audit.

    Attributes:
        study: Name of the study.
        trial: Number of the trial with this configuration; None if it is of no study.
        params: Configuration.
        engine: "bank" or "opacus".
        kind: Kind of the canaries: "dirac" (white box) or "text" (black box).
        guessed: Guesses at each share of the canaries that was fixed before.
        confidence: Confidence of both lower bounds, a fraction.
        claimed_epsilon: Claimed epsilon at `delta`, by PLD; `math.inf` without DP.
        delta: Delta of all epsilons here.
        claim: "holds", or "withdrawn because ...", from what the engine did.
        epsilon_low: Lower bound among trainings of the same sampling and steps with any noise.
        epsilon_low_dp: Lower bound that supposes nothing but (epsilon, delta)-DP.
        p_value: P-value of the claim: the largest probability of such guesses where it is true; 1 where nothing
            is claimed.
        sampler_p_value: Probability of such batches under Poisson sampling.
        steps: Optimizer steps.
        seconds: Wall clock.
        ledger: Head of the ledger after the training was charged.
        capped: Cap on the data in words; empty in a report from before there were caps.
    """

    study: str
    trial: int | None
    params: TrialParams
    engine: str
    kind: str
    guessed: tuple[Guessed, ...]
    confidence: float
    claimed_epsilon: float
    delta: float
    claim: str
    epsilon_low: float
    epsilon_low_dp: float
    p_value: float
    sampler_p_value: float
    steps: int
    seconds: float
    ledger: str
    capped: str = ""

    @property
    def alarms(self) -> tuple[str, ...]:
        """Return what contradicts the claim; empty if nothing does."""
        alarms = []
        if max(self.epsilon_low, self.epsilon_low_dp) > self.claimed_epsilon:
            low = max(self.epsilon_low, self.epsilon_low_dp)
            template = "epsilon is at least {low:.2f}, but {claimed:.2f} is claimed"
            alarms.append(Message(template, low=low, claimed=self.claimed_epsilon))
        if self.sampler_p_value < SAMPLER_ERROR:
            alarms.append(Message("batches do not look drawn by Poisson sampling"))
        return tuple(alarms)

    def to_json(self) -> dict[str, Any]:
        out = {
            k: number_out(v) if isinstance(v, float) else v
            for k, v in dataclasses.asdict(self).items()
            if k not in ("params", "guessed")
        }
        guessed = [dataclasses.asdict(g) for g in self.guessed]
        return {**out, "params": self.params.to_json(), "guessed": guessed, "alarms": list(self.alarms)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "AuditReport":
        values: dict[str, Any] = {k: number_in(v) if k in _NUMBERS else v for k, v in data.items() if k != "alarms"}
        values["params"] = TrialParams.from_json(data["params"])
        values["guessed"] = tuple(Guessed(**g) for g in data["guessed"])
        return cls(**values)

    @property
    def entry(self) -> int:
        """Return the ledger entry at which it ended: later audits have larger ones."""
        return int(self.ledger.partition(":")[0])

    @property
    def file(self) -> str:
        """Return its path below the folder; no later audit takes its place."""
        name = "configuration" if self.trial is None else f"trial-{self.trial:04d}"
        return f"{_FOLDER}/{name}-{self.kind}-{self.entry}.json"


_NUMBERS = {f.name for f in dataclasses.fields(AuditReport) if f.type is float}


def save_audit(report: AuditReport, folder: str | Path) -> Path:
    """Write a report into the folder and keep those before it: no later audit hides an alarm.

    Raises:
        StorageError: If the folder cannot be written.
    """
    path = Path(folder) / report.file
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_whole(path, json.dumps(report.to_json(), ensure_ascii=False, indent=1))
    except OSError as error:
        raise StorageError(
            "the audit must be kept, but {path} cannot be written: {strerror}.", path=path, strerror=error.strerror
        ) from error
    return path


def load_audits(folder: str | Path) -> tuple[AuditReport, ...]:
    """Return the audits that a folder keeps, the oldest first."""
    reports = [
        AuditReport.from_json(json.loads(path.read_text(encoding="utf-8")))
        for path in (Path(folder) / _FOLDER).glob("*.json")
    ]
    return tuple(sorted(reports, key=lambda a: a.entry))
