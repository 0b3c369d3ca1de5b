"""What a study's trainings cost the units of its data set: reserved before, settled after, kept beside no model."""

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import platformdirs

from moo.data import DATASETS
from moo.errors import InputError, StorageError
from moo.privacy.accounting import compose_epsilon
from moo.privacy.events import Event, PrivateAnswer, TrainingRun
from moo.privacy.filters import RenyiFilter
from moo.privacy.keys import StudyKey
from moo.privacy.ledger import PREPARATION, Ledger
from moo.privacy.policies import Policy
from moo.search import Candidate

if TYPE_CHECKING:
    from moo.models.checkpoints import Reach


def ledgers_dir() -> Path:
    """`MOO_LEDGERS`, else the platform's data folder of the user: one ledger a data set, and the key of their names."""
    chosen = os.environ.get("MOO_LEDGERS")
    return Path(chosen).expanduser() if chosen else Path(platformdirs.user_data_dir("moo", appauthor=False)) / "ledgers"


def ledger_of(data: str) -> Ledger:
    """The ledger of a data set: of the people behind a name, or of the place where a table lies, however its content changes.

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
    identity = DATASETS[data].people if data in DATASETS else str(Path(data).resolve())
    return StudyKey.load_or_create(home / "ledger.key").derive("dataset", identity).hex()[:32]


@dataclass
class Account:
    """One study's entries in the ledger of its data set. Lives in the driver: no worker writes.

    Attributes:
        ledger: Of the data set.
        study: Name and fingerprint, so that two studies of one name stay apart.
        plan: From a candidate to the run that it will be.
        answers: What each trial tells with noise.
        limit: Of `publish_all`: no trial that would pass it is admitted.
        reached: How far a killed attempt of a trial came, by its checkpoints; None where it is not known.
    """

    ledger: Ledger
    study: str
    plan: Callable[[Candidate], TrainingRun]
    answers: tuple[PrivateAnswer, ...] = ()
    limit: RenyiFilter | None = None
    reached: Callable[[int], "Reach | None"] = lambda _: None
    _open: dict[int, tuple[int, int]] = field(default_factory=dict)

    def open(self, policy: Policy) -> None:
        """Write down policy and budget, once, before anything is charged."""
        if not any(e.kind == "gate" for e in self.ledger.entries(self.study)):
            budget = {} if self.limit is None else dataclasses.asdict(self.limit)
            self.ledger.record("gate", self.study, {"policy": str(policy), **budget})

    def reserve(self, candidates: Sequence[Candidate], *, answers: bool = True) -> set[int]:
        """Charge trials in full before they train, with their answers where they tell any.

        Returns:
            Numbers of those that would pass the budget: denied, and not charged.
        """
        for candidate in candidates:
            self._settle_killed(candidate.number)
        spent = self.events() if self.limit is not None else []
        denied = set()
        for candidate in candidates:
            run = self.plan(candidate)
            if self.limit is not None and not self.limit.admits(spent, [run, *self.answers]):
                denied.add(candidate.number)
                self.ledger.record(
                    "deny", self.study, {"trial": candidate.number, "reason": "it would pass the budget"}
                )
                continue
            self._open[candidate.number] = (self.ledger.reserve(self.study, candidate.number, run), run.steps)
            if self.answers and answers:
                self.ledger.answer(self.study, candidate.number, self.answers)
            spent += [run, *self.answers]
        return denied

    def _settle_killed(self, number: int) -> None:
        """The latest attempt of a trial that was killed pays for the steps that it can have run; without checkpoints, for all."""
        reach = self.reached(number)
        if reach is None:
            return
        entries = self.ledger.entries(self.study)
        settled = {e.body["reservation"] for e in entries if e.kind in ("commit", "abort")}
        waiting = [e for e in entries if e.kind == "reserve" and e.body["trial"] == number and e.seq not in settled]
        if waiting:
            steps = min(reach.at_most, waiting[-1].body["run"]["steps"])
            cause = f"killed; the next attempt goes on from step {reach.step}"
            self.ledger.abort(self.study, waiting[-1].seq, steps=steps, cause=cause)

    def settle(self, number: int, cause: str, *, resumed_at: int = 0) -> None:
        """A finished trial took all its steps but those of a checkpoint; of a failed one that is not known, so it pays for all."""
        if number not in self._open:  # finished by an earlier call, and settled or charged there
            return
        reservation, steps = self._open.pop(number)
        if cause:
            self.ledger.abort(self.study, reservation, steps=steps, cause=cause)
        else:
            self.ledger.commit(self.study, reservation, steps=steps - resumed_at)

    def release(self, body: Mapping[str, Any]) -> None:
        """Write down what leaves, once."""
        if not any(e.kind == "release" and e.body == body for e in self.ledger.entries(self.study)):
            self.ledger.record("release", self.study, body)

    def events(self) -> list[Event]:
        """What this study's units are charged for so far: crashed attempts included, and the preparation of the data."""
        return self.ledger.charged(PREPARATION) + self.ledger.charged(self.study)

    def covered(self) -> frozenset[str]:
        """Names of dataset-scoped steps of the preparation that the ledger charges."""
        return frozenset(e.name for e in self.ledger.charged(PREPARATION) if isinstance(e, PrivateAnswer))


def composed(events: Sequence[Event], *, delta: float, disjoint: bool = True) -> tuple[float, bool]:
    """Epsilon of the private events, and whether others are among them, for which no bound holds.

    Args:
        events: Of one study, or of several.
        delta: Of the composition.
        disjoint: Whether a unit is in one part alone: true of one study; another splits the units anew.
    """
    private = [e for e in events if isinstance(e, PrivateAnswer) or e.private]
    if not disjoint:
        private = [dataclasses.replace(e, part="any") for e in private]
    return compose_epsilon(private, delta=delta), len(private) < len(events)
