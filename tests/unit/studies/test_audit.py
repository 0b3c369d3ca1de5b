"""moo audit on both real engines: planted bugs are caught, the clean run passes, all is charged."""

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from opacus.optimizers import DPOptimizer
from scipy.stats import binom

from moo.core.errors import InputError, PolicyError, TrialError
from moo.core.trial_record import TrialParams
from moo.models.bank import lightning_module
from moo.models.dp.clipping import clip_and_sum
from moo.models.dp.optimizer import BankOptimizer
from moo.models.dp.poisson_sampling import PoissonBatches
from moo.models.reference.optimizer import ReferenceOptimizer
from moo.models.training.canaries import DIRAC_SIZE, Canaries, canary_scores, plant
from moo.models.training.settings import TrainingData
from moo.models.trunk.packed import Packed
from moo.privacy.keys import StudyKey
from moo.privacy.ledger import read_entries
from moo.studies.accounting.account import ledger_path
from moo.studies.spec.study import StudySpec
from moo.studies.workflows import audit
from moo.studies.workflows.audit import AuditReport, audit_configuration, audit_trial
from tests.fixtures.letters import letters_spec

ENGINES = ("bank", "opacus")
HEAD = TrialParams(target_epsilon=1.0, masking_level=0, lora_rank=2, learning_rate=1e-3, adapted_layers=0)


