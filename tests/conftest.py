"""A small real encoder with random weights, saved and loaded like any other: no test needs a download for it."""

import dataclasses
import gc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, pre_tokenizers, processors
from tokenizers.models import WordLevel
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedTokenizerFast

from moo.models.pretrained.loading import BaseModel, load_base
from tests.fixtures.command import run_of_the_command, study  # noqa: F401 - fixtures of every module

SPECIAL = ["<s>", "<pad>", "</s>", "<unk>"]
LETTERS = list("abcdefghijklmnopqrstuvwxyz0123456789")


def pytest_collection_finish() -> None:
    """Keep the modules that every test imports out of each garbage collection: trainings collect often."""
    gc.collect()
    gc.freeze()


def small_config(kind: str, *, hidden: int, layers: int, heads: int) -> PretrainedConfig:
    """A configuration of one of the families that moo knows, or of one that it does not."""
    common: dict[str, Any] = {"vocab_size": len(SPECIAL) + len(LETTERS), "pad_token_id": 1}
    if kind == "distilbert":
        own = {
            "dim": hidden,
            "n_layers": layers,
            "n_heads": heads,
            "hidden_dim": 2 * hidden,
            "max_position_embeddings": 64,
        }
    elif kind == "gpt2":
        own = {
            "n_embd": hidden,
            "n_layer": layers,
            "n_head": heads,
            "n_positions": 64,
            "bos_token_id": 0,
            "eos_token_id": 2,
        }
    else:
        own = {
            "hidden_size": hidden,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "intermediate_size": 2 * hidden,
            "max_position_embeddings": 64,
        }
    if kind in ("llama", "qwen2", "qwen3"):
        own |= {"num_key_value_heads": heads // 2, "bos_token_id": 0, "eos_token_id": 2}
    own |= {"qwen3": {"head_dim": hidden // heads}, "electra": {"embedding_size": hidden}}.get(kind, {})
    return AutoConfig.for_model(kind, **common, **own)


def save_tiny(
    folder: Path, *, kind: str = "bert", hidden: int = 32, layers: int = 3, heads: int = 4, seed: int = 0
) -> Path:
    """A model of random weights that reads single letters."""
    torch.manual_seed(seed)
    config = small_config(kind, hidden=hidden, layers=layers, heads=heads)
    plain = {"add_pooling_layer": False} if kind in ("bert", "roberta", "xlm-roberta") else {}
    model = AutoModel.from_config(config, **plain)
    for parameter in model.parameters():  # larger weights than the initialisation, so that texts differ
        parameter.data += 0.1 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    inner = Tokenizer(WordLevel({t: i for i, t in enumerate(SPECIAL + LETTERS)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Split("", "isolated")  # type: ignore[assignment]
    inner.post_processor = processors.TemplateProcessing(  # type: ignore[assignment]
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=inner, cls_token="<s>", sep_token="</s>", pad_token="<pad>", unk_token="<unk>"
    ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session", autouse=True)
def ledgers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """No test writes into the user's own ledgers."""
    home = tmp_path_factory.mktemp("ledgers")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOO_LEDGERS", str(home))
        yield home


@pytest.fixture(scope="session", autouse=True)
def english() -> Iterator[None]:
    """No test speaks the language of the machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOO_LANG", "en")
        yield


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def tiny(tiny_folder: Path) -> BaseModel:
    """In fp32 on every machine: exactness is tested, and processors that multiply bf16 would round."""
    return dataclasses.replace(load_base(str(tiny_folder), accelerator="cpu"), low_precision=False)


KNOWN = ("bert", "roberta", "xlm-roberta", "distilbert", "gpt2", "llama", "qwen2", "qwen3")


@pytest.fixture(scope="session")
def family(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], BaseModel]:
    """A tiny model of a family, in fp32; made once."""
    made: dict[str, BaseModel] = {}

    def of(kind: str) -> BaseModel:
        if kind not in made:
            folder = save_tiny(tmp_path_factory.mktemp(kind), kind=kind, layers=4)
            made[kind] = dataclasses.replace(load_base(str(folder), accelerator="cpu"), low_precision=False)
        return made[kind]

    return of
