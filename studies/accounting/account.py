"""Account of a study in the ledger of its data: trainings reserved before, settled after."""

import dataclasses
import math
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import platformdirs

from moo.core.errors import InputError, PolicyError, StorageError
from moo.data.catalogue import DATASETS
from moo.privacy.caps import Cap
from moo.privacy.events import Event, PrivateAnswer, TrainingRun
from moo.privacy.keys import StudyKey
from moo.privacy.ledger import PREPARATION, Ledger, LedgerEntry, cap_of, charged, read_entries
from moo.privacy.renyi_filter import RenyiFilter
from moo.studies.accounting.ledger_heads import check_anchor, keep_anchor
from moo.studies.accounting.terms import check_terms

if TYPE_CHECKING:
    from moo.models.training.checkpoints import Reach

OVER_BUDGET = "it would pass the budget"
# Parts whose units pay for something.
CHARGED = ("pool", "test", "release")


def ledgers_dir() -> Path:
    """Return the folder of the ledgers: MOO_LEDGERS, else the user's data folder."""
    chosen = os.environ.get("MOO_LEDGERS")
    return Path(chosen).expanduser() if chosen else Path(platformdirs.user_data_dir("moo", appauthor=False)) / "ledgers"


def ledger_of(data: str) -> Ledger:
    """Return the ledger of a data set: of the people behind its name, or of the path of a table.

    Raises:
        MachineError: If the ledgers' folder cannot be written.
    """
    home = ledgers_dir()
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(
            "The ledgers' folder must be writable, but {home} is not: {strerror}. Set MOO_LEDGERS.",
            home=home,
            strerror=error.strerror,
        ) from error
    dataset = _dataset(home, data)
    return Ledger(home / f"{dataset[:16]}.ledger", dataset)


def ledger_path(data: str) -> Path:
    """Return the path of a data set's ledger, if it exists or not; nothing is created.

    Raises:
        InputError: If no study has run on any data.
    """
    home = ledgers_dir()
    if not (home / "ledger.key").is_file():
        raise InputError("A ledger must exist, but there is none in {home}; run a study first.", home=home)
    return home / f"{_dataset(home, data)[:16]}.ledger"


def cap_and_charges(data: str) -> tuple[Cap | None, list[Event]]:
    """Return the cap on a data set and its charged events; creates no ledger."""
    try:
        entries = read_entries(ledger_path(data))
    except InputError:
        return None, []
    return cap_of(entries), charged(entries)


def _dataset(home: Path, data: str) -> str:
    identity = DATASETS[data].people if data in DATASETS else str(Path(data).expanduser().resolve())
    return StudyKey.load_or_create(home / "ledger.key").derive("dataset", identity).hex()[:32]


