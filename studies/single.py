"""One training besides the search's: reserved in the ledger before it starts, settled after, charged like any other."""

from collections.abc import Callable
from typing import TypeVar

from moo.errors import PolicyError, TrialError
from moo.privacy.accounting import epsilon_pld
from moo.privacy.events import TrainingRun
from moo.privacy.policies import Policy
from moo.search import Candidate
from moo.studies.accounts import Account, ledger_of
from moo.studies.cost import budget_filter
from moo.studies.evaluator import Evaluator

T = TypeVar("T")


def account_of(evaluator: Evaluator, policy: Policy, name: str, run: TrainingRun) -> Account:
    """The account of a training under a study's policy and its budget, where it has one."""
    prepared = evaluator.prepared
    limit = budget_filter(policy, prepared, evaluator.answers)
    fingerprint = prepared.key.derive("fingerprint").hex()[:8]
    ledger = ledger_of(prepared.spec.data)
    # a training of its own, with no budget, goes on from nothing
    home = evaluator.folder if limit is not None else None
    account = Account(ledger, f"{name} {fingerprint}", lambda _: run, evaluator.answers, limit, home=home)
    account.open(policy)
    return account


def charged(account: Account, run: TrainingRun, number: int, train: Callable[[], T]) -> T:
    """What a training gives, booked under a number.

    Raises:
        PolicyError: If the budget does not admit it; nothing is trained.
        TrialError: If it fails; what it was charged stays charged.
    """
    candidate = Candidate(number=number, generation=-1, params={}, replicate=0)
    if account.reserve([candidate], answers=False):
        raise PolicyError(
            f"the budget must admit this training, but epsilon {epsilon_pld(run):.2f} more would pass it; raise the budget of the next "
            "study."
        )
    try:
        out = train()
    except TrialError as error:
        account.settle(number, error.cause)
        raise
    account.settle(number, "")
    return out
