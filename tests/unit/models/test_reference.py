"""The Opacus engine and the bank on the same draws: one is the other's oracle."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import pytest
import torch

from moo.core.errors import InputError
from moo.models.bank.bank import Bank, BankConfig, Depth, Frozen
from moo.models.bank.lightning_module import OptimizerSettings, log_probs
from moo.models.dp.optimizer import DPSettings
from moo.models.pretrained.architectures import Cut, cut_of
from moo.models.pretrained.loading import BaseModel
from moo.models.reference.adapters import Classifier, adapter_spec, build_classifier
from moo.models.reference.lightning_module import ReferenceModule
from moo.models.reference.train import with_grad_sample_hooks
from moo.models.train import Trained, TrainingData, TrainingSettings, train
from moo.models.trunk.packed import Workspace
from tests.fixtures.trainings import K, N, data_at, in_bank, stream

WHOLE_BATCH = N


def trained_by(
    engine: Literal["bank", "opacus"], data: TrainingData, frozen: Frozen, depth: Depth, *, chunk: int = 5
) -> Trained:
    """Train without noise, in chunks of a few records."""
    settings = TrainingSettings(
        depth=depth,
        lora_rank=2,
        lora_alpha=4.0,
        sample_rate=0.5,
        steps=20,
        dp=DPSettings(noise_multiplier=0.0, max_grad_norm=0.2, expected_batch_size=9.0),
        optimizer=OptimizerSettings(learning_rate=1e-3, head_learning_rate=0.05, chunk=chunk),
        accelerator="cpu",
        engine=engine,
    )
    return train(data, settings, frozen, stream)


def both(data: TrainingData, frozen: Frozen, depth: Depth, *, chunk: int = 5) -> tuple[Trained, Trained]:
    return (
        trained_by("bank", data, frozen, depth, chunk=chunk),
        trained_by("opacus", data, frozen, depth, chunk=chunk),
    )


CASES = [
    ("bert", Depth(), 5),
    ("bert", Depth(adapted_layers=1), WHOLE_BATCH),
    ("bert", Depth(adapted_layers=1, targets="query_key_value"), WHOLE_BATCH),
    ("bert", Depth(adapted_layers=1, targets="all_linear"), 5),
    ("bert", Depth(adapted_layers=3, targets="all_linear"), WHOLE_BATCH),
    ("distilbert", Depth(adapted_layers=1, targets="query_key_value"), WHOLE_BATCH),
    ("roberta", Depth(adapted_layers=2), WHOLE_BATCH),
    ("gpt2", Depth(adapted_layers=2), 5),
    ("llama", Depth(adapted_layers=4, targets="all_linear"), WHOLE_BATCH),
    ("qwen3", Depth(adapted_layers=1), WHOLE_BATCH),
]


@pytest.mark.parametrize(("kind", "depth", "chunk"), CASES)
def test_twenty_steps_of_both_engines_lead_to_the_same_parameters(
    family: Callable[[str], BaseModel], kind: str, depth: Depth, chunk: int
) -> None:
    base = family(kind)
    data, frozen = data_at(base, cut_of(base.model, adapted_layers=depth.adapted_layers))
    fast, slow = both(data, frozen, depth, chunk=chunk)
    for k in range(K):
        ours, theirs = fast.bank.shadow_parameters(k), slow.bank.states[k]
        named = {name: in_bank(name, ours, frozen) for name in theirs}
        assert sorted(named.values()) == sorted(ours)
        for name, mine in named.items():
            assert float((ours[mine].reshape(theirs[name].shape) - theirs[name]).abs().max()) < 1e-3, name
    np.testing.assert_allclose(log_probs(fast.bank, data.packed), log_probs(slow.bank, data.packed), atol=1e-3)


@pytest.mark.filterwarnings("ignore:.*Full backward hook is firing")
@pytest.mark.parametrize(("kind", "layers"), [("bert", 1), ("bert", 2), ("distilbert", 1), ("gpt2", 2), ("llama", 2)])
def test_gradients_of_records_by_opacus_by_factors_and_by_a_loop_of_one_are_the_same(
    family: Callable[[str], BaseModel], kind: str, layers: int
) -> None:
    """Every LoRA matrix and the head, none of them zero, in fp32.

    To 1e-5 of each gradient's norm and 1e-7 of the record's whole one.
    """
    base, depth = family(kind), Depth(adapted_layers=layers, targets="all_linear")
    data, frozen = data_at(base, cut_of(base.model, adapted_layers=layers))
    config = BankConfig(ranks=(2,), n_classes=2, depth=depth, lora_alpha=4.0)
    draw = torch.Generator().manual_seed(5)
    bank = Bank(config, frozen, data.packed.features.shape[1], [draw])
    own = bank.shadow_parameters(0)
    for p in own.values():
        p.copy_(torch.randn(p.shape, generator=draw) * 0.2)
    rows = torch.arange(0, N, 4)
    labels = torch.from_numpy(data.labels)[rows][None]
    factors, told = bank.record_factors(bank.materialise(data.packed, rows[None], Workspace()), labels)
    by_factors = {n: torch.einsum("kp...ma,kp...mb->kp...ab", *pair)[0] for n, pair in factors.items()}

    settings = TrainingSettings(
        depth=depth,
        lora_rank=2,
        lora_alpha=4.0,
        sample_rate=1.0,
        steps=1,
        engine="opacus",
        dp=DPSettings(noise_multiplier=0.0, max_grad_norm=1.0, expected_batch_size=9.0),
    )
    model = with_grad_sample_hooks(build_classifier(adapter_spec(data, settings), frozen))
    noise: Any = None  # no step is taken
    module = ReferenceModule(model, data, settings, noise, shadow=0, pad=1)
    trained: dict[str, Any] = module.trained()
    named = {name: in_bank(name, own, frozen) for name in trained}
    assert sorted(named.values()) == sorted(own)
    for name, p in trained.items():
        p.data.copy_(own[named[name]].reshape(p.shape))
    losses = module.record_losses(rows)
    torch.testing.assert_close(losses.detach(), told[0], rtol=1e-4, atol=1e-5)
    losses.sum().backward()  # type: ignore[no-untyped-call]
    by_opacus = {n: p.grad_sample.clone() for n, p in trained.items()}
    model.disable_hooks()
    for i, row in enumerate(rows):
        model.zero_grad(set_to_none=True)
        module.record_losses(row[None]).sum().backward()  # type: ignore[no-untyped-call]
        whole = sum(float(p.grad.norm()) for p in trained.values())
        for name, p in trained.items():
            bound = 1e-5 * float(p.grad.norm()) + 1e-7 * whole
            assert float(p.grad.norm()) > 1e-6 * whole
            assert float((by_opacus[name][i] - p.grad).norm()) < bound, name
            assert float((by_factors[named[name]][i].reshape(p.shape) - p.grad).norm()) < bound, name


@pytest.mark.parametrize("depth", [Depth(), Depth(adapted_layers=1), Depth(adapted_layers=2)])
def test_both_engines_average_a_users_records_before_clipping(family: Callable[[str], BaseModel], depth: Depth) -> None:
    base = family("bert")
    data, frozen = data_at(base, cut_of(base.model, adapted_layers=depth.adapted_layers), per_unit=3)
    fast, slow = both(data, frozen, depth)
    np.testing.assert_allclose(log_probs(fast.bank, data.packed), log_probs(slow.bank, data.packed), atol=1e-3)
    per_record = dataclasses.replace(data, units=np.arange(N))
    other = trained_by("bank", per_record, frozen, depth)
    assert float((log_probs(fast.bank, data.packed) - log_probs(other.bank, data.packed)).abs().max()) > 1e-2


def test_noise_of_the_reference_path_has_the_accountants_standard_deviation(family: Callable[[str], BaseModel]) -> None:
    """Zero features and SGD, through Lightning's fit.

    The squared update is steps x parameters x (sigma C lr / batch)^2.
    """
    base = family("bert")
    data, frozen = data_at(base, cut_of(base.model, adapted_layers=0))
    blank = dataclasses.replace(data.packed, features=torch.zeros(N, 400))
    settings = TrainingSettings(
        depth=Depth(),
        lora_rank=1,
        lora_alpha=1.0,
        sample_rate=0.5,
        steps=30,
        engine="opacus",
        accelerator="cpu",
        dp=DPSettings(noise_multiplier=3.0, max_grad_norm=0.5, expected_batch_size=9.0),
        optimizer=OptimizerSettings(head_learning_rate=0.05, head_momentum=0.0),
    )
    trained = train(dataclasses.replace(data, packed=blank), settings, frozen, stream)
    expected = 30 * 800 * (3.0 * 0.5 * (0.05 / 0.5) / 9.0) ** 2
    for state in trained.bank.states:
        weight = next(p for n, p in state.items() if n.endswith("head.weight"))
        assert float(weight.square().sum()) == pytest.approx(expected, rel=0.15)
    assert trained.noisy_steps == trained.steps == 30


def test_empty_batches_of_the_reference_path_still_take_noisy_steps(family: Callable[[str], BaseModel]) -> None:
    base = family("bert")
    data, frozen = data_at(base, cut_of(base.model, adapted_layers=1))
    settings = TrainingSettings(
        depth=Depth(adapted_layers=1),
        lora_rank=2,
        lora_alpha=4.0,
        sample_rate=1e-9,
        steps=3,
        engine="opacus",
        dp=DPSettings(noise_multiplier=1.0, max_grad_norm=0.5, expected_batch_size=9.0),
        accelerator="cpu",
    )
    trained = train(data, settings, frozen, stream)
    assert trained.noisy_steps == trained.steps == 3


def test_non_finite_examples_contribute_zero_on_the_reference_path_and_are_counted(
    family: Callable[[str], BaseModel],
) -> None:
    base = family("bert")
    data, frozen = data_at(base, cut_of(base.model, adapted_layers=1))
    features = data.packed.features.clone()
    features[3] = math.nan
    poisoned = dataclasses.replace(data, packed=dataclasses.replace(data.packed, features=features))
    fast, slow = both(poisoned, frozen, Depth(adapted_layers=1))
    assert fast.non_finite == slow.non_finite > 0
    for k in range(K):
        assert all(bool(torch.isfinite(p).all()) for p in slow.bank.states[k].values())
    good = [i for i in range(N) if i != 3]
    np.testing.assert_allclose(
        log_probs(fast.bank, poisoned.packed)[:, good], log_probs(slow.bank, poisoned.packed)[:, good], atol=1e-3
    )


@pytest.mark.parametrize("adaptation", ["prefix", "full"])
def test_other_adaptations_train_on_the_reference_path(family: Callable[[str], BaseModel], adaptation: str) -> None:
    base = family("bert")
    data, frozen = data_at(base, cut_of(base.model, adapted_layers=1))
    settings = TrainingSettings(
        depth=Depth(adapted_layers=1),
        lora_rank=4,
        lora_alpha=4.0,
        sample_rate=0.5,
        steps=25,
        engine="opacus",
        dp=DPSettings(noise_multiplier=0.1, max_grad_norm=0.5, expected_batch_size=9.0),
        accelerator="cpu",
        optimizer=OptimizerSettings(learning_rate=2e-3, head_learning_rate=0.2),
        adaptation=adaptation,  # type: ignore[arg-type]
    )
    trained = train(data, settings, frozen, stream)
    right = log_probs(trained.bank, data.packed).argmax(-1).numpy() == data.labels
    assert right[data.members].mean() > 0.75
    with pytest.raises(InputError, match="adaptation must be 'lora' with engine='bank'"):
        train(data, dataclasses.replace(settings, engine="bank"), frozen, stream)


def test_a_family_that_the_bank_does_not_know_trains_on_the_reference_path(family: Callable[[str], BaseModel]) -> None:
    base = family("electra")
    data, frozen = data_at(base, Cut(0, 0))
    settings = TrainingSettings(
        depth=Depth(adapted_layers=2),
        lora_rank=2,
        lora_alpha=4.0,
        sample_rate=0.5,
        steps=25,
        engine="opacus",
        dp=DPSettings(noise_multiplier=0.0, max_grad_norm=math.inf, expected_batch_size=9.0),
        accelerator="cpu",
        optimizer=OptimizerSettings(learning_rate=1e-2, head_learning_rate=0.5),
    )
    trained = train(data, settings, frozen, stream)
    right = log_probs(trained.bank, data.packed).argmax(-1).numpy() == data.labels
    assert right[data.members].mean() > 0.75


def test_texts_are_told_half_as_many_at_a_time_where_memory_ends(
    family: Callable[[str], BaseModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    base, depth = family("bert"), Depth(adapted_layers=1)
    data, frozen = data_at(base, cut_of(base.model, adapted_layers=1))
    slow = trained_by("opacus", data, frozen, depth)
    whole, rows, forward = log_probs(slow.bank, data.packed), [], Classifier.forward

    def small_machine(self: Classifier, ids: torch.Tensor, *more: torch.Tensor) -> torch.Tensor:
        rows.append(len(ids))
        if len(ids) > limit:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes.")
        return forward(self, ids, *more)

    monkeypatch.setattr(Classifier, "forward", small_machine)
    limit = 5
    torch.testing.assert_close(log_probs(slow.bank, data.packed), whole, atol=1e-5, rtol=1e-5)
    assert (max(rows), rows[-1]) == (N, 4)  # 36, then 32, 16, 8, 4
    limit = 0
    with pytest.raises(RuntimeError, match="allocate memory"):
        log_probs(slow.bank, data.packed)
    assert rows[-1] == 1
    monkeypatch.setattr(Classifier, "forward", lambda *_: (_ for _ in ()).throw(RuntimeError("another error")))
    with pytest.raises(RuntimeError, match="another"):
        log_probs(slow.bank, data.packed)
