"""What an audit found, as it is kept in the study's folder and told beside the claim."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moo.core.atomic_files import write_whole
from moo.core.errors import StorageError
from moo.core.measurement import number_in, number_out
from moo.core.trial_record import TrialParams
from moo.objectives.auditing.one_run import Guessed

SAMPLER_ERROR = 1e-3  # how often sound sampling may be taken for another kind
_FOLDER = "audits"


@dataclass(frozen=True, kw_only=True)
class AuditReport:
    """What an audit found.

    Attributes:
        study: Name.
        trial: Number of the trial whose configuration it is; None where it is of no study.
        params: The configuration.
        engine: "bank" or "opacus".
        kind: Of the canaries: "dirac" (white box) or "text" (black box).
        guessed: The guesses at each share of the canaries that was fixed before.
        confidence: Of both lower bounds.
        claimed_epsilon: At `delta`, by PLD; `math.inf` without DP.
        delta: Of all epsilons here.
        claim: "holds", or "withdrawn because ...", from what the engine did.
        epsilon_low: Lower bound among trainings of the same sampling and steps with any noise.
        epsilon_low_dp: Lower bound that supposes nothing but (epsilon, delta)-DP.
        p_value: Of the claim: the largest probability of such guesses where it is true; 1 where nothing is claimed.
        sampler_p_value: How probable such batches are under Poisson sampling.
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
        """What contradicts the claim; empty where nothing does."""
        found = []
        if max(self.epsilon_low, self.epsilon_low_dp) > self.claimed_epsilon:
            low = max(self.epsilon_low, self.epsilon_low_dp)
            found.append(f"epsilon is at least {low:.2f}, but {self.claimed_epsilon:.2f} is claimed")
        if self.sampler_p_value < SAMPLER_ERROR:
            found.append("batches do not look drawn by Poisson sampling")
        return tuple(found)

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
        """Of the ledger at which it ended: later audits have larger ones."""
        return int(self.ledger.partition(":")[0])

    @property
    def file(self) -> str:
        """Where it lies below the folder; no later audit takes its place."""
        name = "configuration" if self.trial is None else f"trial-{self.trial:04d}"
        return f"{_FOLDER}/{name}-{self.kind}-{self.entry}.json"


_NUMBERS = {f.name for f in dataclasses.fields(AuditReport) if f.type is float}


def save_audit(report: AuditReport, folder: str | Path) -> Path:
    """Keep a report in the folder, beside those before it: one that contradicts a claim does not go by auditing again.

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
    """The audits that a folder keeps, the oldest first."""
    found = [
        AuditReport.from_json(json.loads(path.read_text(encoding="utf-8")))
        for path in (Path(folder) / _FOLDER).glob("*.json")
    ]
    return tuple(sorted(found, key=lambda a: a.entry))