@dataclass
class Account:
    """Entries of one study in the ledger of its data set. Lives in the driver: no worker writes.

    After every entry the ledger's head is kept in the study's folder, so that an older copy is refused.

    Attributes:
        ledger: Ledger of the data set.
        study: Name and fingerprint, so that two studies of one name stay apart.
        answers: Noised answers of each trial.
        counts: Noised counts, charged once, with the first trial that has answers.
        limit: Filter of `publish_all`: a trial that would pass it is refused.
        reached: Progress of a killed attempt by its checkpoints, from trial and attempt; None if it is unknown.
        home: The study's folder, which keeps the ledger's head; None keeps none.
    """

    ledger: Ledger
    study: str
    answers: tuple[PrivateAnswer, ...] = ()
    limit: RenyiFilter | None = None
    reached: Callable[[int, str], "Reach | None"] = lambda _, __: None
    home: Path | None = None
    counts: tuple[PrivateAnswer, ...] = ()
    _open: dict[int, tuple[int, int]] = field(default_factory=dict)

    def check(self) -> None:
        """Raise if the ledger lacks the charges of the study.

        Raises:
            PolicyError: If it was replaced by another one, or by an older copy.
        """
        if self.home is not None:
            check_anchor(self.home, self.study, self.ledger)

    def open(self, terms: Mapping[str, Any], *, begun: bool = False) -> None:
        """Write the study's terms down, once, before anything is charged.

        Args:
            terms: Terms by `terms_of`.
            begun: True if the study must have begun: its terms are then in the ledger.

        Raises:
            PolicyError: If a study of this name began with others, or in another folder, or with another ledger.
        """
        with self._writing():
            gates = self._same_terms(terms)
            known = any(e.study == self.study for e in gates)
            if not known and begun and terms["policy"] != "internal":
                raise PolicyError(
                    "The ledger must hold the terms that {study} began with, but {path} does not. Set "
                    "MOO_LEDGERS and the path of the data as they were, or restore the ledger.",
                    study=self.study,
                    path=self.ledger.path,
                )
            if not known:
                self.ledger.record("gate", self.study, terms)

    def begun(self, terms: Mapping[str, Any]) -> bool:
        """Return True if the study has begun; raise as `open` does, and write nothing."""
        self.check()
        return any(e.study == self.study for e in self._same_terms(terms))

    def _same_terms(self, terms: Mapping[str, Any]) -> list[LedgerEntry]:
        gates = [e for e in self.ledger.entries() if e.kind == "gate" and "policy" in e.body]
        check_terms(terms, self.study, gates)
        return gates

    def fix(self, name: str, chosen: Any) -> Any:
        """Write a decision down, or return the one that was written down before."""
        with self._writing():
            before = [e.body for e in self.ledger.entries(self.study) if e.kind == "gate" and name in e.body]
            if not before:
                self.ledger.record("gate", self.study, {name: chosen})
        return before[0][name] if before else chosen

    def reserve(self, runs: Mapping[int, TrainingRun], *, answers: bool = True) -> dict[int, str]:
        """Charge trainings in full before they start, with their answers where they have any.

        Args:
            runs: Number of a trial -> its training.
            answers: True if the trials release their answers.

        Returns:
            Number of a denied trial -> reason; it is not charged.
        """
        with self._writing():
            for number in runs:
                self._settle_killed(number)
            return self._admitted(runs, answers=answers)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Hold the ledger alone, once it is known to be the study's; keep its head afterwards."""
        with self.ledger.locked():
            self.check()
            try:
                yield
            finally:
                if self.home is not None:
                    keep_anchor(self.home, self.study, self.ledger)

    def _admitted(self, runs: Mapping[int, TrainingRun], *, answers: bool) -> dict[int, str]:
        spent = self.events() if self.limit is not None else []
        denied = {}
        due = self._due() if answers else ()
        for number, run in runs.items():
            if self.limit is not None and not self.limit.admits(spent, [run, *self.answers, *due]):
                denied[number] = self._deny(number, OVER_BUDGET)
                continue
            try:
                seq = self.ledger.reserve(self.study, number, run, [*self.answers, *due] if answers else ())
            except PolicyError as error:
                denied[number] = self._deny(number, error.message)
                continue
            self._open[number] = (seq, run.steps)
            spent += [run, *self.answers, *due]
            due = ()
        return denied

    def _due(self) -> tuple[PrivateAnswer, ...]:
        """Return the counts that the ledger does not hold yet."""
        held = self.ledger.charged(self.study)
        return tuple(c for c in self.counts if c not in held)

    def _deny(self, number: int, reason: str) -> str:
        # The earlier reservation of a trial that was killed stays charged in full.
        self._open.pop(number, None)
        self.ledger.record("deny", self.study, {"trial": number, "reason": str(reason)})
        return reason

    def attempts(self) -> dict[int, str]:
        """Return trial -> name of its open attempt: the hash of its reservation."""
        hashes = {e.seq: e.hash for e in self.ledger.entries(self.study)}
        return {number: hashes[reservation] for number, (reservation, _) in self._open.items()}

    def _settle_killed(self, number: int) -> None:
        """Charge a killed attempt for the steps it can have run; for all without checkpoints."""
        entries = self.ledger.entries(self.study)
        settled = {e.body["reservation"] for e in entries if e.kind in ("commit", "abort")}
        waiting = [e for e in entries if e.kind == "reserve" and e.body["trial"] == number and e.seq not in settled]
        reach = self.reached(number, waiting[-1].hash if waiting else "")
        if waiting and reach is not None:
            steps = min(reach.at_most, waiting[-1].body["run"]["steps"])
            cause = f"killed; the next attempt goes on from step {reach.step}"
            self.ledger.abort(self.study, waiting[-1].seq, steps=steps, cause=cause)

    def settle(self, number: int, cause: str = "", *, resumed_at: int = 0) -> None:
        """Record the steps of a training: since its checkpoint if finished, all if it failed.

        A training that is not open is left alone: an earlier call settled or charged it.
        """
        if number not in self._open:
            return
        reservation, steps = self._open.pop(number)
        with self._writing():
            if cause:
                self.ledger.abort(self.study, reservation, steps=steps, cause=cause)
            else:
                self.ledger.commit(self.study, reservation, steps=steps - resumed_at)

    def release(self, body: Mapping[str, Any], *, only: bool = False) -> bool:
        """Write a release down, once.

        Args:
            body: Description of the release.
            only: True if nothing else of the study may leave, before or after.

        Returns:
            False if it was written down before.

        Raises:
            PolicyError: If something else has left, and only one thing may.
        """
        with self._writing():
            before = [e.body for e in self.ledger.entries(self.study) if e.kind == "release"]
            if only and any(other != body for other in before):
                raise PolicyError(
                    "One result alone of {study} may leave, and another has left. Give the new study another name.",
                    study=self.study,
                )
            if body not in before:
                self.ledger.record("release", self.study, body)
        return body not in before

    def open_reservations(self) -> int:
        """Return the number of trainings that were reserved and never settled: a call was cut off."""
        entries = self.ledger.entries(self.study)
        settled = {e.body["reservation"] for e in entries if e.kind in ("commit", "abort")}
        return sum(e.kind == "reserve" and e.seq not in settled for e in entries)

    def preparation(self) -> list[PrivateAnswer]:
        """Return the charges of the data's preparation, for the units of every part."""
        return everywhere(self.ledger.charged(PREPARATION))

    @property
    def cap(self) -> Cap | None:
        """Cap on the data; None without one, or if it was lifted."""
        cap = cap_of(self.ledger.entries())
        return None if cap is None or math.isinf(cap.epsilon) else cap

    def events(self) -> list[Event]:
        """Return all charges of this study's units: crashed attempts and preparation included."""
        return [*self.preparation(), *self.ledger.charged(self.study)]

    def covered(self) -> frozenset[str]:
        """Return the names of dataset-scoped steps of the preparation that the ledger charges."""
        return frozenset(e.name for e in self.ledger.charged(PREPARATION) if isinstance(e, PrivateAnswer))


def everywhere(preparation: Sequence[Event]) -> list[PrivateAnswer]:
    """Return the answers of steps that read all units, charged to the units of every part."""
    answers = [e for e in preparation if isinstance(e, PrivateAnswer)]
    times: dict[PrivateAnswer, int] = {}
    for answer, n in Counter(answers).items():
        anywhere = dataclasses.replace(answer, part="")
        times[anywhere] = max(n, times.get(anywhere, 0))
    return [dataclasses.replace(e, part=part) for e, n in times.items() for part in CHARGED for _ in range(n)]
