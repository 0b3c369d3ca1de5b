"""Memorisation test: a causal model fine-tuned on a study's texts among planted secrets, and their exposure.

Each planted secret is a random code behind its prompt. After training, every code of the form is scored behind that
prompt: the rank of the planted one gives its exposure. Secrets that were not planted are scored alike, as a control.
"""

import dataclasses
import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moo.core.errors import InputError
from moo.core.measurement import Measurement
from moo.core.trial_record import TrialParams
from moo.masking import mask
from moo.models.generation.generator import (
    Generator,
    Ids,
    TrainedGenerator,
    load_generator,
    train_generator,
)
from moo.models.generation.scoring import text_losses
from moo.models.pretrained.loading import refuse_longer, weights_digest
from moo.objectives.compliance import evaluate
from moo.objectives.compliance.facts import generation_facts
from moo.objectives.memorisation.exposure import emission, mean_bits
from moo.objectives.statistics.clusters import clustered_stderr
from moo.privacy.calibration import check_delta
from moo.privacy.caps import describe_cap
from moo.privacy.composition import epsilon_pld, group_privacy
from moo.privacy.events import TrainingRun
from moo.privacy.keys import StudyKey
from moo.privacy.release_policy import Policy
from moo.studies.accounting.account import Account
from moo.studies.accounting.charge import account_of, charge_training
from moo.studies.accounting.terms import terms_of
from moo.studies.results.memorisation_report import MemorisationReport, difference, save_memorisation
from moo.studies.setup.prepared import PreparedStudy
from moo.studies.setup.trial_streams import without_places
from moo.studies.spec.study import StudySpec
from moo.studies.trial.evaluator import Evaluator
from moo.studies.trial.plan import observed_run, planned_run, training_settings
from moo.studies.workflows.planted_secrets import MemoriseOptions, Secrets, score_secrets

# numbers in the logits of a chunk: 300 MB in fp32, some four times that with their gradients
_CHUNK_LOGITS = 75_000_000
# held-out texts that the loss is measured on
_HELD_OUT = 100
# trial number of these trainings in the ledger; no trial has it
_NUMBER = -3


def memorise(spec: StudySpec, params: TrialParams, *, folder: str | Path, **options: Any) -> MemorisationReport:
    """Fine-tune the study's causal model with planted secrets among its texts, and measure their exposure.

    Records pass the study's consent filter and are masked at the configuration's level; secrets are not
    masked, since they stand for what masking misses. The training is charged in the ledger of the data
    like any other; the report is kept in the folder.

    Args:
        spec: Specification of the study; its model is a causal one.
        params: Configuration; `target_epsilon = math.inf` trains without DP.
        folder: Folder of the split's key and of the reports, mode 0700.
        options: Fields of `MemoriseOptions`.

    Raises:
        InputError: If the model is not a causal one, or an argument is unfit.
        TrialError: If the training fails; what it was charged stays charged.
    """
    started, chosen = time.perf_counter(), MemoriseOptions(**options)
    if spec.task != "generation":
        raise InputError(
            "task must be 'generation', got {task!r} of {name}; use `moo audit` for it.", task=spec.task, name=spec.name
        )
    home = Path(folder)
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    policy, name = Policy(), f"{spec.name} memorisation"
    prepared = Evaluator(spec, home, policy, chosen.stage, name=name).prepared
    chosen.stage("loading the base model", 0, 0)
    base = load_generator(spec.model, accelerator=spec.machine.accelerator)
    refuse_longer(base.model, spec.training.max_length, name=spec.model)
    run = _planned_run(params, prepared, chosen)
    key = chosen.key or StudyKey.fresh()
    test = _Test(
        name=name,
        options=chosen,
        params=params,
        prepared=prepared,
        base=base,
        texts=_texts(base, prepared, params, "pool"),
        secrets=Secrets.drawn(base, chosen, key.generator("secrets")),
        run=run,
    )
    account = account_of(prepared, name=name)
    account.open(terms_of(policy, prepared))
    prepared.stage("training with planted secrets", 0, 0)
    with charge_training(account, _NUMBER, run):
        trained = _train(test, key)
    report = _report(test, trained, account, started=started)
    save_memorisation(report, home)
    return report


def _planned_run(params: TrialParams, prepared: PreparedStudy, options: MemoriseOptions) -> TrainingRun:
    """Return the training of the whole pool and the secrets; its sizes are public numbers."""
    units = max(1, round(prepared.spec.pool * prepared.data.n_units)) + options.canaries * options.repeats
    run = planned_run(params, prepared.spec, units, prepared.data.unit, shadows_per_unit=1)
    if run.private:
        check_delta(run.delta, prepared.data.all_units + options.canaries * options.repeats)
    return run


@dataclass(frozen=True)
class _Texts:
    """Texts of two tokens or more, and the unit of each."""

    ids: tuple[Ids, ...]
    units: NDArray[np.int64]

    def first(self, n: int) -> "_Texts":
        return _Texts(self.ids[:n], self.units[:n])


