"""On a real GPU, the bank trains and predicts what it does on the CPU, in fp32 and without noise."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from moo.models.bank import Depth, Frozen
from moo.models.base_models import load_base
from moo.models.blocks import cut_of
from moo.models.cache import TrunkCache
from moo.models.dp import DPSettings
from moo.models.module import OptimizerSettings, log_probs
from moo.models.scaling import constants
from moo.models.training import TrainingData, TrainingSettings, train
from tests.conftest import save_tiny

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
N = 40
DEPTHS = [
    ("bert", Depth()),
    ("bert", Depth(adapted_layers=1)),
    ("bert", Depth(adapted_layers=1, layers_dropped=1, n_queries=2, targets="query_key_value")),
    ("bert", Depth(adapted_layers=2, targets="all_linear")),
    ("llama", Depth(adapted_layers=2)),
]


def stream(purpose: str, shadow: int) -> np.random.Generator:
    return np.random.default_rng([len(purpose), shadow])


def trained_on(accelerator: str, kind: str, depth: Depth, folder: Path) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Parameters and log-probabilities, all from the tokens up on one device."""
    base = load_base(str(save_tiny(folder / "model", kind=kind)), accelerator=accelerator)
    base = dataclasses.replace(base, low_precision=False)
    cut = cut_of(base.model, adapted_layers=depth.adapted_layers, layers_dropped=depth.layers_dropped)
    frozen = Frozen(base=base, cut=cut, constants=constants(base, max_length=24, cut=cut))
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, N)
    texts = ["".join(rng.choice(list("abcxyz" if y else "mno123"), int(rng.integers(4, 16)))) for y in labels]
    packed = TrunkCache(folder / accelerator, b"k" * 32, base, max_length=24, cut=cut).packed(texts, frozen.constants)
    coin = rng.random(N // 2) < 0.5
    data = TrainingData(
        packed=packed,
        labels=labels,
        units=np.arange(N) // 2,
        members=np.stack([coin, ~coin])[:, np.arange(N) // 2],
        n_classes=2,
    )
    settings = TrainingSettings(
        depth=depth,
        lora_rank=(2, 3) if depth.adapted_layers else 2,
        lora_alpha=4.0,
        sample_rate=0.5,
        steps=6,
        dp=DPSettings(noise_multiplier=0.0, max_grad_norm=0.5, expected_batch_size=5.0),
        optimizer=OptimizerSettings(learning_rate=1e-3, head_learning_rate=0.05),
        accelerator=accelerator,
    )
    bank = train(data, settings, frozen, stream).bank
    device = torch.device("cuda" if accelerator == "gpu" else "cpu")
    told = log_probs(bank.to(device), packed)
    return {n: p.detach().cpu() for n, p in bank.trainable().items()}, told


@pytest.mark.parametrize(("kind", "depth"), DEPTHS)
def test_training_and_prediction_on_the_gpu_equal_those_on_the_cpu(kind: str, depth: Depth, tmp_path: Path) -> None:
    here, told_here = trained_on("cpu", kind, depth, tmp_path)
    there, told_there = trained_on("gpu", kind, depth, tmp_path)
    assert set(here) == set(there)
    torch.testing.assert_close(told_there, told_here, atol=1e-4, rtol=1e-4)
    for name, parameter in here.items():
        torch.testing.assert_close(there[name], parameter, atol=1e-4, rtol=1e-4)
