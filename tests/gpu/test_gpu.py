"""Agreement of a bank on a real GPU with the CPU, in fp32 and without noise."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from moo.models.bank.bank import Depth, Frozen
from moo.models.bank.feature_scaling import constants
from moo.models.bank.lightning_module import OptimizerSettings, log_probs
from moo.models.dp.optimizer import DPSettings
from moo.models.pretrained.architectures import cut_of
from moo.models.pretrained.loading import load_base
from moo.models.train import TrainingData, TrainingSettings, train
from moo.models.trunk.encode import encode
from moo.models.trunk.packed import Packed
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


def frozen_on(accelerator: str, folder: Path, depth: Depth) -> Frozen:
    base = dataclasses.replace(load_base(str(folder), accelerator=accelerator), low_precision=False)
    cut = cut_of(base.model, adapted_layers=depth.adapted_layers, layers_dropped=depth.layers_dropped)
    return Frozen(base=base, cut=cut, constants=constants(base, max_length=24, cut=cut))


def data_of(frozen: Frozen) -> TrainingData:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, N)
    texts = ["".join(rng.choice(list("abcxyz" if y else "mno123"), int(rng.integers(4, 16)))) for y in labels]
    out = encode(frozen.base, texts, max_length=24, cut=frozen.cut)
    packed = Packed(
        features=torch.from_numpy(frozen.constants.features(out.mean)),
        tokens=torch.from_numpy(np.concatenate(out.tokens)),
        offsets=torch.from_numpy(np.cumsum([0, *map(len, out.tokens)])),
    )
    units = np.arange(N) // 2
    coin = rng.random(N // 2) < 0.5
    members = np.stack([coin, ~coin])[:, units]
    return TrainingData(packed=packed, labels=labels, units=units, members=members, n_classes=2)


def trained_on(
    accelerator: str, data: TrainingData, frozen: Frozen, depth: Depth
) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Parameters and log-probabilities."""
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
    told = log_probs(bank.to("cuda" if accelerator == "gpu" else "cpu"), data.packed)
    return {n: p.detach().cpu() for n, p in bank.trainable().items()}, told


@pytest.mark.parametrize(("kind", "depth"), DEPTHS)
def test_training_and_prediction_on_the_gpu_equal_those_on_the_cpu(kind: str, depth: Depth, tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "model", kind=kind, layers=4)
    here, there = (frozen_on(accelerator, folder, depth) for accelerator in ("cpu", "gpu"))
    data, found = data_of(here), data_of(there)
    torch.testing.assert_close(found.packed.features, data.packed.features, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found.packed.tokens, data.packed.tokens, atol=1e-4, rtol=1e-4)
    for name, own in dataclasses.asdict(here.constants).items():
        np.testing.assert_allclose(getattr(there.constants, name), own, atol=1e-4, rtol=1e-3)
    expected, told = trained_on("cpu", data, here, depth)
    trained, told_there = trained_on("gpu", data, dataclasses.replace(there, constants=here.constants), depth)
    torch.testing.assert_close(told_there, told, atol=1e-4, rtol=1e-4)
    for name, parameter in expected.items():
        torch.testing.assert_close(trained[name], parameter, atol=1e-4, rtol=1e-4)
