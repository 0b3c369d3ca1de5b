"""A release masks as its training did: the same text out of its file, its script and the masker; other recognisers are refused."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from moo.errors import InputError
from moo.masking import mask
from moo.masking.release import FILE, SCRIPT, fingerprint, load_preprocessing, save_preprocessing

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
        [sys.executable, str(tmp_path / SCRIPT)], input="\n".join(TEXTS), capture_output=True, check=True, encoding="utf-8"
    )  # fmt: skip
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
