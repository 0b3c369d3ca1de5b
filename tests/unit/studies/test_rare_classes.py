"""Classes that a half, a pool or a test part lacks.

Columns stay those of the classes, and too few users are refused by name.
"""

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from moo.core.errors import InputError
from moo.core.evidence import UtilityEvidence
from moo.data.catalogue import Records, load_records
from moo.objectives.attribute.attack import fit_logits
from moo.objectives.statistics.aligned_classes import LEAST, class_log_probs
from moo.objectives.utility.accuracy import accuracy, majority_accuracy
from moo.privacy.claims import HOLDS, claim
from moo.privacy.events import TrainingRun
from moo.studies.search.estimate import plan_study
from moo.studies.search.run_study import run_study
from moo.studies.setup.rare_classes import check_class_sizes, merged, users_by_class
from moo.studies.spec.study import StudySpec
from moo.studies.trial.baseline import base_losses, baseline_accuracy
from tests.fixtures.letters import letters_spec


def clusters(labels: Any) -> np.ndarray:
    """Features that tell every class apart."""
    rng = np.random.default_rng(0)
    return (6.0 * np.eye(5)[np.asarray(labels)] + 0.1 * rng.normal(size=(len(labels), 5))).astype(np.float32)


@pytest.mark.parametrize("held", [[0, 1, 2], [1, 2], [0, 2], [2], [0, 1, 2, 3, 4]])
def test_columns_are_classes_whichever_were_fitted_on(held: list[int]) -> None:
    known, asked = np.repeat(held, 8), np.arange(5)
    told = class_log_probs((clusters(known), known), clusters(asked), n_classes=5)
    assert told.shape == (5, 5)
    assert [int(told[c].argmax()) for c in held] == held
    assert np.allclose(told[:, [c for c in range(5) if c not in held]], np.log(LEAST))
    assert np.isfinite(told).all()
    if len(held) == 5:
        naive = LogisticRegression(max_iter=2000).fit(clusters(known), known).predict_log_proba(clusters(asked))
        assert np.allclose(told, naive)


def test_the_attribute_attack_keeps_its_columns_where_a_fold_lacks_a_class() -> None:
    attribute = np.array([0, 1, 2] * 8)
    told = fit_logits(clusters(attribute).astype(float), attribute, attribute != 0, n_classes=3)
    assert told.shape == (24, 3)
    assert (told[attribute > 0].argmax(1) == attribute[attribute > 0]).all()


@pytest.fixture
def prepared() -> Any:
    """A study whose pool lacks class 0 in one half, class 1 in the other, and whose test part lacks class 0."""
    labels = {
        "pool": np.array([1, 2] * 8 + [0, 2] * 8),
        "test": np.array([1, 2] * 6),
        "unseen": np.array([0, 1, 2] * 4),
    }
    parts = {
        name: SimpleNamespace(labels=y, classes=("a", "b", "c"), units=np.arange(len(y))) for name, y in labels.items()
    }
    packed = {name: SimpleNamespace(features=torch.from_numpy(clusters(y))) for name, y in labels.items()}
    features = SimpleNamespace(packed=packed, masked=lambda part, _: SimpleNamespace(packed=packed[part]))
    return SimpleNamespace(data=SimpleNamespace(parts=parts), features=features)


def test_the_baseline_is_one_where_it_is_always_right_although_a_half_lacks_a_class(prepared: Any) -> None:
    first = np.arange(32) < 16
    members = np.stack([first, first, first, first])
    evidence: Any = SimpleNamespace(
        params=SimpleNamespace(masking_level=0), membership=SimpleNamespace(members=members)
    )
    assert baseline_accuracy(prepared, evidence).value == 1.0


