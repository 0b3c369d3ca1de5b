"""Report of planted secrets that a writer remembers, as `moo memorise` keeps and shows it."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from moo.core.atomic_files import write_whole
from moo.core.errors import StorageError
from moo.core.measurement import Measurement, number_out
from moo.core.trial_record import TrialParams
from moo.objectives.memorisation.exposure import Emission


@dataclass(frozen=True, kw_only=True)
class Canary:
    """A planted secret, and the trained model's memory of it.

    Attributes:
        prompt, secret: Synthetic texts, which may be shown.
        rank: Rank of the secret among all secrets of its form after its own prompt, 1 is the likeliest.
        exposure: log2(number of secrets) - log2(rank), bits.
        emitted: True if the model says it in full after the prompt.
    """

    prompt: str
    secret: str
    rank: int
    exposure: float
    emitted: bool


@dataclass(frozen=True, kw_only=True)
class MemorisationReport:
    """One training with planted secrets.

    Attributes:
        study: Name of the study.
        model: Base model.
        params: Configuration.
        texts: Texts trained on, beside the secrets.
        repeats: Texts that each secret stands in; each is a unit.
        candidates: Secrets of the form.
        canaries: Planted ones.
        exposure: Mean over the planted ones, bits, with its standard error.
        control: Mean over secrets that were not planted: 1.44 bits in expectation, whatever the model.
        learnt: Difference of both, bits.
        emission: Number of planted ones said, with an upper bound of the rate.
        emission_score: Score of rule S07 (PIPL 9) on the upper bound at 95 %, 0 to 1. 300 planted and none
            said score 0; fewer cannot.
        control_emitted: Number said of as many that were not planted: by chance, one in `candidates` each.
        loss, base_loss: Loss on held-out texts, nats a token, of the trained model and of the one it started
            from; errors by unit.
        claimed_epsilon: Claimed epsilon per unit, at `delta`, by PLD; `math.inf` without DP.
        secret_epsilon, secret_delta: Guarantee of a text in `repeats` units, by group privacy.
        delta: Delta of the claim.
        claim: "holds", or "withdrawn because ...".
        steps: Optimizer steps.
        seconds: Wall clock.
        ledger: Head of the ledger after the training was charged.
        capped: Cap on the data in words; empty in a report from before there were caps.
    """

    study: str
    model: str
    params: TrialParams
    texts: int
    repeats: int
    candidates: int
    canaries: tuple[Canary, ...]
    exposure: Measurement
    control: Measurement
    learnt: Measurement
    emission: Emission
    emission_score: float
    control_emitted: int
    loss: Measurement
    base_loss: Measurement
    claimed_epsilon: float
    secret_epsilon: float
    secret_delta: float
    delta: float
    claim: str
    steps: int
    seconds: float
    ledger: str
    capped: str = ""

    @property
    def most_exposed(self) -> Canary:
        """Return the planted secret with the largest exposure: an attacker would find it first."""
        return max(self.canaries, key=lambda c: c.exposure)

    def to_json(self) -> dict[str, Any]:
        out: dict[str, Any] = {}
        for f in dataclasses.fields(self):
            value = getattr(self, f.name)
            if isinstance(value, (Measurement, TrialParams)):
                out[f.name] = value.to_json()
            elif isinstance(value, Emission):
                out[f.name] = {**dataclasses.asdict(value), "rate": value.rate}
            elif isinstance(value, tuple):
                out[f.name] = [dataclasses.asdict(c) for c in value]
            else:
                out[f.name] = number_out(value) if isinstance(value, float) else value
        return out


def difference(planted: Measurement, control: Measurement) -> Measurement:
    """Return the difference of two means over secrets drawn independently."""
    return Measurement(value=planted.value - control.value, stderr=float(np.hypot(planted.stderr, control.stderr)))


def save_memorisation(report: MemorisationReport, folder: str | Path) -> Path:
    """Write a report into the folder and keep those before it.

    Raises:
        StorageError: If the folder cannot be written.
    """
    path = Path(folder) / "memorisation" / f"entry-{report.ledger.partition(':')[0]}.json"
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_whole(path, json.dumps(report.to_json(), ensure_ascii=False, indent=1))
    except OSError as error:
        raise StorageError(
            "the report must be kept, but {path} cannot be written: {strerror}.", path=path, strerror=error.strerror
        ) from error
    return path
