"""The policy `select_one`: a number of trials drawn in secret, and one result that leaves without a trace of the others."""

import dataclasses
import math
from pathlib import Path

from moo.core.atomic_files import write_whole
from moo.core.errors import PolicyError
from moo.privacy.keys import StudyKey
from moo.privacy.release_policy import Policy
from moo.studies.accounting.account import Account
from moo.studies.accounting.cost import runs_at
from moo.studies.results.result import StudyResult
from moo.studies.setup.prepared import Prepared

NAME = "select_one"
SECRET = "searching; the number of trials stays secret"
INTERNAL = "INTERNAL.txt"
_COUNTING = ("seconds", "peak_memory_gib")  # grow with the number of trials
_RARE = 1000


def drawn(policy: Policy, key: StudyKey, n_trials: int) -> int:
    """Return the number of trials: n_trials, or under `select_one` a secret draw from the geometric law of that mean."""
    return int(key.generator("number of trials").geometric(1 / n_trials)) if policy.name == NAME else n_trials


def check_cap_admits_all(account: Account, prepared: Prepared, n_trials: int) -> None:
    """Refuse a study that a cap on the data could end early: its number of trials would not follow its law.

    More trials than are asked for here are drawn with a probability of delta / 1000.

    Raises:
        PolicyError: If the cap does not admit them all.
    """
    if account.cap is None:
        return
    rare = prepared.spec.training.target_delta / _RARE
    most = 1 if n_trials == 1 else math.ceil(math.log(rare) / math.log1p(-1 / n_trials))
    for run in runs_at(prepared, prepared.spec.space.target_epsilon[1]):
        try:
            account.cap.check([*account.ledger.charged(), *account.counts], [run, *account.answers] * most)
        except PolicyError as error:
            raise PolicyError(
                "select_one draws its number of trials in secret, so the cap must admit {most} of them: {error}",
                most=most,
                error=error,
            ) from error


def winner_alone(result: StudyResult) -> tuple[StudyResult, int | None]:
    """Return what may leave, and the winner's number, which may not.

    The winner is number 0 of a result of one trial. Whatever grows with the number of trials is left out: time and memory, and of the
    winner's own record where it was taken up again.
    """
    winner = result.recommend().trial
    about = {name: value for name, value in result.about.items() if name not in _COUNTING}
    kept = () if winner is None else (dataclasses.replace(winner, number=0, seconds={}, resumed_at=0, notices=()),)
    return dataclasses.replace(result, trials=kept, about=about), None if winner is None else winner.number


def check_may_show(result: StudyResult) -> None:
    """Refuse to show what stays inside.

    Raises:
        PolicyError: Under `select_one`.
    """
    if result.alone:
        raise PolicyError(
            "under select_one only the winner leaves, so nothing else of {name} is shown; see its "
            "report, or moo front.",
            name=result.name,
        )


def mark_internal(home: Path, *, storage: bool) -> None:
    """Say in a study's folder which files must stay there.

    Args:
        home: The study's folder.
        storage: True if the trials are kept elsewhere too, in a storage that was named.
    """
    elsewhere = (
        "The storage that was named with --storage holds every trial too: it is internal as well.\n" if storage else ""
    )
    write_whole(
        home / INTERNAL,
        "This study runs under select_one: its guarantee is for the winner alone.\n"
        "\n"
        "May leave: front.csv, front.json, result.json, report.html, report.zh.html, and the annex. They hold the winner and no other\n"
        "trial.\n"
        "\n"
        "Internal, kept to resume the study and never to be passed on: study.db (every trial), study.key, evidence/, trunk/, logs/,\n"
        "checkpoints/, masking-facts.json, ledger.json, and the ledger of the data (a reservation for each trial).\n"
        f"{elsewhere}",
    )
