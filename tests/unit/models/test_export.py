"""Exports in PEFT's format: the bank's logits, where promised without any code of moo."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import peft
import pytest
import torch
from safetensors import safe_open

from moo.core.errors import InputError
from moo.models.bank.bank import Bank, BankConfig, Depth, Frozen
from moo.models.export.peft import export_peft, load_exported
from moo.models.pretrained.loading import BaseModel, silence_transformers
from tests.conftest import KNOWN
from tests.fixtures.banks import TEXTS, frozen_at, packed_at

CLASSES = ("a", "b", "c")
OUTSIDE = """
import json, sys, torch, peft, transformers
folder, base, out = sys.argv[1:]
model = peft.AutoPeftModelForSequenceClassification.from_pretrained(folder, num_labels=3).eval()
tokenizer = transformers.AutoTokenizer.from_pretrained(base)
batch = tokenizer(json.load(open(out)), padding=True, return_tensors="pt")
with torch.no_grad():
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
json.dump(logits.tolist(), open(out, "w"))
assert not any(name.split(".")[0] == "moo" for name in sys.modules)
"""


def trained_like(frozen: Frozen, depth: Depth, n_frozen: int) -> Bank:
    """Return a bank of two shadows with parameters away from their start."""
    biased = not (depth.head == "stock" and frozen.causal)
    config = BankConfig(ranks=(2, 3), n_classes=3, depth=depth, lora_alpha=4.0, biased=biased)
    bank = Bank(config, frozen, n_frozen, [torch.Generator().manual_seed(i) for i in range(2)])
    torch.manual_seed(3)
    for shadow in range(2):
        for own in bank.shadow_parameters(shadow).values():
            own += 0.1 * torch.randn_like(own)
    return bank


def logits_of(bank: Bank, frozen: Frozen, feature: str) -> torch.Tensor:
    packed = packed_at(frozen)
    if feature == "none":
        packed = type(packed)(features=packed.features[:, :0], tokens=packed.tokens, offsets=packed.offsets)
    with torch.no_grad():
        out: torch.Tensor = bank(packed.gather(torch.arange(len(TEXTS))[None], tokens=True))
    return out


def stock(base: BaseModel, layers: int, targets: str = "query_value") -> tuple[Bank, Frozen]:
    depth = Depth(adapted_layers=layers, head="stock", targets=targets)  # type: ignore[arg-type]
    frozen = frozen_at(base, depth)
    if frozen.causal:
        frozen = Frozen(base=base, cut=frozen.cut, constants=frozen.constants.unshifted())
    return trained_like(frozen, depth, 0), frozen


@pytest.mark.parametrize("kind", KNOWN)
@pytest.mark.parametrize(("layers", "targets"), [(1, "query_value"), (2, "all_linear")])
def test_the_stock_head_loads_with_peft_to_the_same_logits(
    family: Callable[[str], BaseModel], kind: str, layers: int, targets: str, tmp_path: Path
) -> None:
    base = family(kind)
    bank, frozen = stock(base, layers, targets)
    for shadow in range(2):
        folder = export_peft(bank, frozen, tmp_path / str(shadow), classes=CLASSES, shadow=shadow)
        with silence_transformers():
            model = peft.AutoPeftModelForSequenceClassification.from_pretrained(str(folder), num_labels=3).eval()
        batch = base.tokenizer(TEXTS, padding=True, return_tensors="pt")
        model.base_model.config.pad_token_id = 1
        with torch.no_grad():
            theirs = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        np.testing.assert_allclose(theirs, logits_of(bank, frozen, "none")[shadow], atol=1e-4)


def test_the_stock_head_loads_where_moo_is_not_imported(family: Callable[[str], BaseModel], tmp_path: Path) -> None:
    base = family("bert")
    bank, frozen = stock(base, 1)
    folder = export_peft(bank, frozen, tmp_path / "out", classes=CLASSES)
    exchange = tmp_path / "texts.json"
    exchange.write_text(json.dumps(TEXTS))
    subprocess.run(
        [sys.executable, "-c", OUTSIDE, str(folder), base.name, str(exchange)],
        check=True,
        cwd=tmp_path,
        capture_output=True,
    )
    theirs = np.array(json.loads(exchange.read_text()))
    np.testing.assert_allclose(theirs, logits_of(bank, frozen, "none")[0], atol=1e-4)


RUN_SCRIPTS = """
import json, runpy, sys
for call in json.load(sys.stdin):
    sys.argv = call
    runpy.run_path(call[0], run_name="__main__")
    print("--")
assert not any(name.split(".")[0] == "moo" for name in sys.modules)
"""


def test_the_script_beside_a_stock_head_tells_classes_and_logits_without_moo(
    family: Callable[[str], BaseModel], tmp_path: Path
) -> None:
    """One interpreter runs the scripts of four families one after another: importing transformers takes seconds."""
    calls, expected = [], []
    for kind in ("bert", "gpt2", "llama", "qwen2"):
        base = family(kind)
        bank, frozen = stock(base, 1)
        folder = export_peft(bank, frozen, tmp_path / kind, classes=CLASSES)
        assert not re.search(r"^(import|from) moo", (folder / "load.py").read_text(), re.MULTILINE)
        calls.append([str(folder / "load.py"), *TEXTS, "--base", base.name])
        expected.append(logits_of(bank, frozen, "none")[0])
    call = [sys.executable, "-c", RUN_SCRIPTS]
    done = subprocess.run(call, input=json.dumps(calls), check=True, cwd=tmp_path, capture_output=True, text=True)
    printed = done.stdout.split("--\n")[:-1]
    for text, ours in zip(printed, expected, strict=True):
        lines = [json.loads(line) for line in text.splitlines()]
        np.testing.assert_allclose([row for _, row in lines], ours, atol=1e-4)
        assert [name for name, _ in lines] == [CLASSES[int(i)] for i in ours.argmax(-1)]


@pytest.mark.parametrize("kind", ["bert", "distilbert", "gpt2", "qwen3"])
def test_a_head_that_sees_the_frozen_mean_loads_with_its_own_loader(
    family: Callable[[str], BaseModel], kind: str, tmp_path: Path
) -> None:
    base, depth = family(kind), Depth(adapted_layers=2, targets="query_key_value")
    frozen = frozen_at(base, depth)
    bank = trained_like(frozen, depth, base.hidden)
    model = load_exported(export_peft(bank, frozen, tmp_path / "out", classes=CLASSES, shadow=1))
    batch = base.tokenizer(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        theirs = model(batch["input_ids"], batch["attention_mask"])
    np.testing.assert_allclose(theirs, logits_of(bank, frozen, "mean")[1], atol=1e-4)
    with safe_open(tmp_path / "out" / "head.safetensors", framework="pt") as file:
        assert json.loads(file.metadata()["classes"]) == list(CLASSES)


def test_what_peft_has_no_form_for_is_refused(family: Callable[[str], BaseModel], tmp_path: Path) -> None:
    depth = Depth(adapted_layers=1, layers_dropped=1, n_queries=2)
    frozen = frozen_at(family("bert"), depth)
    with pytest.raises(InputError, match=r"PEFT's format holds LoRA on whole models .*load_bank"):
        export_peft(trained_like(frozen, depth, frozen.base.hidden), frozen, tmp_path / "out", classes=CLASSES)
    with pytest.raises(InputError, match=r"must hold head\.safetensors"):
        load_exported(tmp_path)
