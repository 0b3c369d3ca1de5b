"""A small table and a small study of it, shared by the tests that run whole studies."""

from pathlib import Path

import numpy as np
import pandas as pd

from moo.privacy.composed import ComposedEpsilon
from moo.studies.base import SpaceSpec, StudySpec, TrainingSpec

TINY = TrainingSpec(steps=8, max_length=24, target_delta=1e-4)


def save_table(path: Path, n: int = 480) -> Path:
    """Texts that lean to one of two letters' worlds, two records a user, with every column that the law asks for."""
    rng = np.random.default_rng(0)
    labels = np.repeat(rng.integers(0, 2, n // 2), 2)
    worlds = [list("abcdefgh"), list("stuvwxyz")]
    sides = [rng.random(14) < (0.4, 0.6)[y] for y in labels]
    texts = ["".join(rng.choice(worlds[int(side)]) for side in row) for row in sides]
    frame = pd.DataFrame({"text": texts, "label": labels, "user": np.arange(n) // 2})
    frame = frame.assign(
        basis="consent", consented="2024-01-01", used_from="2024-06-01", purposes="model_training", withdrawn=False,
        storage_only=False, collected="2026-01-01", retention_days=1000, sensitive=False, sensitive_consent=False,
        birth_year=1990, guardian_consent=False,
    )  # fmt: skip
    frame.to_csv(path, index=False)
    return path


def letters_spec(folder: Path, model: Path, *, n: int = 480) -> StudySpec:
    """A study of the table that trains in under a second."""
    return StudySpec(
        name="letters",
        data=str(save_table(folder / "letters.csv", n)),
        user="user",
        n_records=0,
        model=str(model),
        space=SpaceSpec(lora_rank_log2=(1, 3), target_epsilon=(1.0, 32.0)),
        training=TINY,
        max_risk=0.5,
        max_penalty=0.9,
        probe_records=1000,
        as_of="2026-11-01",
    )


def known(epsilon: ComposedEpsilon | None) -> ComposedEpsilon:
    """Return a composed epsilon that must be there."""
    assert epsilon is not None
    return epsilon
