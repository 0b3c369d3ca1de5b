"""Base models: loading, refusals, and the reading test of the downloaded encoder."""

import copy
import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from moo.core.errors import DownloadError, InputError, MooError
from moo.models.pretrained.architectures import blocks_of
from moo.models.pretrained.loading import REGISTRY, BaseModel, fetch_model, load_base, pick_device
from moo.models.trunk.encode import encode
from tests.conftest import KNOWN, save_tiny


def test_a_local_folder_is_loaded_frozen_and_named_by_its_weights(tiny_folder: Path, tmp_path: Path) -> None:
    base = load_base(str(tiny_folder), accelerator="cpu")
    assert base.hidden == 32
    assert not base.model.training
    assert not any(p.requires_grad for p in base.model.parameters())
    other = load_base(str(save_tiny(tmp_path / "other", seed=1)), accelerator="cpu")
    assert other.digest != base.digest
    assert load_base(str(tiny_folder), accelerator="cpu").digest == base.digest


@pytest.mark.parametrize("kind", KNOWN)
def test_a_model_reads_as_many_tokens_as_it_has_positions_and_no_more(
    family: Callable[[str], BaseModel], kind: str
) -> None:
    base = family(kind)
    most = base.positions
    assert most is not None
    assert most == (62 if "roberta" in kind else 64)
    assert len(encode(base, ["a" * 80], max_length=most).tokens[0]) == most
    if kind not in ("llama", "qwen2", "qwen3"):  # rotary positions go on, to where the model was never trained
        with pytest.raises((IndexError, RuntimeError)):
            base.model(input_ids=torch.full((1, most + 1), 5))


def test_texts_are_filled_up_to_no_more_than_a_model_can_read(tiny: BaseModel) -> None:
    model = copy.deepcopy(tiny.model)
    table = model.embeddings.position_embeddings
    model.embeddings.position_embeddings = torch.nn.Embedding.from_pretrained(table.weight[:61])
    model.embeddings.position_ids = model.embeddings.position_ids[:, :61]
    model.config.max_position_embeddings = 61
    short = dataclasses.replace(tiny, model=model)
    assert short.positions == 61
    texts = ["a" * 80, "bc" * 9]
    for ours, theirs in zip(
        encode(short, texts, max_length=61).mean, encode(tiny, texts, max_length=61).mean, strict=True
    ):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_pickled_weights_are_refused_unread(tiny_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pickled"
    shutil.copytree(tiny_folder, folder)
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"a pickle that must not be opened")
    with pytest.raises(InputError, match="safetensors") as caught:
        load_base(str(folder), accelerator="cpu")
    assert "\n" not in str(caught.value)


def test_code_that_comes_with_a_model_never_runs(tiny_folder: Path, tmp_path: Path) -> None:
    folder, marker = tmp_path / "coded", tmp_path / "was-run"
    shutil.copytree(tiny_folder, folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "made-up", "auto_map": {"AutoConfig": "code.C", "AutoModel": "code.M"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "code.py").write_text(f"open({str(marker)!r}, 'w')\n")
    with pytest.raises(InputError):
        load_base(str(folder), accelerator="cpu")
    assert not marker.exists()


def test_a_model_that_is_not_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for name in ("/nowhere/at/all", "nobody/nothing-of-the-kind"):
        with pytest.raises(MooError) as caught:
            load_base(name, accelerator="cpu")
        assert "\n" not in str(caught.value)
        assert name in str(caught.value)


def test_an_accelerator_that_is_not_there_is_refused() -> None:
    with pytest.raises(InputError, match="accelerator must be one of"):
        pick_device("tpu")
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="torch sees no CUDA device"):
            pick_device("gpu")


@pytest.mark.slow
def test_the_fetched_encoder_is_a_hugging_face_folder_and_finds_translations_similar() -> None:
    folder = fetch_model("e5-small")
    checked = json.loads((folder / "checked.json").read_text())
    assert checked["translations"] > 0.85
    assert checked["translations"] > checked["unrelated"] + 0.05
    model = transformers.AutoModel.from_pretrained(folder, use_safetensors=True)
    assert (model.config.hidden_size, model.config.num_hidden_layers) == (384, 12)
    assert not list(folder.glob("*.bin"))
    assert load_base("e5-small", accelerator="cpu").hidden == 384


@pytest.mark.slow
def test_the_english_encoder_is_fetched_and_loads_as_it_is() -> None:
    folder = fetch_model("minilm-l6")
    checked = json.loads((folder / "checked.json").read_text())
    assert checked["paraphrases"] > checked["unrelated"] + 0.3
    base = load_base("minilm-l6", accelerator="cpu")
    assert (base.hidden, len(blocks_of(base.model))) == (384, 6)
    assert sum(p.numel() for p in base.model.parameters()) == pytest.approx(22.6e6, rel=0.01)


@pytest.mark.slow
def test_the_decoder_is_opened_from_gguf_once_and_pads_with_its_closing_token() -> None:
    folder = fetch_model("smollm2-135m")
    checked = json.loads((folder / "checked.json").read_text())
    assert checked["sentence"] < checked["shuffled"] - 1
    assert not list(folder.glob("*.gguf"))
    base = load_base("smollm2-135m", accelerator="cpu")
    assert (base.hidden, len(blocks_of(base.model)), base.model.config.num_key_value_heads) == (576, 30, 3)
    assert base.tokenizer.pad_token_id is not None
    out = encode(base, ["a short text", "a text that is somewhat longer than the other"], max_length=16)
    assert np.isfinite(out.mean).all()


@pytest.mark.parametrize("name", list(REGISTRY))
def test_every_registered_model_names_what_it_reads_and_its_licence(name: str) -> None:
    model = REGISTRY[name]
    assert model.licence
    assert model.download_mb > 50
    assert len(model.archive.sha256) == 64
    assert not any(member.endswith((".py", ".so")) for member in model.archive.members)


def test_a_model_that_does_not_read_is_refused(tiny_folder: Path) -> None:
    with pytest.raises(DownloadError, match="must be closer than unrelated"):
        REGISTRY["minilm-l6"].check(tiny_folder)


def test_a_decoder_without_a_padding_token_pads_with_its_closing_one(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "gpt2", kind="gpt2")
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    del settings["pad_token"]
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(InputError, match="padding or closing token"):
        load_base(str(folder), accelerator="cpu")
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "eos_token": "</s>"}))
    base = load_base(str(folder), accelerator="cpu")
    assert base.tokenizer.pad_token_id == 2
    alone, together = (encode(base, texts, max_length=12) for texts in (["ab"], ["ab", "abcdefgh"]))
    assert abs(alone.mean[0] - together.mean[0]).max() < 1e-5  # padding, whatever the token, is not seen
