"""Retraining of chosen settings on the users that the search never read: proxy_then_retrain(m)."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from moo.core import validate
from moo.core.atomic_files import write_whole
from moo.core.errors import InputError, PolicyError, StorageError
from moo.core.measurement import number_out
from moo.core.messages import Message
from moo.core.trial_record import STATUS_QUO_TRIAL, TrialRecord
from moo.masking.preprocessing_card import save_preprocessing
from moo.models.bank.files import save_bank
from moo.models.export.peft import export_peft, has_peft_form
from moo.models.export.reference import export_reference, peft_model, save_reference
from moo.models.reference.shadows import ReferenceShadows
from moo.models.train import Trained, TrainingData, train
from moo.privacy.caps import describe_cap
from moo.privacy.composed_epsilon import ComposedEpsilon, compose
from moo.privacy.composition import epsilon_of_all, epsilon_pld
from moo.privacy.events import Event, TrainingRun
from moo.privacy.keys import StudyKey
from moo.privacy.ledger import PREPARATION, charged
from moo.privacy.release_policy import Policy
from moo.search import FAILED
from moo.studies.accounting.account import Account
from moo.studies.accounting.charge import account_of, charge_training
from moo.studies.accounting.cost import plan_retraining
from moo.studies.accounting.terms import known_terms
from moo.studies.results.result import StudyResult, load_result
from moo.studies.search.folder_lock import locked_folder
from moo.studies.setup.legal_gates import NO_GATE
from moo.studies.setup.prepared import PreparedStudy
from moo.studies.setup.records_per_user import per_user
from moo.studies.setup.reopen import reopen_study
from moo.studies.setup.study_data import Stage, no_stage
from moo.studies.trial.judge import CONSTRAINTS
from moo.studies.trial.plan import TrialPlan, observed_run


def retrain(folder: str | Path, trials: Sequence[int], *, to: str | Path, stage: Stage = no_stage) -> list[Path]:
    """Train settings of a finished study on its release users, and write one folder a trial for release.

    All settings are named in one call: they are then fixed by the search alone, which never read the
    release users, and their joint cost is a plain composition. Each is trained once; the same call after
    a crash trains the missing ones. Noise and batches draw from the operating system; no key is kept.

    Args:
        folder: Folder of the study, under the policy proxy_then_retrain(m).
        trials: Numbers of complete trials, at most m.
        to: Target folder: trial-N/model.safetensors, trial-N/card.json, trial-N/preprocessing.json with a
            script that masks texts by it, and trial-N/peft if PEFT has a form for it.
        stage: Callback that hears of each stage.

    Returns:
        Folders of the models that this call trained.

    Raises:
        PolicyError: If the policy forbids it, there are more than m trials, or any were retrained before.
        InputError: If a trial does not exist or failed.
        TrialError: If a training fails; what it was charged stays charged.
    """
    given: object = trials
    if not isinstance(given, list | tuple | range):
        raise validate.argument_error("{name} must be a list of numbers", "trials", trials)
    for number in trials:
        validate.whole(0, 1_000_000, trials=number)
    home, target = Path(folder), Path(to)
    result = load_result(home)
    policy = Policy(**result.about.get("policy", {}))
    chosen = _chosen(result, policy, trials)
    with locked_folder(home):
        prepared = reopen_study(result, home, stage)
        plans = {t.number: plan_retraining(prepared, t.params) for t in chosen}
        account = account_of(prepared, name=result.name)
        account.open(known_terms(policy, prepared), begun=True)
        _fix_choice(account, sorted(plans))
        try:
            target.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(
                "The target must be writable, but {target} is not: {strerror}.", target=target, strerror=error.strerror
            ) from error
        missing = [t for t in chosen if t.number not in _released(account)]
        if not missing:
            raise _once(sorted(plans))
        return [_retrain(t, plans, prepared, account, policy, target) for t in missing]


def _released(account: Account) -> set[int]:
    return {e.body["trial"] for e in account.ledger.entries(account.study) if e.kind == "release"}


def _once(numbers: list[int]) -> PolicyError:
    return PolicyError(
        "A setting is retrained once, but {numbers} were retrained before; another model would cost its users as "
        "much again.",
        numbers=numbers,
    )


def _chosen(result: StudyResult, policy: Policy, trials: Sequence[int]) -> list[TrialRecord]:
    if policy.name != "proxy_then_retrain":
        raise PolicyError(
            "The policy must be proxy_then_retrain(m), chosen before the search, got {policy} of {name}: every user "
            "was searched on, so none is left for a released model.",
            name=result.name,
            policy=policy,
        )
    if not trials or len(set(trials)) != len(trials) or len(trials) > policy.retrain:
        raise PolicyError(
            "trials must be 1 to {retrain} different ones under {policy}, got {trials}.",
            retrain=policy.retrain,
            policy=policy,
            trials=list(trials),
        )
    known = {t.number: t for t in result.complete}
    for number in trials:
        if number == STATUS_QUO_TRIAL or number not in known:
            raise InputError(
                "trials must be complete ones of {name}, {known}, got {number}.",
                name=result.name,
                known=sorted(known),
                number=number,
            )
        gates = [name for name in known[number].blocking if name not in (*CONSTRAINTS, FAILED)]
        if gates:
            raise PolicyError(
                "A released model's setting must meet every gate, but trial {number} breaks {gates}; see "
                "moo compliance check.",
                number=number,
                gates=", ".join(gates),
            )
    return [known[number] for number in trials]


def _fix_choice(account: Account, numbers: list[int]) -> None:
    """Record the choice before anything trains: a later choice could depend on the release users."""
    before = account.fix("retrain", numbers)
    if before != numbers:
        raise PolicyError(
            "All trials must be retrained in one call: {before} were chosen before, got {numbers}; start another study "
            "on other users for a further choice.",
            before=before,
            numbers=numbers,
        )


def _retrain(
    trial: TrialRecord,
    plans: Mapping[int, TrialPlan],
    prepared: PreparedStudy,
    account: Account,
    policy: Policy,
    target: Path,
) -> Path:
    plan = plans[trial.number]
    run = plan.run
    records, level = prepared.data.parts["release"], trial.params.masking_level
    masked = prepared.features.masked("release", level, trial.params)
    data = TrainingData(
        packed=masked.packed,
        labels=records.labels,
        units=records.units,
        members=np.ones((1, len(records)), dtype=bool),
        n_classes=len(records.classes),
    )
    prepared.stage(f"retraining trial {trial.number}", 0, 0)
    fresh = StudyKey.fresh()
    with charge_training(account, trial.number, run):
        trained = train(
            data,
            plan.settings,
            prepared.model.frozen(trial.params),
            lambda purpose, shadow: fresh.generator(purpose, shadow),
        )
    ran = observed_run(run, trained)
    out = target / f"trial-{trial.number:04d}"
    out.mkdir(exist_ok=True)
    if not account.release({"trial": trial.number, "model": "model.safetensors"}):  # before anyone can see the model
        raise _once([trial.number])
    _save(trained, prepared, trial, out)
    save_preprocessing(
        out,
        masking_level=level,
        max_length=prepared.spec.training.max_length,
        own_fields=tuple(sorted({kind for fields in records.fields for kind in fields})),
        ner=prepared.spec.ner,
    )
    entries = [
        e for e in account.ledger.entries(account.study) if e.kind == "reserve" and e.body["run"]["part"] == "release"
    ]
    begun = {e.body["trial"] for e in entries}
    trained_before = [e for e in account.events() if isinstance(e, TrainingRun) and e.part == "release"]
    following = [p.run for n, p in plans.items() if n not in begun]
    preparation = [e for e in account.preparation() if e.part == "release"]
    released: list[Event] = [*preparation, *trained_before, *following]
    together = epsilon_of_all(released, delta=run.delta)
    everything = compose([*released, *_of_other_studies(account)], delta=run.delta, disjoint=False)
    card = _card(trial, ran, prepared, together=together, everything=everything, account=account, policy=policy)
    write_whole(out / "card.json", json.dumps(card, ensure_ascii=False, indent=1) + "\n")
    return out


def _of_other_studies(account: Account) -> list[Event]:
    """Return the charges of other studies on the same data: their users may be this one's release users."""
    return charged([e for e in account.ledger.entries() if e.study not in (account.study, PREPARATION)])


