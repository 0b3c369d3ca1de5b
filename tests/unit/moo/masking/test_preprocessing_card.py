"""A release masks as its training did.

The same text out of its file, its script and the masker; other recognisers are refused.
"""

import itertools
import json
import subprocess
import sys
from pathlib import Path

import pytest

from moo.core.errors import InputError
from moo.masking import find_spans, mask
from moo.masking.preprocessing_card import FILE, SCRIPT, fingerprint, load_preprocessing, save_preprocessing
from moo.masking.recognisers import names_ner

TEXTS = ["找刘婷，打13812345678", "2025年3月12日买的，34岁", "阿布都说好", "饕餮 excellent 250"]


@pytest.mark.parametrize("level", range(6))
def test_the_released_file_masks_as_training_did(tmp_path: Path, level: int) -> None:
    save_preprocessing(tmp_path, masking_level=level, max_length=96, own_fields=("name",))
    released = load_preprocessing(tmp_path)
    own = {"name": "阿布都", "mobile": "13812345678"}
    for text in TEXTS:
        assert released.mask(text) == mask(text, level)
        assert released.mask(text, own) == mask(text, level, fields={"name": "阿布都"})


def test_the_script_beside_the_file_masks_lines(tmp_path: Path) -> None:
    save_preprocessing(tmp_path, masking_level=3, max_length=96)
    done = subprocess.run(
        [sys.executable, str(tmp_path / SCRIPT)],
        input="\n".join(TEXTS),
        capture_output=True,
        check=True,
        encoding="utf-8",
    )
    assert done.stdout.splitlines() == [mask(t, 3) for t in TEXTS]


def test_other_recognisers_and_a_missing_file_are_refused(tmp_path: Path) -> None:
    save_preprocessing(tmp_path, masking_level=2, max_length=96)
    values = json.loads((tmp_path / FILE).read_text())
    assert values["recognisers"] == fingerprint()
    (tmp_path / FILE).write_text(json.dumps(values | {"recognisers": "0" * 64}))
    with pytest.raises(InputError, match=r"000000000000.*moo-privacy=="):
        load_preprocessing(tmp_path)
    with pytest.raises(InputError, match="preprocessing"):
        load_preprocessing(tmp_path / "none")
    (tmp_path / FILE).write_text(json.dumps(values | {"recognisers": "0-" + "0" * 64}))
    with pytest.raises(InputError, match=r"version 0 \(000000000000\), got version \d+ .*moo-privacy=="):
        load_preprocessing(tmp_path)


def test_a_release_that_names_no_version_of_its_recognisers_is_refused_in_one_line(tmp_path: Path) -> None:
    save_preprocessing(tmp_path, masking_level=2, max_length=96)
    values = json.loads((tmp_path / FILE).read_text())
    (tmp_path / FILE).write_text(json.dumps(values | {"recognisers": "ab" * 32}))
    with pytest.raises(
        InputError, match=r"must name the version of its recognisers, got abababababab,.*moo-privacy=="
    ) as e:
        load_preprocessing(tmp_path)
    assert "\n" not in str(e.value)


UNCUED = "后来才知道是梁启超下错了"  # no cue beside the name, and 超下错 could go on


def test_the_optional_recogniser_finds_what_the_others_miss_and_masking_stays_nested_and_idempotent(
    tmp_path: Path,
) -> None:
    pytest.importorskip("jieba")
    assert mask(UNCUED, 2) == UNCUED
    (found,) = find_spans(UNCUED, 2, ner=True)
    assert (UNCUED[found.start : found.end], found.why) == ("梁启超", "the optional recogniser")
    for text in [*TEXTS, UNCUED]:
        covered = [{i for s in find_spans(text, k, ner=True) for i in range(s.start, s.end)} for k in range(6)]
        assert all(low <= high for low, high in itertools.pairwise(covered))
        assert {i for s in find_spans(text, 2) for i in range(s.start, s.end)} <= covered[2]
        assert all(mask(once, k, ner=True) == once for k in range(6) for once in [mask(text, k, ner=True)])
    save_preprocessing(tmp_path, masking_level=2, max_length=96, ner=True)
    released = load_preprocessing(tmp_path)
    assert released.ner == names_ner.version()
    assert released.mask(UNCUED) == mask(UNCUED, 2, ner=True) == "后来才知道是[NAME]下错了"


def test_a_release_behind_another_optional_recogniser_or_none_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("jieba")
    save_preprocessing(tmp_path, masking_level=2, max_length=96, ner=True)
    values = json.loads((tmp_path / FILE).read_text())
    (tmp_path / FILE).write_text(json.dumps(values | {"ner": "jieba 0.1"}))
    with pytest.raises(InputError, match=r"jieba 0\.1.*install jieba==0\.1"):
        load_preprocessing(tmp_path)
    (tmp_path / FILE).write_text(json.dumps(values))
    monkeypatch.setattr(names_ner, "PACKAGE", "a-package-that-is-installed-nowhere")
    with pytest.raises(InputError, match=r"pip install 'moo-privacy\[ner\]'"):
        load_preprocessing(tmp_path)
