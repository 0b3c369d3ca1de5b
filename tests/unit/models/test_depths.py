"""Depths below the top: the whole model's frozen mean, and constants for a middle layer."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from moo.models.bank.feature_scaling import constants
from moo.models.pretrained.architectures import Cut, n_blocks
from moo.models.pretrained.loading import BaseModel
from moo.models.trunk.cache import TrunkCache
from moo.models.trunk.constants import public_texts
from moo.models.trunk.encode import encode, states_below
from tests.conftest import KNOWN

TEXTS = ["abc", "hello world 12", "zz", "the quick brown fox"]
CUTS = [Cut(3, 4), Cut(1, 2), Cut(0, 3), Cut(0, 4)]


def hidden(base: BaseModel, text: str) -> tuple[torch.Tensor, ...]:
    """Return the unmodified model's states, each (length, d).

    Embeddings come first, then the output of every block, the last one with the final norm.
    """
    ids = base.tokenizer(text, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        return tuple(s[0] for s in base.model(input_ids=ids, output_hidden_states=True).hidden_states)


@pytest.mark.parametrize("kind", KNOWN)
@pytest.mark.parametrize("cut", CUTS)
def test_the_head_sees_the_whole_models_mean_at_every_cut(
    family: Callable[[str], BaseModel], kind: str, cut: Cut
) -> None:
    base = family(kind)
    out = encode(base, TEXTS, max_length=24, cut=cut)
    for i, text in enumerate(TEXTS):
        states = hidden(base, text)
        np.testing.assert_allclose(out.mean[i], states[-1].mean(0), atol=1e-5)
        np.testing.assert_allclose(out.tokens[i], states[cut.start], atol=1e-5)


@pytest.mark.parametrize("kind", KNOWN)
def test_without_the_blocks_above_the_states_are_those_of_a_model_that_never_had_them(
    family: Callable[[str], BaseModel], kind: str
) -> None:
    base = family(kind)
    assert n_blocks(base.model) == 4
    whole, two = (states_below(base, TEXTS, max_length=24, stop=stop) for stop in (4, 2))
    for i, text in enumerate(TEXTS):
        states = hidden(base, text)
        np.testing.assert_allclose(whole[i], states[-1], atol=1e-5)
        own = states[2] if base.model.config.model_type not in ("gpt2", "llama", "qwen2", "qwen3", "mistral") else None
        if own is not None:  # decoders have a norm behind their last block, whichever it is
            np.testing.assert_allclose(two[i], own, atol=1e-5)


@pytest.mark.parametrize("kind", ["bert", "gpt2"])
def test_below_the_top_features_are_scaled_by_all_tokens_and_shifted_by_the_pooled_one(
    family: Callable[[str], BaseModel], kind: str
) -> None:
    base = family(kind)
    found = constants(base, max_length=24, cut=Cut(1, 2))
    states = states_below(base, public_texts(), max_length=24, stop=2)
    pooled = np.stack([s[-1 if kind == "gpt2" else 0] for s in states])
    np.testing.assert_allclose(found.pooled_features(pooled).mean(0), 0, atol=1e-4)
    tokens = found.pooled_features(np.concatenate(states))
    np.testing.assert_allclose(tokens.var(0).sum(), 1.0, rtol=1e-3)
    top = constants(base, max_length=24, cut=Cut(3, 4))
    pooled = top.pooled_features(encode(base, public_texts(), max_length=24).pooled)
    np.testing.assert_allclose(np.square(pooled).sum(1).mean(), 1.0, rtol=1e-3)
    np.testing.assert_array_equal(found.mean_scale, top.mean_scale)


def test_depths_that_begin_at_the_same_block_share_their_activations(
    family: Callable[[str], BaseModel], tmp_path: Path
) -> None:
    base = family("bert")
    one, two = (
        TrunkCache(tmp_path, b"k" * 32, base, max_length=24, cut=Cut(1, stop), limit_gib=1.0) for stop in (2, 4)
    )
    below = one.packed(TEXTS, constants(base, max_length=24, cut=Cut(1, 2)))
    written = {p.name: p.stat().st_size for p in tmp_path.glob("*.segment")}
    done: list[int] = []
    again = two.packed(TEXTS, constants(base, max_length=24, cut=Cut(1, 4)), progress=done.append)
    assert done[0] == len(TEXTS)
    assert {p.name: p.stat().st_size for p in tmp_path.glob("*.segment")} == written
    torch.testing.assert_close(again.tokens, below.tokens, rtol=0, atol=0)
    torch.testing.assert_close(again.features, below.features, rtol=0, atol=0)
