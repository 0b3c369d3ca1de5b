"""Exports of the Opacus engine: PEFT's format, other adapters, exhausted memory."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from moo.core.errors import InputError
from moo.models.bank.bank import Depth, Frozen
from moo.models.bank.lightning_module import OptimizerSettings, log_probs
from moo.models.dp.optimizer import DPSettings
from moo.models.export.peft import load_exported
from moo.models.export.reference import export_reference, load_reference, peft_model, save_reference
from moo.models.pretrained.architectures import Cut, cut_of, family_of
from moo.models.pretrained.loading import BaseModel, silence_transformers
from moo.models.reference import lightning_module as reference_module
from moo.models.reference.shadows import ReferenceShadows, pad_token_ids
from moo.models.train import Trained, TrainingData, TrainingSettings, train
from tests.fixtures.trainings import K, data_at, stream


def trained_at(
    base: BaseModel, adaptation: str = "lora", *, head: Any = "with_mean", steps: int = 3, **changes: Any
) -> tuple[Trained, TrainingData, Frozen]:
    depth = Depth(adapted_layers=2, head=head)
    data, frozen = data_at(base, cut_of(base.model, adapted_layers=2) if family_of(base.model) else Cut(0, 0))
    if head == "stock":
        data = dataclasses.replace(data, packed=dataclasses.replace(data.packed, features=data.packed.features[:, :0]))
        frozen = dataclasses.replace(frozen, constants=frozen.constants.unshifted()) if frozen.causal else frozen
    settings = TrainingSettings(
        depth=depth,
        lora_rank=3,
        lora_alpha=4.0,
        sample_rate=0.5,
        steps=steps,
        engine="opacus",
        dp=DPSettings(noise_multiplier=0.5, max_grad_norm=0.5, expected_batch_size=9.0),
        accelerator="cpu",
        optimizer=OptimizerSettings(learning_rate=2e-2, head_learning_rate=0.2, chunk=7),
        adaptation=adaptation,  # type: ignore[arg-type]
        **changes,  # type: ignore[arg-type]
    )
    return train(data, settings, frozen, stream), data, frozen


@pytest.mark.parametrize(("kind", "adaptation"), [("bert", "lora"), ("gpt2", "lora"), ("bert", "prefix")])
def test_an_adapter_of_the_reference_path_loads_to_its_own_predictions(
    family: Callable[[str], BaseModel], tmp_path: Path, kind: str, adaptation: str
) -> None:
    trained, data, frozen = trained_at(family(kind), adaptation)
    ids, mask = pad_token_ids(data.packed, torch.arange(12), 1)
    for shadow in range(K):
        folder = export_reference(
            trained.bank, frozen, tmp_path / str(shadow), classes=("a", "b"), stock=False, shadow=shadow
        )
        with torch.no_grad():
            theirs = load_exported(folder)(ids, mask).log_softmax(-1)
        np.testing.assert_allclose(theirs, log_probs(trained.bank, data.packed)[shadow, :12], atol=1e-4)


@pytest.mark.parametrize("kind", ["bert", "distilbert", "qwen3"])
def test_the_stock_head_of_the_reference_path_loads_with_peft_alone(
    family: Callable[[str], BaseModel], tmp_path: Path, kind: str
) -> None:
    trained, data, frozen = trained_at(family(kind), head="stock")
    folder = export_reference(trained.bank, frozen, tmp_path / "out", classes=("a", "b"), stock=True, shadow=1)
    with silence_transformers():
        model = peft.AutoPeftModelForSequenceClassification.from_pretrained(str(folder), num_labels=2).eval()
    model.base_model.config.pad_token_id = 1
    ids, mask = pad_token_ids(data.packed, torch.arange(12), 1)
    with torch.no_grad():
        theirs = model(input_ids=ids, attention_mask=mask).logits.log_softmax(-1)
    np.testing.assert_allclose(theirs, log_probs(trained.bank, data.packed)[1, :12], atol=1e-4)


def test_bottlenecks_start_as_the_identity_and_learn(family: Callable[[str], BaseModel], tmp_path: Path) -> None:
    trained, data, frozen = trained_at(family("bert"), "bottleneck", steps=25)
    right = log_probs(trained.bank, data.packed).argmax(-1).numpy() == data.labels
    assert right[data.members].mean() > 0.75
    kept = load_file(save_reference(trained.bank, tmp_path / "model.safetensors"))
    assert sum("bottleneck.up.weight" in name for name in kept) == 2  # one behind each adapted block
    assert peft_model(trained.bank) is None
    with pytest.raises(InputError, match=r"keep model\.safetensors"):
        export_reference(trained.bank, frozen, tmp_path / "out", classes=("a", "b"), stock=False)
    states = [{n: torch.zeros_like(p) if ".up." in n else p for n, p in s.items()} for s in trained.bank.states]
    plain = ReferenceShadows(trained.bank.model, states, shape=trained.bank.shape, frozen=frozen)
    plain.select(0)
    ids, mask = pad_token_ids(data.packed, torch.arange(6), 1)
    with torch.no_grad():
        ours = plain.classifier.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        own = frozen.base.model(input_ids=ids, attention_mask=mask).last_hidden_state
    torch.testing.assert_close(ours, own)


@pytest.mark.parametrize(
    ("kind", "adaptation", "head"),
    [
        ("bert", "full", "with_mean"),
        ("bert", "bottleneck", "with_mean"),
        ("bert", "lora", "stock"),
        ("bert", "prefix", "with_mean"),
        ("gpt2", "full", "stock"),
        ("llama", "bottleneck", "with_mean"),
        ("electra", "lora", "with_mean"),
    ],
)
def test_what_the_reference_path_trained_loads_to_its_own_predictions_whatever_the_adaptation(
    family: Callable[[str], BaseModel], tmp_path: Path, kind: str, adaptation: str, head: str
) -> None:
    trained, data, _ = trained_at(family(kind), adaptation, head=head)
    ids, mask = pad_token_ids(data.packed, torch.arange(12), 1)
    path = tmp_path / "model.safetensors"
    for shadow in range(K):
        save_reference(trained.bank, path, shadow=shadow)
        theirs = load_reference(path)(ids, mask).log_softmax(-1)
        np.testing.assert_allclose(theirs, log_probs(trained.bank, data.packed)[shadow, :12], atol=1e-4)
    with pytest.raises(InputError, match="weights must be those of"):
        load_reference(path, base=family("roberta").name)


def test_files_that_are_no_models_of_the_reference_path_are_refused(
    family: Callable[[str], BaseModel], tmp_path: Path
) -> None:
    (tmp_path / "torn.safetensors").write_bytes(b"{}")
    with pytest.raises(InputError, match="must hold a model of the Opacus engine"):
        load_reference(tmp_path / "torn.safetensors")
    trained, _, _ = trained_at(family("bert"), "full")
    path = save_reference(trained.bank, tmp_path / "full.safetensors")
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    kept = load_file(path)
    del kept["head.bias"]
    save_file(kept, path, metadata=metadata)
    with pytest.raises(InputError, match=r"exactly the trained parameters.*head\.bias"):
        load_reference(path)


def test_shadows_of_several_ranks_and_dropped_layers_are_refused_on_the_reference_path(
    family: Callable[[str], BaseModel],
) -> None:
    data, frozen = data_at(family("bert"), cut_of(family("bert").model, adapted_layers=1))
    settings = TrainingSettings(
        depth=Depth(adapted_layers=1),
        lora_rank=(1, 2),
        lora_alpha=4.0,
        sample_rate=0.5,
        steps=1,
        engine="opacus",
        dp=DPSettings(noise_multiplier=1.0, max_grad_norm=0.5, expected_batch_size=9.0),
        accelerator="cpu",
    )
    for refused in (
        settings,
        dataclasses.replace(settings, lora_rank=2, depth=Depth(adapted_layers=1, layers_dropped=1)),
    ):
        with pytest.raises(InputError, match="shadows of one rank on the whole model"):
            train(data, refused, frozen, stream)


def test_bottlenecks_in_a_model_of_unknown_blocks_are_refused(family: Callable[[str], BaseModel]) -> None:
    data, frozen = data_at(family("electra"), Cut(0, 0))
    settings = TrainingSettings(
        depth=Depth(adapted_layers=1),
        lora_rank=2,
        lora_alpha=4.0,
        sample_rate=0.5,
        steps=1,
        engine="opacus",
        dp=DPSettings(noise_multiplier=1.0, max_grad_norm=0.5, expected_batch_size=9.0),
        accelerator="cpu",
        adaptation="bottleneck",
    )
    with pytest.raises(InputError, match="known family"):
        train(data, settings, frozen, stream)


def test_where_memory_ends_the_reference_path_halves_its_chunk_and_the_result_stays(
    family: Callable[[str], BaseModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, data, _ = trained_at(family("bert"))
    calls = 0

    def small_machine(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if len(logits) > 3 and calls > 2:  # after one chunk was clipped and summed
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes.")
        return torch.nn.functional.cross_entropy(logits, labels, reduction="none")

    monkeypatch.setattr(reference_module, "losses", small_machine)
    halved, _, _ = trained_at(family("bert"))
    assert (whole.chunk, halved.chunk) == (7, 3)
    assert (halved.steps, halved.noisy_steps) == (3, 3)
    for mine, theirs in zip(halved.bank.states, whole.bank.states, strict=True):
        for name, parameter in mine.items():
            torch.testing.assert_close(theirs[name], parameter, atol=1e-4, rtol=1e-3)
    np.testing.assert_allclose(log_probs(halved.bank, data.packed), log_probs(whole.bank, data.packed), atol=1e-3)
