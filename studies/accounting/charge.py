"""Charge of a training in every workflow: reserved before it starts, settled after."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from moo.core.errors import PolicyError, TrialError
from moo.privacy.composition import epsilon_pld
from moo.privacy.events import PrivateAnswer, TrainingRun
from moo.privacy.renyi_filter import RenyiFilter
from moo.studies.accounting.account import Account, ledger_of
from moo.studies.setup.prepared import PreparedStudy
from moo.studies.trial.paths import reached


def account_of(
    prepared: PreparedStudy,
    *,
    name: str,
    answers: tuple[PrivateAnswer, ...] = (),
    counts: tuple[PrivateAnswer, ...] = (),
    limit: RenyiFilter | None = None,
) -> Account:
    """Return the account of a study, or of a single training, in the ledger of its data.

    Args:
        prepared: The study, with its folder.
        name: Name of the study.
        answers: Noised answers of each trial.
        counts: Noised counts, charged once.
        limit: Budget of the study; None without one.
    """
    resumes = prepared.spec.machine.checkpoint_steps > 0
    return Account(
        ledger_of(prepared.spec.data),
        f"{name} {prepared.key.derive('fingerprint').hex()[:8]}",
        answers,
        limit,
        lambda number, attempt: reached(prepared.folder, number, attempt, goes_on=resumes),
        prepared.folder,
        counts,
    )


@contextmanager
def charge_trainings(
    account: Account, runs: Mapping[int, TrainingRun], *, answers: bool = False
) -> Iterator[dict[int, str]]:
    """Charge trainings in full, then let the block train them.

    `Account.settle` books each training that finished.

    A `TrialError` settles the open ones with its cause, charged in full. Any other end of the block, Ctrl-C and
    crashes included, leaves the reservations open: they stay charged in full, unless a later attempt's checkpoint
    proves less.

    Args:
        account: Account of the study.
        runs: Number of a trial -> its training.
        answers: True if the trials release noised answers.

    Yields:
        Number of a denied trial -> reason.

    Raises:
        PolicyError: If the ledger is not the one that the study began with, or an older copy of it.
    """
    denied = account.reserve(runs, answers=answers)
    try:
        yield denied
    except TrialError as error:
        for number in runs:
            account.settle(number, error.cause)
        raise


@contextmanager
def charge_training(account: Account, number: int, run: TrainingRun) -> Iterator[None]:
    """Charge one training, and settle it when the block ends.

    Raises:
        PolicyError: If it is denied; nothing is trained.
        TrialError: If it fails; what it was charged stays charged.
    """
    with charge_trainings(account, {number: run}) as denied:
        if denied:
            raise PolicyError(
                "The budget must admit this training of epsilon {epsilon:.2f}, but {reason}. Raise the "
                "budget of the next study.",
                epsilon=epsilon_pld(run),
                reason=denied[number],
            )
        yield
        account.settle(number)
