"""Options of one call of `run_study`, checked before anything is read or spent."""

from collections.abc import Sequence
from dataclasses import InitVar, dataclass, field
from pathlib import Path

from moo.privacy.release_policy import Policy
from moo.search.sampler import Sampler
from moo.search.storage import Storage
from moo.studies.results.weights import Weights, weights_of
from moo.studies.search.progress import Callback
from moo.studies.search.select_one import NAME as SELECT_ONE
from moo.studies.setup.preflight import check_arguments, check_specification, sampled
from moo.studies.spec.study import StudySpec, check_name


@dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """Checked options of a search.

    Attributes:
        spec: The study, with the sampler's name.
        policy: Release policy.
        n_trials: Trials in all, or the mean of their law under `select_one`.
        storage: Storage that was named; None for study.db in the folder.
        seed: Seed of the sampler.
        executor: "inline" or "processes".
        workers: Processes at a time.
        callbacks: Receivers of progress.
        name: Name of the study in storage and ledger.
        home: The study's folder.
        sampler: Sampler that draws.

    Raises:
        InputError: If an argument or the specification is unfit.
    """

    spec: StudySpec
    policy: Policy
    n_trials: int
    storage: Storage
    seed: int
    executor: str
    workers: int
    callbacks: Sequence[Callback]
    wanted_name: InitVar[str | None]
    wanted_sampler: InitVar[Sampler | None]
    folder: InitVar[str | Path | None]
    weights: InitVar[str | Weights | None]
    name: str = field(init=False)
    home: Path = field(init=False)
    sampler: Sampler = field(init=False)

    def __post_init__(
        self,
        wanted_name: str | None,
        wanted_sampler: Sampler | None,
        folder: str | Path | None,
        weights: str | Weights | None,
    ) -> None:
        check_arguments(
            n_trials=self.n_trials,
            storage=self.storage,
            seed=self.seed,
            executor=self.executor,
            workers=self.workers,
            callbacks=self.callbacks,
            policy=self.policy,
            weighed=bool(weights_of(weights)),
        )
        spec, sampler = sampled(self.spec, wanted_sampler, self.policy)
        check_specification(spec, self.policy)
        name = check_name(spec.name if wanted_name is None else wanted_name)
        home = Path(folder) if folder is not None else Path("moo-runs") / name
        for attribute, value in {"spec": spec, "sampler": sampler, "name": name, "home": home}.items():
            object.__setattr__(self, attribute, value)

    @property
    def secret(self) -> bool:
        """True if the number of trials stays secret."""
        return self.policy.name == SELECT_ONE