def _texts(base: Generator, prepared: PreparedStudy, params: TrialParams, part: str) -> _Texts:
    """Return the masked texts of a part, cut to the study's length."""
    records = prepared.data.parts[part]
    masked = [mask(text, params.masking_level, fields=f) for text, f in zip(records.texts, records.fields, strict=True)]
    cut = [ids[: prepared.spec.training.max_length] for ids in base.ids(masked)]
    keep = [i for i, ids in enumerate(cut) if len(ids) > 1]
    return _Texts(tuple(cut[i] for i in keep), records.units[keep])


@dataclass(frozen=True, kw_only=True)
class _Test:
    """Inputs of one training with planted secrets.

    Attributes:
        name: Name of the study in the ledger.
        options: Options of the test.
        params: Configuration.
        prepared: Data of the study.
        base: Model before the training.
        texts: Texts of the pool.
        secrets: Secrets, planted and not.
        run: Planned training.
    """

    name: str
    options: MemoriseOptions
    params: TrialParams
    prepared: PreparedStudy
    base: Generator
    texts: _Texts
    secrets: Secrets
    run: TrainingRun


def _train(test: _Test, key: StudyKey) -> TrainedGenerator:
    """Train on the pool's units, followed by each copy of a secret as a unit."""
    texts, prepared, options = test.texts, test.prepared, test.options
    planted = [test.secrets.text(i) for i in range(options.canaries) for _ in range(options.repeats)]
    units = np.concatenate([texts.units, texts.units.max() + 1 + np.arange(len(planted))])
    settings = training_settings(test.params, prepared.spec, test.run, engine="opacus")
    fitting = max(1, _CHUNK_LOGITS // (prepared.spec.training.max_length * test.base.model.config.vocab_size))
    optimizer = dataclasses.replace(settings.optimizer, chunk=min(fitting, settings.optimizer.chunk))
    settings = dataclasses.replace(settings, optimizer=optimizer)
    read = [texts.ids, texts.units.tolist(), planted, weights_digest(test.base.model)]
    identity = [without_places(prepared.spec), test.params.to_json(), test.run.to_json(), *read]
    # another run under the same key shares no noise
    streams = key.child("writer", json.dumps(identity, sort_keys=True))
    return train_generator(test.base, (*texts.ids, *planted), units, settings, streams.generator)


def _report(test: _Test, trained: TrainedGenerator, account: Account, *, started: float) -> MemorisationReport:
    """Score all secrets on the trained model, and report exposure, emission, losses and the claim.

    Args:
        test: Inputs of the training.
        trained: Trained model.
        account: Account that was charged.
        started: Start of the test, in seconds of `time.perf_counter`.
    """
    options, prepared, run = test.options, test.prepared, test.run
    done = observed_run(run, trained)
    scored = score_secrets(trained.generator, test.secrets, prepared.stage)
    canaries, control = scored[: options.canaries], scored[options.canaries :]
    means = [mean_bits(np.array([c.exposure for c in side])) for side in (canaries, control)]
    held = _texts(test.base, prepared, test.params, "test").first(_HELD_OUT)
    group = group_privacy(epsilon_pld(done), run.delta, options.repeats) if run.private else (math.inf, run.delta)
    return MemorisationReport(
        study=test.name,
        model=prepared.spec.model,
        params=test.params,
        texts=len(test.texts.ids),
        repeats=options.repeats,
        candidates=len(test.secrets.codes),
        canaries=canaries,
        exposure=means[0],
        control=means[1],
        learnt=difference(means[0], means[1]),
        emission=emission(np.array([c.emitted for c in canaries]), confidence=options.confidence),
        emission_score=_emission_score(sum(c.emitted for c in canaries), options.canaries),
        control_emitted=sum(c.emitted for c in control),
        loss=_mean_loss(trained.generator, held),
        base_loss=_mean_loss(test.base, held),
        claimed_epsilon=epsilon_pld(done),
        secret_epsilon=group[0],
        secret_delta=group[1],
        delta=run.delta,
        claim=prepared.data.claim(done, account.covered()),
        steps=trained.steps,
        seconds=time.perf_counter() - started,
        ledger=account.ledger.head(),
        capped=describe_cap(account.cap, account.ledger.charged()),
    )


def _mean_loss(generator: Generator, texts: _Texts) -> Measurement:
    losses = text_losses(generator, texts.ids).numpy().astype(np.float64)
    stderr = clustered_stderr((losses - losses.mean()) / len(losses), texts.units)
    return Measurement(value=float(losses.mean()), stderr=stderr)


def _emission_score(emitted: int, planted: int) -> float:
    """Return the score of rule S07, on verbatim emission."""
    judged = evaluate(
        generation_facts(emitted=emitted, planted=planted), ("pipl", "generative-ai"), applies=("generative",)
    )
    return float(next(row["score"] for row in judged.contributions if row["rule"] == "S07"))