def _save(trained: Trained, prepared: PreparedStudy, trial: TrialRecord, out: Path) -> None:
    """Write the parameters, and PEFT's format if it has a form for them."""
    frozen, classes = prepared.model.frozen(trial.params), prepared.data.parts["release"].classes
    stock = prepared.spec.training.head == "stock"
    if isinstance(trained.bank, ReferenceShadows):
        save_reference(trained.bank, out / "model.safetensors")
        if peft_model(trained.bank) is not None:
            export_reference(trained.bank, frozen, out / "peft", classes=classes, stock=stock)
        return
    save_bank(trained.bank, out / "model.safetensors")
    if has_peft_form(trained.bank, frozen):
        export_peft(trained.bank, frozen, out / "peft", classes=classes)


def _card(
    trial: TrialRecord,
    run: TrainingRun,
    prepared: PreparedStudy,
    *,
    together: float,
    everything: ComposedEpsilon,
    account: Account,
    policy: Policy,
) -> dict[str, Any]:
    """Return the model's card for its recipient; it holds numbers of the search only if they carry noise."""
    measured = {name: m.to_json() for name, m in trial.objectives.items()}
    whole = per_user(epsilon_pld(run), run.delta, prepared.data.records_per_user)
    return {
        "base_model": prepared.spec.model,
        "made": datetime.now(UTC).date().isoformat(),
        "classes": list(prepared.data.parts["release"].classes),
        "params": trial.params.to_json(),
        "preprocessing": {"masking_level": trial.params.masking_level, "max_length": prepared.spec.training.max_length},
        "unit_of_privacy": run.unit,
        "epsilon": epsilon_pld(run),
        "epsilon_of_all_retrained": together,
        "epsilon_with_other_studies": everything.to_json(),
        "delta": run.delta,
        "noise_multiplier": run.noise_multiplier,
        "accountant": "calibrated by PLD, add or remove one",
        "records_per_user": prepared.data.records_per_user,
        "per_user": None if whole is None else dict(zip(("epsilon", "delta"), map(number_out, whole), strict=True)),
        "claim": prepared.data.claim(run, account.covered()),
        "taken_as_public": [
            Message("{name}: {detail}", name=t.name, detail=t.detail)
            for t in prepared.data.records.transformations
            if t.effect == "takes_as_public"
        ],
        "policy": str(policy),
        "searched_on": "other users, of whom nothing is claimed",
        "measured_on_others": measured
        if policy.answer_noise
        else "stays inside: the search gave its numbers without noise",
        "cap": account.cap and account.cap.to_json(),
        "capped": describe_cap(account.cap, account.ledger.charged()),
        "ledger": account.ledger.head(),
        "gates": "judged" if prepared.spec.gates else NO_GATE,
        "declared_not_measured": dict(prepared.spec.declare),
        "limits": "floating-point Gaussian noise is not hardened; rules and numbers are evidence for a person to judge",
    }
