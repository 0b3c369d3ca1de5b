"""run_study(): one path for a new study and a resumed one."""

import dataclasses
import json
import platform
import resource
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from moo.core.atomic_files import write_whole
from moo.core.errors import InputError, PolicyError, TrialError
from moo.core.trial_record import STATUS_QUO_TRIAL, TrialParams, TrialRecord
from moo.privacy.caps import describe_cap
from moo.privacy.composed_epsilon import compose
from moo.privacy.composition import compose_epsilon
from moo.privacy.events import TrainingRun
from moo.privacy.release_policy import Policy
from moo.search import REFUSED, Candidate, Outcome, search
from moo.search.sampler import Sampler, check_sampler
from moo.search.storage import Storage
from moo.studies.accounting.account import Account
from moo.studies.accounting.charge import account_of, charge_training, charge_trainings
from moo.studies.accounting.cost import budget_filter, runs_at, search_cost
from moo.studies.accounting.terms import terms_of
from moo.studies.results.earlier_result import carried_over
from moo.studies.results.result import SearchCost, StudyResult
from moo.studies.results.weights import Weights, weights_of
from moo.studies.search.folder_lock import locked_folder
from moo.studies.search.gpu_assignment import devices
from moo.studies.search.progress import Callback, Watch, record_of
from moo.studies.search.select_one import NAME, SECRET, check_cap_admits_all, drawn, mark_internal, winner_alone
from moo.studies.setup.legal_gates import NO_GATE, check_data_gates, check_dossier_gates, declared
from moo.studies.setup.preflight import (
    check_arguments,
    check_attributes,
    check_halvings,
    check_model_supports,
    check_specification,
    sampled,
)
from moo.studies.setup.prepared import Prepared
from moo.studies.setup.rare_classes import check_class_sizes
from moo.studies.setup.reopen import marks_of
from moo.studies.spec.search_space import GOALS, STATUS_QUO, initial_trials, params_of, space_of
from moo.studies.spec.study import StudySpec, check_name, load_spec
from moo.studies.trial.evaluator import Evaluator
from moo.studies.trial.paths import day_of, forget_all, forget_trial, keep_day
from moo.studies.trial.run import CONSTRAINTS, planned_run


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
        spec: A shipped study's name, a path to TOML, or a StudySpec.
        n_trials: In all, those of earlier calls included. Under `select_one` the mean of the law that their number is drawn from.
        storage: Optuna storage URL, journal:///PATH, SQLite path or Optuna storage object; by default study.db in the folder.
        name: Of the study; by default the specification's.
        seed: Of the sampler. Splits, coins and noise come from the secret key in the folder, never from here.
        policy: Release policy: "internal", "publish_all(EPSILON)", "select_one", "proxy_then_retrain(M)", or a Policy.
        answer_noise: Noise on every number that reads private units, over its sensitivity; see `Policy`.
        sampler: "nsga2", "nsga3", "tpe", "gp", "random" or an Optuna sampler object; by default the specification's.
        executor: "inline" or "processes".
        workers: Processes at a time; on GPUs, each has one of its own.
        callbacks: Called as the study goes on.
        folder: Where evidence, key, caches and results are kept, mode 0700; by default moo-runs/<name>.
        weights: Of the objectives in the recommendation, e.g. {"accuracy": 2}; see `StudyResult.weighed`. The search does not change.
            None keeps those of the result that stands in the folder, {} weighs all alike.

    Returns:
        The result; `result.save(dir)` writes it.

    Raises:
        InputError: If the specification or an argument is unfit (ConfigChangedError: another study has this name; PolicyError:
            the release policy refuses it).
        MachineError: If disk, network or storage fail.
    """
    spec = load_spec(spec)
    chosen = Policy.parse(policy, answer_noise=answer_noise)
    check_arguments(
        n_trials=n_trials,
        storage=storage,
        seed=seed,
        executor=executor,
        workers=workers,
        callbacks=callbacks,
        policy=chosen,
        weighed=bool(weights_of(weights)),
    )
    spec, drawing = sampled(spec, sampler, chosen)
    check_specification(spec, chosen)
    name = check_name(spec.name if name is None else name)
    home = Path(folder) if folder is not None else Path("moo-runs") / name
    started = time.monotonic()
    with locked_folder(home):
        watch, spec = Watch(callbacks, n_trials), spec.on(day_of(home))
        evaluator = Evaluator(spec, home, chosen, watch.stage, name=name)
        prepared = evaluator.prepared
        check_data_gates(prepared)
        check_dossier_gates(prepared)
        check_model_supports(spec, prepared, reference=chosen.allows_reference)
        check_class_sizes(prepared.records, spec)
        check_halvings(prepared)
        check_attributes(prepared)
        keep_day(home, prepared.as_of)
        identity = _identity(spec, chosen, prepared)
        of_study = prepared.key.child(name, json.dumps(identity, sort_keys=True), n_trials)
        n_drawn, secret = drawn(chosen, of_study, n_trials), chosen.name == NAME
        space, first = space_of(spec.space), initial_trials(spec.space)
        if secret:  # independent draws, from the secret key: an open seed, or 32 bits of one, would number them
            identity["mean_trials"] = n_trials
            settings = of_study.generator("settings")
            first = [space.draw(settings) for _ in range(n_drawn)]
            mark_internal(home, storage=storage is not None)
        limit = budget_filter(chosen, prepared, evaluator.answers)
        account = account_of(prepared, name=name, answers=evaluator.answers, counts=evaluator.counts, limit=limit)
        law = (n_trials, of_study) if secret else None
        terms = terms_of(chosen, prepared, limit, law=law)
        if not account.begun(terms) and secret:
            check_cap_admits_all(account, prepared, n_trials)
        attempts: dict[int, str] = {}
        evaluator.covered = prepared.covered = account.covered()
        watch.compose = lambda: compose(account.events(), delta=spec.training.target_delta)

        def before(candidates: Sequence[Candidate]) -> Mapping[int, Outcome]:
            account.open(terms)
            if chosen.allows_reference and account.cap is None:
                watch.reference = watch.reference or _reference(evaluator, identity, home, account)
            runs = {c.number: _planned(prepared, params_of(c.params)) for c in candidates}
            denied = bookings.enter_context(charge_trainings(account, runs, answers=True))
            attempts.update(account.attempts())
            if denied and secret:  # ending early would break the law of the number of trials
                raise PolicyError(next(iter(denied.values())))
            return {c.number: evaluator.refused(c) for c in candidates if c.number in denied}

        watch.secret = SECRET if secret else ""
        with ExitStack() as bookings:
            found = search(
                evaluator,
                space,
                GOALS,
                n_trials=n_drawn,
                storage=storage if storage is not None else home / "study.db",
                name=name,
                seed=seed,
                enqueue=first,
                config=identity,
                constraint_names=CONSTRAINTS,
                sampler=drawing,
                executor=executor,
                workers=workers,
                environments=devices(spec.machine, executor=executor, workers=workers),
                before=before,
                attempts=lambda number: attempts.get(number, ""),
                lost=evaluator.lost,
                callbacks=[lambda p: _settle(account, home, record_of(p.newest)), watch.trial],
            )
        forget_all(home)
        trials = tuple(record_of(t) for t in found.trials)
        if all(t.cause == REFUSED for t in trials):
            raise PolicyError(_too_small(chosen, account, runs_at(prepared, spec.space.target_epsilon[0])))
        account.check()
        cost = search_cost(account, prepared, chosen, trials, n_trials=n_trials)
        seconds = time.monotonic() - started
        result = _result(name, cost, prepared, chosen, trials, watch.reference, seconds, check_sampler(drawing))
        if secret:
            result, winner = winner_alone(result)
            account.release({"policy": str(chosen), "trials": [] if winner is None else [winner]}, only=True)
        elif chosen.name == "publish_all":
            account.release({"policy": str(chosen), "what": "front, curves and models"})
        return carried_over(result, home, weights)


def _too_small(policy: Policy, account: Account, strictest: Sequence[TrainingRun]) -> str:
    """Say why not one trial was admitted."""
    limit = account.limit
    if limit is None:
        return f"a trial must fit under the cap, but {describe_cap(account.cap, account.ledger.charged())}; see moo ledger cap."
    once = [*account.answers, *account.counts]
    needs = min(compose_epsilon([run, *once], delta=limit.delta) for run in strictest)
    return (
        f"the budget must admit one trial, but {policy} does not: the cheapest alone composes to epsilon {needs:.2f} with its "
        f"{len(once)} noised answers; raise the budget, lower space.target_epsilon, or raise answer_noise."
    )


def _identity(spec: StudySpec, policy: Policy, prepared: Prepared) -> dict[str, Any]:
    """What makes this study what it is: a later call that differs is refused."""
    return {
        "spec": spec.to_json(),
        "policy": vars(policy),
        **marks_of(prepared),
        "weights": prepared.base.digest[:16],
        "threads": torch.get_num_threads(),
        "precision": "bf16" if prepared.base.low_precision else "fp32",
    }


def _planned(prepared: Prepared, params: TrialParams) -> TrainingRun:
    """Return the training that a trial will be; calibrates its noise."""
    return planned_run(params, prepared.spec, prepared.expected_units, prepared.records.unit_name)


def _reference(evaluator: Evaluator, identity: Mapping[str, Any], home: Path, account: Account) -> TrialRecord:
    """The status quo, run once before the first generation and kept; the sampler never sees it."""
    path = home / "reference.json"
    if path.is_file():
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept["identity"] == json.loads(json.dumps(identity)):
            return TrialRecord.from_json(kept["record"])
    evaluator.stage("the status quo: no DP, nothing masked", 0, 0)
    try:
        with charge_training(account, STATUS_QUO_TRIAL, _planned(evaluator.prepared, STATUS_QUO)):
            attempt = account.attempts().get(STATUS_QUO_TRIAL, "")
            record = evaluator.record(STATUS_QUO, number=STATUS_QUO_TRIAL, attempt=attempt)
            _settle(account, home, record)
    except TrialError as error:
        raise InputError("the status quo must be trainable, but: {error}", error=error) from error
    write_whole(path, json.dumps({"identity": identity, "record": record.to_json()}))
    return record


def _settle(account: Account, home: Path, record: TrialRecord) -> None:
    account.settle(record.number, record.cause, resumed_at=record.resumed_at)
    forget_trial(home, record.number)


def _result(
    name: str,
    cost: SearchCost,
    prepared: Prepared,
    policy: Policy,
    trials: tuple[TrialRecord, ...],
    reference: TrialRecord | None,
    seconds: float,
    sampler: str,
) -> StudyResult:
    spec = prepared.spec
    parts = {part: len(records) for part, records in prepared.parts.items()}
    dropped, steps = dict(prepared.preparation.dropped), prepared.records.transformations
    if policy.answer_noise and policy.name != "internal":  # exact counts read private units
        parts, dropped = {}, {}
        steps = tuple(
            dataclasses.replace(t, detail="" if t.effect == "changes" else t.detail, before=0, after=0, changed=0)
            for t in steps
        )
    about = {
        "data": {
            "name": prepared.loaded.name,
            "declaration": prepared.loaded.declaration,
            "licence": prepared.loaded.licence,
            "unit": prepared.records.unit_name,
            "records_per_user": prepared.records_per_user,
            "records": parts,
            "dropped": dropped,
            "as_of": spec.as_of,
            "transformations": [{k: v for k, v in dataclasses.asdict(t).items() if k != "frozen"} for t in steps],
        },
        "policy": vars(policy),
        "sampler": sampler,
        "marks": marks_of(prepared),
        "declared": declared(prepared),
        "declare": dict(spec.declare),
        "gates": "judged" if spec.gates else NO_GATE,
        "engine": prepared.engine,
        "threat_model": "black-box access to losses; holds all records of the pool and trains reference shadows of the same "
        "configuration on halves of it; queries masked at the trial's level",
        "seconds": max(seconds, sum(sum(t.seconds.values()) for t in (*trials, *([reference] if reference else [])))),
        "peak_memory_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "machine": {
            "python": platform.python_version(),
            "threads": torch.get_num_threads(),
            "settings": dataclasses.replace(
                spec.machine, precision="bf16-mixed" if prepared.base.low_precision else "32-true"
            ).to_json(),
        },
        "versions": {p: version(p) for p in ("torch", "optuna", "opacus", "lightning", "transformers")},
    }
    return StudyResult(
        name=name,
        spec=spec.to_json(),
        trials=trials,
        reference=reference,
        limits={"max_risk": spec.max_risk, "max_penalty": spec.max_penalty},
        cost=cost,
        about=about,
    )
