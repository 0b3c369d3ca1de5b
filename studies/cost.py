"""What a study cost in privacy, and what may be said of that number under its release policy."""

import dataclasses
import math
from collections.abc import Sequence

from moo.privacy.accounting import epsilon_of_all, epsilon_of_selected
from moo.privacy.claims import HOLDS
from moo.privacy.events import PrivateAnswer, TrainingRun
from moo.privacy.filters import RenyiFilter
from moo.privacy.ledger import NO_GUARANTEE
from moo.privacy.policies import Policy
from moo.records import TrialParams, TrialRecord
from moo.search import REFUSED
from moo.studies.accounts import Account, composed
from moo.studies.prepare import Prepared
from moo.studies.result import SearchCost
from moo.studies.trial import planned_run


def run_at(prepared: Prepared, epsilon: float) -> TrainingRun:
    """The event of a training at an epsilon of the space; its other settings do not matter to it."""
    params = TrialParams(target_epsilon=epsilon, masking_level=0, lora_rank=1, learning_rate=1e-3, adapted_layers=0)
    return planned_run(params, prepared.spec, prepared.expected_units, prepared.records.unit_name)


def budget_filter(policy: Policy, prepared: Prepared, answers: Sequence[PrivateAnswer]) -> RenyiFilter | None:
    """The filter of `publish_all`, its order chosen for trials at the geometric middle of the epsilons: the plan, not the data."""
    if policy.name != "publish_all":
        return None
    low, high = prepared.spec.space.target_epsilon
    typical = run_at(prepared, (low * high) ** 0.5)
    return RenyiFilter.tuned(epsilon=policy.epsilon, delta=typical.delta, typical=[typical, *answers])


def released_run(prepared: Prepared, params: TrialParams) -> TrainingRun:
    """The event of one retraining on all release users: one model, so each pays once."""
    return planned_run(
        params, prepared.spec, prepared.release_units, prepared.records.unit_name, shadows_per_unit=1, part="release"
    )


def search_cost(
    account: Account, prepared: Prepared, policy: Policy, trials: Sequence[TrialRecord], *, n_trials: int
) -> SearchCost:
    """What the study's trials compose to by the ledger, crashed attempts included, and the guarantee if there is one."""
    delta = prepared.spec.training.target_delta
    events = account.events()
    epsilon, unbounded = composed(events, delta=delta)
    trained = sum(isinstance(e, TrainingRun) and e.private for e in events)
    guaranteed, label = guarantee(prepared, policy, account.answers, n_trials)
    broken = next((t.claim for t in trials if t.state == "complete" and t.claim != HOLDS), "")
    if broken:
        guaranteed, label = math.inf, f"odometer, not a guarantee: the DP claim is {broken}"
    label = label or f"odometer over {trained} trainings, not a guarantee: results stay inside"
    refused = sum(t.cause == REFUSED for t in trials)
    if refused:
        label += f"; {refused} of {len(trials)} trials were refused, since they would have passed the budget"
    if unbounded:
        label += f"; {NO_GUARANTEE}" + (" for the users searched on" if policy.name == "proxy_then_retrain" else "")
    return SearchCost(
        policy=str(policy),
        composed_epsilon=epsilon,
        delta=delta,
        label=label,
        guaranteed_epsilon=guaranteed,
        data_epsilon=composed(account.ledger.charged(), delta=delta, disjoint=False)[0],
        anchor=account.ledger.head(),
    )


def guarantee(prepared: Prepared, policy: Policy, answers: Sequence[PrivateAnswer], n_trials: int) -> tuple[float, str]:
    """Epsilon that the policy guarantees for what leaves, and in which words; infinite and empty where it guarantees nothing.

    It is known before the first trial: from the space, the number of trials and the noise.
    """
    unit, delta = prepared.records.unit_name, prepared.spec.training.target_delta
    highest = prepared.spec.space.target_epsilon[1]
    limit = budget_filter(policy, prepared, answers)
    if limit is not None:
        return policy.epsilon, (
            f"guarantee per {unit}: epsilon {policy.epsilon:g} for front, curves and models together, by a Renyi filter of order "
            f"{limit.order:g} fixed before; trainings and noised answers are both in it"
        )
    if policy.name == "select_one":
        epsilon = epsilon_of_selected([run_at(prepared, highest), *answers], mean=n_trials, delta=delta)
        return epsilon, (
            f"guarantee per {unit} for the winner alone: epsilon {epsilon:.2f}, by Theorem 2 of Papernot and Steinke 2022; all else "
            "stays inside, the number of trials too"
        )
    if policy.name == "proxy_then_retrain":
        dearest = dataclasses.replace(
            run_at(prepared, highest), shadows_per_unit=1, n_units=prepared.release_units, part="release"
        )
        epsilon = epsilon_of_all([dearest] * policy.retrain, delta=delta)
        return epsilon, (
            f"guarantee per {unit} of the release users: at most epsilon {epsilon:.2f} for {policy.retrain} retrained "
            f"{'setting' if policy.retrain == 1 else 'settings'}; none for the users searched on, whose results stay inside"
        )
    return math.inf, ""
