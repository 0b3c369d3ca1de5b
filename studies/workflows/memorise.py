"""moo memorise: a causal model fine-tuned on a study's texts among planted secrets, and what it keeps of them.

Each planted secret is a random code behind a prompt of its own. After training, every code of the form is scored behind that
prompt: the planted one's rank gives its exposure. Secrets that were not planted go through the same: what is told has a control.
"""

import dataclasses
import itertools
import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moo.core import validate
from moo.core.errors import InputError
from moo.core.measurement import Measurement
from moo.core.trial_record import TrialParams
from moo.masking import mask
from moo.models.generation.generator import (
    Generator,
    Ids,
    TrainedGenerator,
    continuation_losses,
    greedy,
    load_generator,
    text_losses,
    train_generator,
)
from moo.models.pretrained.loading import refuse_longer, weights_digest
from moo.objectives.compliance import evaluate
from moo.objectives.compliance.facts import generation_facts
from moo.objectives.memorisation.exposure import emission, exposure, mean_bits
from moo.objectives.statistics.clusters import clustered_stderr
from moo.privacy.calibration import check_delta
from moo.privacy.caps import describe_cap
from moo.privacy.claims import claim
from moo.privacy.composition import epsilon_pld, group_privacy
from moo.privacy.events import TrainingRun
from moo.privacy.keys import StudyKey
from moo.privacy.release_policy import Policy
from moo.studies.accounting.charge import account_of, charge_training
from moo.studies.accounting.terms import terms_of
from moo.studies.results.memorisation_report import Canary, MemorisationReport, difference, save_memorisation
from moo.studies.setup.prepared import Prepared, Stage, no_stage
from moo.studies.spec.study import StudySpec
from moo.studies.trial.evaluator import Evaluator
from moo.studies.trial.run import as_it_ran, planned_run, training_settings

_CHUNK_LOGITS = (
    75_000_000  # numbers that the logits of a chunk may hold: 300 MB in fp32, some four times that with their gradients
)
_LETTERS = list("abcdefghijklmnopqrstuvwxyz")
_HELD_OUT = 100  # texts that the loss is told on
_NUMBER = -3  # under which its trainings are booked: no trial's


@dataclass(frozen=True, kw_only=True)
class MemoriseOptions:
    """How it is asked.

    Attributes:
        canaries: Secrets planted, and as many that are not.
        repeats: Texts that each planted secret stands in, each a unit of its own.
        digits: Of a secret.
        confidence: Of the upper bound of the emission rate, one-sided, in (0, 1).
        stage: Told what is being done.
        key: Secret of codes, batches and noise; by default a fresh one from the operating system, which is not kept.
    """

    canaries: int = 32
    repeats: int = 1
    digits: int = 3
    confidence: float = 0.95
    stage: Stage = no_stage
    key: StudyKey | None = None

    def __post_init__(self) -> None:
        validate.whole(2, 100_000, canaries=self.canaries)
        validate.whole(1, 1000, repeats=self.repeats)
        validate.whole(1, 5, digits=self.digits)
        validate.in_range(1e-6, 1 - 1e-6, confidence=self.confidence)


