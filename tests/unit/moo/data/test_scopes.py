"""The gate between all users' rows and a step of the preparation.

What is declared is tried, and what is not declared is seen.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from moo.core.errors import InputError
from moo.core.trial_record import Transformation
from moo.data.catalogue import Records, load_records
from moo.data.scopes import Preparation
from moo.privacy.claims import HOLDS, claim
from moo.privacy.events import TrainingRun

RUN = TrainingRun(
    sample_rate=0.1, steps=10, noise_multiplier=1.0, max_grad_norm=1.0, delta=1e-5, n_units=100, unit="user"
)
Change = Callable[[pd.DataFrame], pd.DataFrame]


def rows(n: int = 60) -> tuple[pd.DataFrame, "pd.Series[Any]"]:
    """Two rows a user; every tenth user repeats the text of the user before."""
    user = np.arange(n) // 2
    text = [f"text {i - 2 if (i // 2) % 10 == 9 else i}" for i in range(n)]
    return pd.DataFrame({"text": text, "label": user % 2}), pd.Series(user).map(str)


def upper(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(text=frame["text"].str.upper())


def once(frame: pd.DataFrame) -> pd.DataFrame:
    return frame[~frame["text"].duplicated()]


def more_than(share: float) -> Change:
    return lambda frame: frame[frame["label"].map(frame["label"].value_counts()) > share * len(frame)]


def centred(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(label=frame["label"] - frame["label"].mean())


def first_rows(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.head(20)


@pytest.mark.parametrize(
    ("change", "scope", "found"),
    [
        (upper, "record", "record"),
        (lambda frame: frame[frame["text"].str.len() > 6], "record", "record"),
        (lambda frame: frame[frame["label"] == 0], "user", "user"),
        (once, "user", "dataset"),
        (more_than(0.5), "record", "dataset"),
        (centred, "record", "dataset"),
        (first_rows, "user", "dataset"),
        (upper, "dataset", "dataset"),
    ],
)
def test_a_declared_scope_is_tried_on_single_users(change: Change, scope: Any, found: str) -> None:
    prepared = Preparation(*rows())
    prepared.step("planted", change, scope=scope, why="a test")
    (step,) = prepared.steps
    assert step.scope == found
    assert (step.before, step.after) == (60, len(prepared.rows))
    assert (claim(RUN, prepared.steps) == HOLDS) == (found != "dataset")
    assert ("depends on other users" in step.detail) == (scope != found)


def test_a_step_must_declare_a_scope_and_gets_a_copy_of_nothing_else() -> None:
    prepared = Preparation(*rows())
    with pytest.raises(TypeError, match="scope"):
        prepared.step("planted", upper, why="a test")  # type: ignore[call-arg]
    rows_of_a_step = prepared.rows
    rows_of_a_step["text"] = "overwritten"
    assert prepared.rows["text"].tolist() == rows()[0]["text"].tolist()


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("table") / "t.csv"
    n = 40
    texts = [f"{'好评很多' if i < 20 else 'plain text'} {i}" for i in range(n)]
    pd.DataFrame({"text": texts, "label": np.arange(n) % 2, "user": np.arange(n) // 2}).to_csv(path, index=False)
    return path


def test_changes_that_no_step_declares_are_seen(table: Path) -> None:
    records = load_records(str(table), user="user")
    assert records.intact
    assert claim(RUN, records.declared()) == HOLDS
    step = Transformation(name="planted", scope="user")
    assert records.take(np.arange(10), step).intact
    for changed in (
        records.take(np.arange(10)),
        dataclasses.replace(records, texts=tuple(t.upper() for t in records.texts)),
        dataclasses.replace(records, labels=1 - records.labels),
    ):
        assert not changed.intact
        assert "'undeclared' read other units' records" in claim(RUN, changed.declared())
        assert not changed.take(np.arange(5), step).intact  # a declared step afterwards mends nothing


def test_no_language_is_guessed_from_other_users(table: Path) -> None:
    assert load_records(str(table), user="user").language == ""
    assert load_records(str(table), user="user", language="zh").language == "zh"


def test_declared_classes_keep_their_order_and_stay_where_nobody_has_them(table: Path) -> None:
    records: Records = load_records(str(table), user="user", classes=("2", "1", "0"))
    assert records.classes == ("2", "1", "0")
    assert records.only_held_classes().classes == ("2", "1", "0")
    assert [records.classes[c] for c in records.labels[:2]] == ["0", "1"]
    with pytest.raises(InputError, match=r"among classes = \['0', 'x'\], but 20 rows have others \(first: '1'\)"):
        load_records(str(table), user="user", classes=("0", "x"))
