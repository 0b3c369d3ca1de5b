"""What a writer keeps of planted secrets, as it is kept in a folder and told by `moo memorise`."""

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
    """A planted secret, and how the trained model takes it.

    Attributes:
        prompt, secret: Synthetic, so they may be told.
        rank: Of the secret among all secrets of its form after its own prompt, 1 is the likeliest.
        exposure: log2(number of secrets) - log2(rank), bits.
        emitted: Whether the model says it in full when it hears the prompt.
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
        study: Name.
        model: Base model.
        params: The configuration.
        texts: Texts trained on, beside the secrets.
        repeats: Texts that each secret stands in; each is a unit.
        candidates: Secrets of the form.
        canaries: Planted ones.
        exposure: Mean over the planted ones, bits, with its standard error.
        control: The same over secrets that were not planted: 1.44 in expectation, whatever the model.
        learnt: The difference of both.
        emission: How many planted ones were said, with an upper bound of the rate.
        emission_score: Of rule S07 (PIPL 9) on the upper bound at 95 %: 0 to 1. 300 planted and none said score 0; fewer cannot.
        control_emitted: How many that were not planted, of as many: by chance, one in `candidates` each.
        loss, base_loss: On held-out texts, nats a token, of the trained model and of the one it started from; errors by unit.
        claimed_epsilon: Per unit, at `delta`, by PLD; `math.inf` without DP.
        secret_epsilon, secret_delta: Of what stands in `repeats` units, by group privacy.
        delta: Of the claim.
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
        """The planted secret with the largest exposure: what an attacker would find first."""
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
    """Of two means over secrets drawn apart."""
    return Measurement(value=planted.value - control.value, stderr=float(np.hypot(planted.stderr, control.stderr)))


def save_memorisation(report: MemorisationReport, folder: str | Path) -> Path:
    """Keep a report in the folder, beside those before it.

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
