"""Privacy cost of a study, and its guarantee under the release policy."""

import dataclasses
import math
from collections.abc import Sequence

from moo.core.messages import Message, joined
from moo.core.trial_record import TrialParams, TrialRecord
from moo.privacy.caps import describe_cap
from moo.privacy.claims import HOLDS
from moo.privacy.composed_epsilon import compose
from moo.privacy.composition import epsilon_of_any, epsilon_of_selected
from moo.privacy.events import Event, PrivateAnswer, TrainingRun
from moo.privacy.ledger import NO_GUARANTEE
from moo.privacy.release_policy import Policy
from moo.privacy.renyi_filter import RenyiFilter
from moo.search import REFUSED
from moo.studies.accounting.account import Account
from moo.studies.results.search_cost import SearchCost
from moo.studies.setup.prepared import PreparedStudy
from moo.studies.trial.noised_record import counts
from moo.studies.trial.plan import TrialPlan, plan_training, planned_run

_NONE_SEARCHED_ON = "with the non-private reference: no guarantee for the users searched on"


def runs_at(prepared: PreparedStudy, epsilon: float) -> list[TrainingRun]:
    """Return the events of a training at an epsilon: one for each number of halvings.

    At one number of halvings a lower epsilon has more noise and is dominated; of two numbers neither need dominate
    the other, so a guarantee over the space is a maximum over all of them at the highest epsilon (ADR 27).
    """
    low, high = prepared.spec.space.batch_halvings
    each = TrialParams(target_epsilon=epsilon, masking_level=0, lora_rank=1, learning_rate=1e-3, adapted_layers=0)
    return [
        planned_run(
            dataclasses.replace(each, batch_halvings=halvings),
            prepared.spec,
            prepared.data.expected_units,
            prepared.data.unit,
        )
        for halvings in range(low, high + 1)
    ]


def budget_filter(policy: Policy, prepared: PreparedStudy, answers: Sequence[PrivateAnswer]) -> RenyiFilter | None:
    """Return the filter of `publish_all`; None under another policy.

    Its order is chosen for trials in the middle of epsilons and halvings: by the plan, not by the data.
    """
    if policy.name != "publish_all":
        return None
    low, high = prepared.spec.space.target_epsilon
    runs = runs_at(prepared, (low * high) ** 0.5)
    typical = runs[len(runs) // 2]
    return RenyiFilter.tuned(epsilon=policy.epsilon, delta=typical.delta, typical=[typical, *answers])


def plan_retraining(prepared: PreparedStudy, params: TrialParams) -> TrialPlan:
    """Return the plan of one retraining on all release users: one model, so each user pays once."""
    return plan_training(
        params,
        prepared.spec,
        engine=prepared.model.engine,
        expected_units=prepared.data.release_units,
        unit=prepared.data.unit,
        shadows_per_unit=1,
        part="release",
    )


def search_cost(
    account: Account, prepared: PreparedStudy, policy: Policy, trials: Sequence[TrialRecord], *, n_trials: int
) -> SearchCost:
    """Return the composed cost of the trials, crashed attempts included, and the guarantee.

    Under `select_one` it holds no number that depends on the number of trials.
    """
    delta = prepared.spec.training.target_delta
    events = account.events()
    guaranteed, label = guarantee(prepared, policy, account.answers, n_trials, account.preparation())
    broken = next((t.claim for t in trials if t.state == "complete" and t.claim != HOLDS), "")
    if broken:
        guaranteed, label = math.inf, Message("odometer, not a guarantee: the DP claim is {claim}", claim=broken)
    # the number of its trials is secret
    alone = policy.name == "select_one"
    if not alone:
        label = _counted(label, account, policy, trials, events)
    charged = account.ledger.charged()
    capped = describe_cap(account.cap, charged)
    return SearchCost(
        policy=str(policy),
        composed_epsilon=None if alone else compose(events, delta=delta),
        delta=delta,
        label=joined("; ", [label, capped]),
        guaranteed_epsilon=guaranteed,
        data_epsilon=None if alone else compose(charged, delta=delta, disjoint=False),
        anchor=account.ledger.head().partition(":")[2] if alone else account.ledger.head(),
        cap=account.cap,
        capped=capped,
    )


def _counted(
    label: str, account: Account, policy: Policy, trials: Sequence[TrialRecord], events: Sequence[Event]
) -> str:
    """Add the numbers of trials that were refused, cut off, or without DP."""
    trained = sum(isinstance(e, TrainingRun) and e.private for e in events)
    parts = [label or Message("odometer over {n} trainings, not a guarantee: results stay inside", n=trained)]
    cut_off = account.open_reservations()
    if cut_off:
        parts.append(Message("{n} of them were cut off and are charged in full", n=cut_off))
    refused = sum(t.cause == REFUSED for t in trials)
    if refused:
        template = "{n} of {total} trials were refused, since they would have passed the budget"
        parts.append(Message(template, n=refused, total=len(trials)))
    if any(isinstance(e, TrainingRun) and e.steps and not e.private for e in events):
        proxy = policy.name == "proxy_then_retrain"
        parts.append(Message(_NONE_SEARCHED_ON if proxy else NO_GUARANTEE))
    return joined("; ", parts)


def guarantee(
    prepared: PreparedStudy,
    policy: Policy,
    answers: Sequence[PrivateAnswer],
    n_trials: int,
    preparation: Sequence[PrivateAnswer] = (),
) -> tuple[float, str]:
    """Return the guaranteed epsilon of a release, and its wording; inf and "" without one.

    It is known before the first trial: from the space, the number of trials, the noise, and the ledger's charges for
    the data's preparation.
    """
    unit, delta = prepared.data.unit, prepared.spec.training.target_delta
    highest = prepared.spec.space.target_epsilon[1]
    limit = budget_filter(policy, prepared, answers)
    if limit is not None:
        return policy.epsilon, Message(
            "guarantee per {unit}: epsilon {epsilon:g} for front, curves and models together, by a Renyi filter of "
            "order "
            "{order:g} fixed before; trainings and noised answers are both in it",
            unit=unit,
            epsilon=policy.epsilon,
            order=limit.order,
        )
    if policy.name == "select_one":
        kinds: list[list[Event]] = [[run, *answers] for run in runs_at(prepared, highest)]
        epsilon = epsilon_of_selected(*kinds, mean=n_trials, delta=delta, once=[*preparation, *counts(policy)])
        return epsilon, Message(
            "guarantee per {unit} for the winner alone: epsilon {epsilon:.2f}, by Theorem 2 of Papernot and Steinke "
            "2022; "
            "all else stays inside, the number of trials too",
            unit=unit,
            epsilon=epsilon,
        )
    if policy.name == "proxy_then_retrain":
        once = [dataclasses.replace(run, shadows_per_unit=1) for run in runs_at(prepared, highest)]
        beside = [e for e in preparation if e.part == "release"]
        epsilon = epsilon_of_any(once, times=policy.retrain, delta=delta, once=beside)
        return epsilon, Message(
            "guarantee per {unit} of the release users: at most epsilon {epsilon:.2f} for {n} retrained {settings}; "
            "none for "
            "the users searched on, whose results stay inside",
            unit=unit,
            epsilon=epsilon,
            n=policy.retrain,
            settings="setting" if policy.retrain == 1 else "settings",
        )
    return math.inf, ""