def test_losses_of_the_frozen_head_are_those_of_each_records_own_class(prepared: Any) -> None:
    losses = base_losses(prepared, prepared.features.packed)
    for part, values in losses.items():
        labels = prepared.data.parts[part].labels
        assert (values[labels > 0] < 0.1).all()
        assert np.allclose(values[labels == 0], -np.log(LEAST))  # the test part, which it is fitted on, has none
    assert {part: len(v) for part, v in losses.items()} == {"pool": 32, "test": 12, "unseen": 12}


def test_accuracy_and_its_baseline_stand_where_the_test_part_lacks_classes() -> None:
    labels = np.array([2, 2, 2, 4])
    log_probs = np.log(np.full((4, 4, 5), 0.05) + 0.75 * np.eye(5)[labels])
    e = UtilityEvidence(log_probs=log_probs, labels=labels, units=np.arange(4))
    assert accuracy(e).value == 1.0
    assert majority_accuracy(e).value == 0.75


@pytest.fixture
def records(tmp_path: Path) -> Records:
    """Classes of 30, 12, 5 and 3 users, one of whom has records of two."""
    users = {"a": range(30), "b": range(30, 42), "c": range(42, 47), "d": [46, 47, 48]}
    table = [(f"{name} {u} {i}", name, f"u{u}") for name, ids in users.items() for u in ids for i in range(2)]
    path = tmp_path / "t.csv"
    pd.DataFrame(table, columns=["text", "label", "user"]).to_csv(path, index=False)
    return load_records(str(path), user="user")


def test_users_are_counted_by_class(records: Records) -> None:
    assert users_by_class(records) == {"a": 30, "b": 12, "c": 5, "d": 3}


def test_classes_of_too_few_users_are_refused_by_name(records: Records) -> None:
    spec = StudySpec(name="t")
    with pytest.raises(
        InputError, match=r"at least 8 users, two for each of 4 shadows, but got 'c' with 5, 'd' with 3"
    ):
        check_class_sizes(records, spec)
    check_class_sizes(records, dataclasses.replace(spec, min_class_users=3))
    with pytest.raises(InputError, match=r"at least 4 users, but got 'd' with 3"):
        check_class_sizes(records, dataclasses.replace(spec, min_class_users=4))


def test_merging_names_what_it_merged_and_withdraws_the_claim(records: Records) -> None:
    less = merged(records, 8)
    assert less.classes == ("a", "b", "other")
    assert users_by_class(less) == {"a": 30, "b": 12, "other": 7}
    names = [less.classes[c] for c in less.labels]
    assert names == [{"c": "other", "d": "other"}.get(records.classes[c], records.classes[c]) for c in records.labels]
    step = less.transformations[-1]
    assert (step.name, step.scope, step.changed) == ("rare_classes", "dataset", 16)
    assert "'c' with 5, 'd' with 3" in step.detail
    assert less.intact
    run = TrainingRun(
        sample_rate=0.1, steps=10, noise_multiplier=1.0, max_grad_norm=1.0, delta=1e-5, n_units=50, unit="user"
    )
    assert "'rare_classes' read other units' records" in claim(run, less.declared())
    assert "rare_classes" in claim(run, merged(records, 2).declared())  # it read them also where it found none
    assert claim(run, merged(records, 1).declared()) == HOLDS
    with pytest.raises(InputError, match="only 'other' is left"):
        merged(records, 100)


@pytest.mark.parametrize("start", [plan_study, run_study])
def test_a_study_refuses_a_rare_class_before_anything_is_spent(start: Any, tmp_path: Path, tiny_folder: Path) -> None:
    spec = letters_spec(tmp_path, tiny_folder, n=120)
    frame = pd.read_csv(spec.data)
    frame["label"] = frame["label"].map(str)
    frame.loc[frame["user"] < 3, "label"] = "rare"
    frame.to_csv(spec.data, index=False)
    folder = {} if start is plan_study else {"folder": tmp_path / "run"}
    with pytest.raises(InputError, match="but got 'rare' with 3; bring more"):
        start(spec, n_trials=1, **folder)
    assert not (tmp_path / "run" / "study.db").exists()
