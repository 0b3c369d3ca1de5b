"""What a study's trainings cost the units of its data set: reserved before, settled after, kept beside no model."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import platformdirs

from moo.data import DATASETS
from moo.errors import InputError, StorageError
from moo.privacy.accounting import compose_epsilon
from moo.privacy.events import TrainingRun
from moo.privacy.keys import StudyKey
from moo.privacy.ledger import Ledger
from moo.search import Candidate


def ledgers_dir() -> Path:
    """`MOO_LEDGERS`, else the platform's data folder of the user: one ledger a data set, and the key of their names."""
    chosen = os.environ.get("MOO_LEDGERS")
    return Path(chosen).expanduser() if chosen else Path(platformdirs.user_data_dir("moo", appauthor=False)) / "ledgers"


def ledger_of(data: str) -> Ledger:
    """The ledger of a data set: of a name, or of the place where a table lies, however its content changes.

    Raises:
        MachineError: If the ledgers' folder cannot be written.
    """
    home = ledgers_dir()
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(
            f"the ledgers' folder must be writable, but {home} is not: {error.strerror}; set MOO_LEDGERS."
        ) from error
    dataset = _dataset(home, data)
    return Ledger(home / f"{dataset[:16]}.ledger", dataset)


def ledger_path(data: str) -> Path:
    """Where the ledger of a data set lies, or would lie; nothing is made.

    Raises:
        InputError: If no study has run on any data.
    """
    home = ledgers_dir()
    if not (home / "ledger.key").is_file():
        raise InputError(f"a ledger must exist, but there is none in {home}; run a study first.")
    return home / f"{_dataset(home, data)[:16]}.ledger"


def _dataset(home: Path, data: str) -> str:
    identity = data if data in DATASETS else str(Path(data).resolve())
    return StudyKey.load_or_create(home / "ledger.key").derive("dataset", identity).hex()[:32]


@dataclass
class Account:
    """One study's entries in the ledger of its data set. Lives in the driver: no worker writes.

    Attributes:
        ledger: Of the data set.
        study: Name and fingerprint, so that two studies of one name stay apart.
        plan: From a candidate to the run that it will be.
    """

    ledger: Ledger
    study: str
    plan: Callable[[Candidate], TrainingRun]
    _open: dict[int, tuple[int, int]] = field(default_factory=dict)

    def reserve(self, candidates: Sequence[Candidate]) -> None:
        """Charge trials in full before they train."""
        for candidate in candidates:
            run = self.plan(candidate)
            self._open[candidate.number] = (self.ledger.reserve(self.study, candidate.number, run), run.steps)

    def settle(self, number: int, cause: str) -> None:
        """A finished trial took all its steps; of a failed one it is not known how many, so it pays for all."""
        if number not in self._open:  # finished by an earlier call, and settled or charged there
            return
        reservation, steps = self._open.pop(number)
        if cause:
            self.ledger.abort(self.study, reservation, steps=steps, cause=cause)
        else:
            self.ledger.commit(self.study, reservation, steps=steps)

    def runs(self) -> list[TrainingRun]:
        """What this study is charged for so far, crashed attempts included."""
        return self.ledger.charged(self.study)

    def anchor(self) -> str:
        """Head of the chain, "seq:hash": what to keep elsewhere."""
        last = self.ledger.entries()[-1]
        return f"{last.seq}:{last.hash}"


def composed(runs: Sequence[TrainingRun], *, delta: float) -> tuple[float, bool]:
    """Epsilon of the private runs, and whether others are among them, for which no bound holds."""
    private = [run for run in runs if run.private]
    return compose_epsilon(private, delta=delta), len(private) < len(runs)
