"""Policy `select_one`: a secret number of trials, and one result that leaves alone."""

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
from moo.studies.setup.prepared import PreparedStudy

NAME = "select_one"
SECRET = "searching; the number of trials stays secret"
INTERNAL = "INTERNAL.txt"
# Entries of a result that grow with the number of trials.
_COUNTING = ("seconds", "peak_memory_gib")
# Share of delta that a larger number of trials than assumed may take: 1 / _RARE.
_RARE = 1000


def drawn(policy: Policy, key: StudyKey, n_trials: int) -> int:
    """Return n_trials, or under `select_one` a secret geometric draw of that mean."""
    return int(key.generator("number of trials").geometric(1 / n_trials)) if policy.name == NAME else n_trials


def check_cap_admits_all(account: Account, prepared: PreparedStudy, n_trials: int) -> None:
    """Raise if a cap on the data could end the study early.

    Its number of trials would then not follow its law.

    More trials than this check admits are drawn with a probability of delta / 1000.

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
                "The cap must admit {most} trials, since select_one draws their number in secret, but: {error}",
                most=most,
                error=error.message,
            ) from error


def winner_alone(result: StudyResult) -> tuple[StudyResult, int | None]:
    """Return what may leave, and the winner's number, which may not.

    The winner is number 0 of a result of one trial. Everything that grows with the number of trials is left out: time
    and memory, and from the winner's record the step at which it was resumed.
    """
    winner = result.recommend().trial
    about = {name: value for name, value in result.about.items() if name not in _COUNTING}
    kept = () if winner is None else (dataclasses.replace(winner, number=0, seconds={}, resumed_at=0, notices=()),)
    return dataclasses.replace(result, trials=kept, about=about), None if winner is None else winner.number


def check_may_show(result: StudyResult) -> None:
    """Raise if a result would be shown that stays inside.

    Raises:
        PolicyError: Under `select_one`.
    """
    if result.alone:
        raise PolicyError(
            "Under select_one only the winner leaves, so nothing else of {name} is shown. See its report, or "
            "moo front.",
            name=result.name,
        )


def mark_internal(home: Path, *, storage: bool) -> None:
    """Write into a study's folder which of its files must stay there.

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
        "May leave: front.csv, front.json, result.json, report.html, report.zh.html, and the annex. They hold "
        "the winner and no other\n"
        "trial.\n"
        "\n"
        "Internal, kept to resume the study and never to be passed on: study.db (every trial), study.key, "
        "evidence/, trunk/, logs/,\n"
        "checkpoints/, masking-facts.json, ledger.json, and the ledger of the data (a reservation for each trial).\n"
        f"{elsewhere}",
    )