@pytest.fixture(scope="module")
def spec(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> StudySpec:
    return letters_spec(tmp_path_factory.mktemp("audited"), tiny_folder, n=240)


def split_by_a_known_key(folder: Path) -> None:
    folder.mkdir(mode=0o700, exist_ok=True)
    (folder / "study.key").write_text("11" * 32 + "\n")
    (folder / "study.key").chmod(0o600)


@pytest.fixture(scope="module")
def run(spec: StudySpec, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., AuditReport]:
    """One folder a module, so that the trunk is run once.

    Keys that are known, so that the numbers are the same every time.
    """
    home = tmp_path_factory.mktemp("folder")
    for engine in ENGINES:
        split_by_a_known_key(home / engine)

    def audited(engine: str, params: TrialParams = HEAD, *, seed: int = 0, **options: Any) -> AuditReport:
        chosen = dataclasses.replace(spec, training=dataclasses.replace(spec.training, engine=engine))
        options = {"canaries": 300, "key": StudyKey(bytes([seed]) * 32), **options}
        return audit_configuration(chosen, params, folder=home / engine, **options)

    return audited


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("depth", [0, 1, 2])
def test_the_clean_engine_passes(run: Callable[..., AuditReport], engine: str, depth: int) -> None:
    report = run(engine, dataclasses.replace(HEAD, adapted_layers=depth))
    assert report.alarms == ()
    assert report.claim == "holds"
    assert report.engine == engine
    assert report.p_value > 0.05
    assert report.epsilon_low < report.claimed_epsilon <= 1.0


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_a_loose_claim_is_neither_refuted_nor_audited_to_nothing(run: Callable[..., AuditReport], engine: str) -> None:
    """At epsilon 8 the white-box bound, over several keys, stays below the claim and is worth a quarter of it."""
    lows = []
    for seed in range(4):
        report = run(engine, dataclasses.replace(HEAD, target_epsilon=8.0), seed=seed, canaries=800)
        assert report.alarms == ()
        assert report.epsilon_low >= report.epsilon_low_dp
        lows.append(report.epsilon_low)
    assert np.mean(lows) > 2.0


def no_noise(patch: pytest.MonkeyPatch) -> None:
    """Steps that were not noisy."""

    def bank(self: Any) -> None:
        for p in self.params:
            p.grad = p.summed_grad

    def reference(self: Any) -> None:
        for p in self.params:
            p.grad = p.summed_grad.view_as(p)

    patch.setattr(BankOptimizer, "add_noise", bank)
    patch.setattr(ReferenceOptimizer, "add_noise", reference)


def no_clipping(patch: pytest.MonkeyPatch) -> None:
    def reference(self: Any) -> None:
        for p in self.params:
            total = p.grad_sample.sum(0)
            p.summed_grad = total if p.summed_grad is None else p.summed_grad + total
            p.grad_sample._processed = True

    patch.setattr(
        lightning_module,
        "clip_and_sum",
        lambda f, *, max_grad_norm, present: clip_and_sum(f, max_grad_norm=math.inf, present=present),  # noqa: ARG005
    )
    patch.setattr(DPOptimizer, "clip_and_accumulate", reference)


def less_noise(patch: pytest.MonkeyPatch) -> None:
    """Noise of a tenth: as if it were scaled by the step and not by the clip."""
    for optimizer in (BankOptimizer, ReferenceOptimizer):
        add = optimizer.__init__

        def quieter(self: Any, *arguments: Any, add: Any = add) -> None:
            add(self, *arguments)
            noise = self._noise
            self._noise = lambda *a: 0.1 * noise(*a)

        patch.setattr(optimizer, "__init__", quieter)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("depth", [0, 1])
@pytest.mark.parametrize("bug", [no_noise, no_clipping, less_noise])
def test_a_planted_bug_that_claims_epsilon_one_is_caught(
    run: Callable[..., AuditReport], monkeypatch: pytest.MonkeyPatch, engine: str, depth: int, bug: Any
) -> None:
    bug(monkeypatch)
    report = run(engine, dataclasses.replace(HEAD, adapted_layers=depth))
    assert (report.claim == "holds") == (bug is no_clipping)  # which no look at noise and batches shows
    assert report.epsilon_low > 2 * report.claimed_epsilon
    assert report.p_value < 1e-3
    assert "epsilon is at least" in report.alarms[0]


@pytest.mark.parametrize("engine", ENGINES)
def test_batches_of_a_fixed_size_are_caught_by_their_structure(
    run: Callable[..., AuditReport], monkeypatch: pytest.MonkeyPatch, engine: str
) -> None:
    """Guesses at canaries do not see it: shuffled batches of half the units leak about as Poisson batches do."""

    def shuffled(self: PoissonBatches, shadow: int) -> NDArray[np.int64]:
        half = self._halves[shadow]
        return self._generators[shadow].permutation(half)[: len(half) // 2]

    monkeypatch.setattr(PoissonBatches, "_chosen", shuffled)
    report = run(engine)
    assert report.epsilon_low <= report.claimed_epsilon
    assert report.alarms == ("batches do not look drawn by Poisson sampling",)


@pytest.mark.parametrize("engine", ENGINES)
def test_without_dp_nothing_is_claimed_and_dirac_canaries_are_found(
    run: Callable[..., AuditReport], engine: str
) -> None:
    report = run(engine, dataclasses.replace(HEAD, target_epsilon=math.inf))
    assert report.alarms == ()
    assert math.isinf(report.claimed_epsilon)
    assert "without noise" in report.claim
    assert report.guessed[1].correct >= 0.97 * report.guessed[1].guesses  # 1 of 256 that are in is never sampled
    assert report.epsilon_low > report.epsilon_low_dp > 2
    assert json.loads(json.dumps(report.to_json()))["claimed_epsilon"] == "inf"


def text_options(folder: Path) -> dict[str, Any]:
    split_by_a_known_key(folder)
    return {"folder": folder, "kind": "text", "canaries": 80, "key": StudyKey(b"k" * 32)}


@pytest.mark.slow
def test_text_canaries_are_found_where_training_without_dp_learns_them_by_rote(spec: StudySpec, tmp_path: Path) -> None:
    """The black box: losses of texts under random labels."""
    training = dataclasses.replace(
        spec.training, steps=200, head_learning_rate=2.0, max_length=40, lora_targets="all_linear"
    )
    params = dataclasses.replace(HEAD, target_epsilon=math.inf, lora_rank=16, learning_rate=1e-2, adapted_layers=2)
    found = audit_configuration(dataclasses.replace(spec, training=training), params, **text_options(tmp_path))
    assert found.epsilon_low > found.epsilon_low_dp > 0.2


@pytest.mark.parametrize("engine", ENGINES)
def test_text_canaries_under_dp_give_nothing_away(spec: StudySpec, tmp_path: Path, engine: str) -> None:
    training = dataclasses.replace(spec.training, engine=engine, steps=20, max_length=40, lora_targets="all_linear")
    params = dataclasses.replace(HEAD, lora_rank=4, learning_rate=1e-2, adapted_layers=2, masking_level=1)
    report = audit_configuration(dataclasses.replace(spec, training=training), params, **text_options(tmp_path))
    assert report.alarms == ()
    coins = [binom.sf(g.correct - 1, g.guesses, 0.5) for g in report.guessed]
    assert min(coins) > 1e-6, report.guessed  # guesses no better than coins, but for one study in a million


def test_an_audit_is_reserved_before_it_trains_and_settled_after(
    spec: StudySpec, run: Callable[..., AuditReport], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = len(read_entries(ledger_path(spec.data)))
    report = run("bank")
    entries = read_entries(ledger_path(spec.data))[before:]
    assert [e.kind for e in entries if e.kind != "gate"] == ["reserve", "commit"]
    assert entries[-2].body["run"]["shadows_per_unit"] == 1
    assert report.ledger == f"{entries[-1].seq}:{entries[-1].hash}"

    def broken(*_: Any) -> None:
        raise TrialError("it broke", cause="broken")

    monkeypatch.setattr(audit, "train", broken)
    with pytest.raises(TrialError):
        run("bank")
    last = read_entries(ledger_path(spec.data))[-1]
    assert (last.kind, last.body["steps"]) == ("abort", spec.training.steps)


def test_too_few_canaries_are_refused_before_anything_is_spent(
    run: Callable[..., AuditReport], spec: StudySpec
) -> None:
    before = len(read_entries(ledger_path(spec.data)))
    with pytest.raises(InputError, match=r"canaries must be about \d+ or more to refute epsilon"):
        run("bank", canaries=4)
    for options, message in (
        ({"canaries": 1}, "canaries"),
        ({"kind": "gold"}, "kind"),
        ({"confidence": 1.0}, "confidence"),
        ({"confidence": math.nan}, "confidence"),
    ):
        with pytest.raises(InputError, match=message):
            run("bank", **options)
    assert len(read_entries(ledger_path(spec.data))) == before


def planted(kind: Any, *, m: int = 3, n: int = 4) -> tuple[TrainingData, Canaries]:
    packed = [
        Packed(features=torch.ones(k, 2), tokens=torch.ones(2 * k, 2), offsets=torch.arange(0, 2 * k + 1, 2))
        for k in (n, m)
    ]
    data = TrainingData(
        packed=packed[0],
        labels=np.array([0, 1, 0, 1]),
        units=np.array([0, 0, 1, 2]),
        members=np.ones((2, n), bool),
        n_classes=2,
    )
    included = np.array([True, False, True])
    return data, Canaries(packed=packed[1], classes=np.array([0, 1, 1]), included=included, kind=kind)


def test_planted_canaries_are_units_of_their_own_and_dirac_ones_have_a_column_to_themselves() -> None:
    data, canaries = planted("dirac")
    out = plant(data, canaries)
    assert out.units.tolist() == [0, 0, 1, 2, 3, 4, 5]
    assert out.members.tolist() == [[True] * 4 + [True, False, True]] * 2
    assert out.labels.tolist() == [0, 1, 0, 1, -1, -2, -2]
    assert torch.equal(out.packed.features[4:, 2:], DIRAC_SIZE * torch.eye(3))
    assert not out.packed.features[:4, 2:].any()
    assert not out.packed.features[4:, :2].any()
    assert out.packed.offsets.tolist() == list(range(0, 15, 2))
    text = plant(*planted("text"))
    assert text.labels.tolist() == [0, 1, 0, 1, 0, 1, 1]
    assert text.packed.features.shape == (7, 2)


def test_scores_are_minus_the_loss_or_the_logit_above_the_mean() -> None:
    told = np.log(np.array([[0.5, 0.5], [0.9, 0.1], [0.2, 0.8], [0.4, 0.6]]))
    _, text = planted("text")
    assert canary_scores(told, text) == pytest.approx(np.log([0.9, 0.8, 0.6]))
    _, dirac = planted("dirac")
    assert canary_scores(told, dirac) == pytest.approx(np.log([0.9 / 0.1, 0.8 / 0.2, 0.6 / 0.4]) / 2)
    with pytest.raises(InputError, match="canaries"):
        Canaries(packed=text.packed, classes=np.array([0]), included=text.included, kind="text")


def test_a_trial_that_does_not_exist_or_a_policy_without_room_is_refused(
    spec: StudySpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match=r"front\.json"):
        audit_trial(tmp_path, 0)
    with pytest.raises(PolicyError, match="select_one"):
        audit._evaluator(spec, tmp_path, audit.Policy.parse("select_one"), "x")
    (tmp_path / "study").mkdir()
    monkeypatch.setattr(audit.Account, "reserve", lambda *_, **__: {-2: "spent"})
    evaluator = audit._evaluator(spec, tmp_path / "study", audit.Policy.parse("publish_all=1"), "x")
    with pytest.raises(PolicyError, match="budget must admit"):
        audit._audit(evaluator, HEAD, trial=None, canaries=300)