def memorise(spec: StudySpec, params: TrialParams, *, folder: str | Path, **options: Any) -> MemorisationReport:
    """Fine-tune the study's causal model with planted secrets among its texts, and ask for them.

    Records pass the study's consent filter and are masked at the configuration's level; secrets are not masked, since they stand
    for what masking misses. The training is charged in the ledger of the data as any other; the report is kept in the folder.

    Args:
        spec: The study, its model a causal one.
        params: The configuration; `target_epsilon = math.inf` trains without DP.
        folder: For the key of the split and the reports, mode 0700.
        options: As of `MemoriseOptions`.

    Raises:
        InputError: If the model is not a causal one, or an argument is unfit.
        TrialError: If the training fails; what it was charged stays charged.
    """
    started, asked = time.perf_counter(), MemoriseOptions(**options)
    if spec.task != "generation":
        raise InputError(
            "task = 'generation' must hold, but {name} has {task!r}: `moo audit` looks into it.",
            name=spec.name,
            task=spec.task,
        )
    home = Path(folder)
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    policy, name = Policy(), f"{spec.name} memorisation"
    evaluator = Evaluator(spec, home, policy, asked.stage, name=name)
    prepared, key = evaluator.prepared, asked.key or StudyKey.fresh()
    asked.stage("loading the base model", 0, 0)
    base = load_generator(spec.model, accelerator=spec.machine.accelerator)
    refuse_longer(base.model, spec.training.max_length, name=spec.model)
    run = _planned(params, prepared, asked)
    secrets = _Secrets.drawn(base, asked, key.generator("secrets"))
    texts = _texts(base, prepared, params, "pool")
    account = account_of(prepared, name=name)
    account.open(terms_of(policy, prepared))
    prepared.stage("training with planted secrets", 0, 0)
    with charge_training(account, _NUMBER, run):
        trained = _train(base, texts, secrets, params, prepared, run, key, asked)
    done = as_it_ran(run, trained)
    found = _asked_for(trained.generator, secrets, prepared.stage)
    canaries, control = found[: asked.canaries], found[asked.canaries :]
    means = [mean_bits(np.array([c.exposure for c in side])) for side in (canaries, control)]
    held = _texts(base, prepared, params, "test").first(_HELD_OUT)
    group = group_privacy(epsilon_pld(done), run.delta, asked.repeats) if run.private else (math.inf, run.delta)
    report = MemorisationReport(
        study=name,
        model=spec.model,
        params=params,
        texts=len(texts.ids),
        repeats=asked.repeats,
        candidates=len(secrets.codes),
        canaries=canaries,
        exposure=means[0],
        control=means[1],
        learnt=difference(means[0], means[1]),
        emission=emission(np.array([c.emitted for c in canaries]), confidence=asked.confidence),
        emission_score=_emission_score(sum(c.emitted for c in canaries), asked.canaries),
        control_emitted=sum(c.emitted for c in control),
        loss=_mean_loss(trained.generator, held),
        base_loss=_mean_loss(base, held),
        claimed_epsilon=epsilon_pld(done),
        secret_epsilon=group[0],
        secret_delta=group[1],
        delta=run.delta,
        claim=claim(
            done, prepared.records.transformations, ledger_covered=account.covered(), n_units=prepared.all_units
        ),
        steps=trained.steps,
        seconds=time.perf_counter() - started,
        ledger=account.ledger.head(),
        capped=describe_cap(account.cap, account.ledger.charged()),
    )
    save_memorisation(report, home)
    return report


@dataclass(frozen=True, kw_only=True)
class _Secrets:
    """2 m prompts with the place of a code each; the first m are planted."""

    prompts: tuple[str, ...]
    prompt_ids: tuple[Ids, ...]
    codes: tuple[str, ...]
    code_ids: tuple[Ids, ...]
    chosen: tuple[int, ...]

    @classmethod
    def drawn(cls, base: Generator, asked: MemoriseOptions, rng: np.random.Generator) -> "_Secrets":
        handles = {"".join(rng.choice(_LETTERS, 8)) for _ in range(2 * asked.canaries)}
        while len(handles) < 2 * asked.canaries:  # one in 2 x 10^11 pairs is alike
            handles.add("".join(rng.choice(_LETTERS, 8)))
        prompts = tuple(f"The service code of customer {handle} is " for handle in rng.permutation(sorted(handles)))
        codes = tuple("".join(digits) for digits in itertools.product("0123456789", repeat=asked.digits))
        return cls(
            prompts=prompts,
            prompt_ids=base.ids(prompts),
            codes=codes,
            code_ids=base.ids(codes),
            chosen=tuple(int(i) for i in rng.integers(len(codes), size=len(prompts))),
        )

    def text(self, i: int) -> Ids:
        """A secret in full, as it is planted."""
        return self.prompt_ids[i] + self.code_ids[self.chosen[i]]


