"""Trained shadows: an AUC of one half on unseen records, more on records learned by rote."""

import math

import numpy as np
import pytest
import torch

from moo.core.evidence import MembershipEvidence
from moo.models.bank.bank import Depth, Frozen
from moo.models.bank.feature_scaling import constants
from moo.models.bank.lightning_module import OptimizerSettings, log_probs
from moo.models.dp.optimizer import DPSettings
from moo.models.pretrained.architectures import cut_of
from moo.models.pretrained.loading import BaseModel
from moo.models.train import TrainingData, TrainingSettings, train
from moo.models.trunk.encode import encode
from moo.models.trunk.packed import Packed
from moo.objectives.membership.risk import auc

POOL, UNSEEN, K = 80, 120, 4
ATTACKS = ("pair_reference", "loss", "base", "lira_offline")


def pairs(n: int, rng: np.random.Generator) -> np.ndarray:
    """Complementary halves by coins, shape (K, n)."""
    coins = rng.random((K // 2, n)) < 0.5
    return np.stack([coins, ~coins], axis=1).reshape(K, n)


def texts_of(n: int, rng: np.random.Generator) -> tuple[list[str], np.ndarray]:
    """Return letters that tell the class, with a third of wrong labels that only rote can learn."""
    labels = rng.integers(0, 2, n)
    texts = ["".join(rng.choice(list("abcxyz" if y else "mno123"), int(rng.integers(6, 18)))) for y in labels]
    return texts, np.where(rng.random(n) < 1 / 3, 1 - labels, labels)


def areas(base: BaseModel, depth: Depth, *, studies: int, steps: int, noise: float = 0.0) -> dict[str, np.ndarray]:
    """Return AUC and standard error of each study and attack, shape (2, studies, attacks).

    On unseen records, and on the shadows' own.
    """
    cut = cut_of(base.model, adapted_layers=depth.adapted_layers)
    frozen = Frozen(base=base, cut=cut, constants=constants(base, max_length=24, cut=cut))
    rng = np.random.default_rng(7)
    n = POOL + UNSEEN
    texts, labels = texts_of(studies * n, rng)
    out = encode(base, texts, max_length=24, cut=cut)
    every = Packed(
        features=torch.from_numpy(frozen.constants.features(out.mean)),
        tokens=torch.from_numpy(np.concatenate(out.tokens)),
        offsets=torch.from_numpy(np.cumsum([0, *map(len, out.tokens)])),
    )
    settings = TrainingSettings(
        depth=depth,
        lora_rank=8,
        lora_alpha=16.0,
        sample_rate=0.5,
        steps=steps,
        dp=DPSettings(noise_multiplier=noise, max_grad_norm=1.0 if noise else math.inf, expected_batch_size=POOL / 4),
        optimizer=OptimizerSettings(learning_rate=1e-2, head_learning_rate=2.0),
        accelerator="cpu",
    )
    found = {part: np.empty((2, studies, len(ATTACKS))) for part in ("unseen", "own")}
    for study in range(studies):
        rows = np.arange(study * n, (study + 1) * n)
        halves, coins = pairs(POOL, rng), pairs(UNSEEN, rng)
        own = TrainingData(
            packed=every.take(rows[:POOL]),
            labels=labels[rows[:POOL]],
            units=np.arange(POOL),
            members=halves,
            n_classes=2,
        )
        bank = train(own, settings, frozen, lambda p, k, s=study: np.random.default_rng([len(p), k, s])).bank
        told = log_probs(bank, every.take(rows)).numpy().astype(float)
        losses = -np.take_along_axis(told, labels[rows][None, :, None], axis=2)[..., 0]
        for part, here, members in (("unseen", losses[:, POOL:], coins), ("own", losses[:, :POOL], halves)):
            evidence = MembershipEvidence(losses=here, members=members, units=np.arange(members.shape[1]))
            measured = [auc(evidence, attack=name) for name in ATTACKS]
            found[part][:, study] = np.transpose([(m.value, m.stderr) for m in measured])
    return found


def z(values: np.ndarray) -> np.ndarray:
    """Standard errors from one half of the mean over the studies, of each attack."""
    area, error = values
    out: np.ndarray = (area.mean(0) - 0.5) / np.sqrt((error**2).mean(0) / area.shape[0])
    return out


@pytest.mark.parametrize(
    ("depth", "studies", "steps"),
    [
        pytest.param(Depth(), 10, 60, id="head"),
        pytest.param(Depth(adapted_layers=1), 10, 60, id="one layer", marks=pytest.mark.slow),
    ],
)
def test_records_that_no_shadow_saw_give_one_half_and_those_learnt_by_rote_do_not(
    tiny: BaseModel, depth: Depth, studies: int, steps: int
) -> None:
    found = areas(tiny, depth, studies=studies, steps=steps)
    assert np.abs(z(found["unseen"])).max() < 3.5
    inside = np.abs(found["unseen"][0] - 0.5) <= 1.96 * found["unseen"][1]
    assert inside.mean() >= 0.8
    assert found["unseen"][1].max() < 0.1  # an error that is wide enough to say nothing would pass, too
    assert found["own"][0].mean(0).min() > 0.57
    assert z(found["own"]).min() > 4
