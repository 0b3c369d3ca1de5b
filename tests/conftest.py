"""A small real encoder with random weights, saved and loaded like any other: no test needs a download for it."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, pre_tokenizers, processors
from tokenizers.models import WordLevel
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from moo.models.base_models import BaseModel, load_base

SPECIAL = ["<s>", "<pad>", "</s>", "<unk>"]
LETTERS = list("abcdefghijklmnopqrstuvwxyz0123456789")


def save_tiny(folder: Path, *, hidden: int = 32, layers: int = 3, heads: int = 4, seed: int = 0) -> Path:
    """A BERT of random weights that reads single letters."""
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(SPECIAL) + len(LETTERS),
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=2 * hidden,
        max_position_embeddings=64,
        pad_token_id=1,
    )
    model = BertModel(config, add_pooling_layer=False)
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


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def tiny(tiny_folder: Path) -> BaseModel:
    """In fp32 on every machine: exactness is tested, and processors that multiply bf16 would round."""
    return dataclasses.replace(load_base(str(tiny_folder), accelerator="cpu"), low_precision=False)