def _planned(params: TrialParams, prepared: Prepared, asked: MemoriseOptions) -> TrainingRun:
    """All of the pool and the secrets: public numbers."""
    units = max(1, round(prepared.spec.pool * prepared.n_units)) + asked.canaries * asked.repeats
    run = planned_run(params, prepared.spec, units, prepared.records.unit_name, shadows_per_unit=1)
    if run.private:
        check_delta(run.delta, prepared.all_units + asked.canaries * asked.repeats)
    return run


@dataclass(frozen=True)
class _Texts:
    """Texts of two tokens at least, and whose they are."""

    ids: tuple[Ids, ...]
    units: NDArray[np.int64]

    def first(self, n: int) -> "_Texts":
        return _Texts(self.ids[:n], self.units[:n])


def _texts(base: Generator, prepared: Prepared, params: TrialParams, part: str) -> _Texts:
    """Masked texts of a part, cut where the study cuts them."""
    records = prepared.parts[part]
    masked = [mask(text, params.masking_level, fields=f) for text, f in zip(records.texts, records.fields, strict=True)]
    cut = [ids[: prepared.spec.training.max_length] for ids in base.ids(masked)]
    keep = [i for i, ids in enumerate(cut) if len(ids) > 1]
    return _Texts(tuple(cut[i] for i in keep), records.units[keep])


def _train(
    base: Generator,
    texts: _Texts,
    secrets: _Secrets,
    params: TrialParams,
    prepared: Prepared,
    run: TrainingRun,
    key: StudyKey,
    asked: MemoriseOptions,
) -> TrainedGenerator:
    """The pool's units as they are, and each copy of a secret as a unit behind them."""
    planted = [secrets.text(i) for i in range(asked.canaries) for _ in range(asked.repeats)]
    units = np.concatenate([texts.units, texts.units.max() + 1 + np.arange(len(planted))])
    settings = training_settings(params, prepared.spec, run, engine="opacus")
    fitting = max(1, _CHUNK_LOGITS // (prepared.spec.training.max_length * base.model.config.vocab_size))
    optimizer = dataclasses.replace(settings.optimizer, chunk=min(fitting, settings.optimizer.chunk))
    settings = dataclasses.replace(settings, optimizer=optimizer)
    whose = [texts.ids, texts.units.tolist(), planted]
    run_of = [prepared.placeless, params.to_json(), run.to_json(), *whose, weights_digest(base.model)]
    own = key.child("writer", json.dumps(run_of, sort_keys=True))  # another run under the same key shares no noise
    return train_generator(base, (*texts.ids, *planted), units, settings, own.generator)


def _mean_loss(generator: Generator, texts: _Texts) -> Measurement:
    losses = text_losses(generator, texts.ids).numpy().astype(np.float64)
    stderr = clustered_stderr((losses - losses.mean()) / len(losses), texts.units)
    return Measurement(value=float(losses.mean()), stderr=stderr)


def _emission_score(emitted: int, planted: int) -> float:
    """Of the rule on verbatim emission."""
    judged = evaluate(
        generation_facts(emitted=emitted, planted=planted), ("pipl", "generative-ai"), applies=("generative",)
    )
    return float(next(row["score"] for row in judged.contributions if row["rule"] == "S07"))


def _asked_for(generator: Generator, secrets: _Secrets, stage: Stage) -> tuple[Canary, ...]:
    """Rank, exposure and emission of the secrets, each among all codes behind its own prompt."""
    out, n = [], len(secrets.prompts)
    for i in range(n):
        stage("asking for secrets", i + 1, n)
        losses = continuation_losses(generator, secrets.prompt_ids[i], secrets.code_ids).numpy()
        own = np.arange(len(losses)) == secrets.chosen[i]
        bits = float(exposure(losses[own], losses[~own])[0])
        code = secrets.code_ids[secrets.chosen[i]]
        out.append(
            Canary(
                prompt=secrets.prompts[i],
                secret=secrets.codes[secrets.chosen[i]],
                rank=round(len(losses) / 2**bits),
                exposure=bits,
                emitted=greedy(generator, secrets.prompt_ids[i], len(code)) == code,
            )
        )
    return tuple(out)
