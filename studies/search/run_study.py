"""Search of a study: one path for a new study and a resumed one."""

from collections.abc import Sequence
from pathlib import Path

from moo.privacy.release_policy import Policy
from moo.search.sampler import Sampler
from moo.search.storage import Storage
from moo.studies.results.earlier_result import keep_from_earlier_result
from moo.studies.results.result import StudyResult
from moo.studies.results.weights import Weights
from moo.studies.search.folder_lock import locked_folder
from moo.studies.search.options import SearchOptions
from moo.studies.search.progress import Callback
from moo.studies.search.study_search import StudySearch
from moo.studies.spec.study import StudySpec, load_spec


def run_study(
    spec: str | Path | StudySpec,
    *,
    n_trials: int,
    storage: Storage = None,
    name: str | None = None,
    seed: int = 0,
    policy: str | Policy = "internal",
    answer_noise: float | None = None,
    sampler: Sampler | None = None,
    executor: str = "inline",
    workers: int = 1,
    callbacks: Sequence[Callback] = (),
    folder: str | Path | None = None,
    weights: str | Weights | None = None,
) -> StudyResult:
    """Search the privacy settings of a study; the same call goes on where it stopped.

    Args:
        spec: Name of a shipped study, path to TOML, or a StudySpec.
        n_trials: Trials in all, earlier calls included; under `select_one` the mean of a secret number.
        storage: Optuna storage URL, journal:///PATH, SQLite path or Optuna storage object; by default study.db.
        name: Name of the study; by default the specification's.
        seed: Seed of the sampler. Splits, coins and noise come from the secret key in the folder, never from it.
        policy: "internal", "publish_all(EPSILON)", "select_one", "proxy_then_retrain(M)", or a Policy.
        answer_noise: Noise on every number that reads private units, over its sensitivity; see `Policy`.
        sampler: "nsga2", "nsga3", "tpe", "gp", "random" or an Optuna sampler; by default the specification's.
        executor: "inline" or "processes".
        workers: Processes at a time; on GPUs, each has its own.
        callbacks: Functions called with the progress.
        folder: Folder of evidence, key, caches and results, mode 0700; by default moo-runs/<name>.
        weights: Weights of the recommendation, e.g. {"accuracy": 2}; None keeps the last ones, {} weighs all alike.

    Returns:
        Result of the study; `result.save(dir)` writes it.

    Raises:
        InputError: If an argument is unfit (ConfigChangedError, PolicyError), or MachineError if the machine fails.
    """
    options = SearchOptions(
        spec=load_spec(spec),
        policy=Policy.parse(policy, answer_noise=answer_noise),
        n_trials=n_trials,
        storage=storage,
        seed=seed,
        executor=executor,
        workers=workers,
        callbacks=callbacks,
        wanted_name=name,
        wanted_sampler=sampler,
        folder=folder,
        weights=weights,
    )
    with locked_folder(options.home):
        study = StudySearch.begin(options)
        trials = study.run()
        return keep_from_earlier_result(study.close(trials), options.home, weights)
