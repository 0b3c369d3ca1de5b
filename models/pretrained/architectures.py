"""Blocks and linear layers of Hugging Face models, and copies cut to some of the blocks."""

import copy
from dataclasses import dataclass
from typing import Any, Literal
from weakref import WeakKeyDictionary

import torch
from torch import nn

from moo.core.errors import InputError

Targets = Literal["query_value", "query_key_value", "all_linear"]
TARGETS: tuple[Targets, ...] = ("query_value", "query_key_value", "all_linear")


@dataclass(frozen=True, kw_only=True)
class Family:
    """Architecture family of transformers.

    Attributes:
        blocks: Path of the list of blocks.
        query, key, value: Paths of attention's linear layers within a block; equal where they are
            fused.
        others: Paths of the block's remaining linear layers.
        causal: True for decoders, which are pooled at their last token; encoders are at their
            first.
        fast_lane: True if the last block can be computed for single tokens alone
            (`moo.models.bank.fast_lane`): absolute positions, norms after the sums, no grouped
            queries.
    """

    blocks: str
    query: str
    key: str
    value: str
    others: tuple[str, ...]
    causal: bool = False
    fast_lane: bool = False

    def targets(self, which: Targets) -> tuple[str, ...]:
        """Return the paths within a block of the layers that carry LoRA, without repeats."""
        attention = (self.query, self.value) if which == "query_value" else (self.query, self.key, self.value)
        return tuple(dict.fromkeys(attention + (self.others if which == "all_linear" else ())))

    def peft_targets(self, which: Targets) -> list[str]:
        """Return the same layers as PEFT names them: suffixes within the layers that it transforms."""
        return [path.rpartition(".")[2] if path.count(".") < 2 else path for path in self.targets(which)]


_BERT = Family(
    blocks="encoder.layer",
    query="attention.self.query",
    key="attention.self.key",
    value="attention.self.value",
    others=("attention.output.dense", "intermediate.dense", "output.dense"),
    fast_lane=True,
)
_LLAMA = Family(
    blocks="layers",
    query="self_attn.q_proj",
    key="self_attn.k_proj",
    value="self_attn.v_proj",
    others=("self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"),
    causal=True,
)
FAMILIES = {
    "bert": _BERT,
    "roberta": _BERT,
    "xlm-roberta": _BERT,
    "distilbert": Family(
        blocks="transformer.layer",
        query="attention.q_lin",
        key="attention.k_lin",
        value="attention.v_lin",
        others=("attention.out_lin", "ffn.lin1", "ffn.lin2"),
        fast_lane=True,
    ),
    "gpt2": Family(
        blocks="h",
        query="attn.c_attn",
        key="attn.c_attn",
        value="attn.c_attn",
        others=("attn.c_proj", "mlp.c_fc", "mlp.c_proj"),
        causal=True,
    ),
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
}


@dataclass(frozen=True, order=True)
class Cut:
    """Live blocks of a model, computed for every example: start..stop - 1.

    Those below are computed once per text, those above never.

    Attributes:
        start: First live block, >= 0.
        stop: One past the last live block; below the number of blocks where the top is dropped.
    """

    start: int
    stop: int


def family_of(model: Any) -> Family | None:
    """Return the model's family, or None if moo does not know its blocks."""
    found = FAMILIES.get(str(model.config.model_type))
    return None if found is None or not isinstance(_at(model, found.blocks), nn.ModuleList) else found


def supports_fast_lane(model: Any) -> bool:
    """Return True if a block of the model can be computed for one token alone."""
    family = family_of(model)
    return family is not None and family.fast_lane


def is_causal(model: Any) -> bool:
    """Return True for a decoder: pooled at its last token, its first token sees no later one.

    Known families are looked up. Any other model is tested once: configurations have no common
    field for it.
    """
    family = family_of(model)
    if family is not None:
        return family.causal
    if model not in _ASKED:
        _ASKED[model] = sees_no_later_token(model)
    return _ASKED[model]


_ASKED: WeakKeyDictionary[Any, bool] = WeakKeyDictionary()


@torch.no_grad()
def sees_no_later_token(model: Any) -> bool:
    """Return True if changing a text's last token leaves the first token's state unchanged."""
    ids = sample_token_ids(model, 5)
    texts = (ids[:, [0, 1, 2, 3]], ids[:, [0, 1, 2, 4]])
    one, other = (model(input_ids=x, attention_mask=torch.ones_like(x)).last_hidden_state[0, 0] for x in texts)
    return bool((one - other).norm() <= 1e-6 * one.norm())


def sample_token_ids(model: Any, n: int) -> torch.Tensor:
    """Return a text of n different tokens, shape (1, n), none of them padding.

    They come from the middle of the vocabulary, where all are trained.
    """
    words = model.get_input_embeddings().weight
    pad = getattr(model.config, "pad_token_id", None)
    found = [i for i in range(len(words) // 2, len(words)) if i != pad]
    return torch.tensor([found[:n]], device=words.device)


def n_blocks(model: Any) -> int:
    """Return the number of blocks; 0 for an unknown family."""
    family = family_of(model)
    return 0 if family is None else len(_at(model, family.blocks))


def cut_of(model: Any, *, adapted_layers: int, layers_dropped: int = 0) -> Cut:
    """Return the live blocks of a depth.

    A model without known blocks has the empty cut (0, 0): it runs whole.

    Raises:
        InputError: If the model has too few blocks.
    """
    n = n_blocks(model)
    if n == 0 and not adapted_layers:
        return Cut(0, 0)
    if n == 0:
        known = ", ".join(sorted(FAMILIES))
        raise InputError(
            "adapted_layers must be 0 with engine='bank' on {type}, which is of no known family ({known}), "
            "got {adapted_layers}; use adapted_layers=0 or engine='opacus'.",
            adapted_layers=adapted_layers,
            known=known,
            type=type(model).__name__,
        )
    if adapted_layers + layers_dropped > n:
        raise InputError(
            "adapted_layers + layers_dropped must be <= {n}, the model's layers, got "
            "{adapted_layers} + {layers_dropped}; lower one.",
            n=n,
            adapted_layers=adapted_layers,
            layers_dropped=layers_dropped,
        )
    stop = n - layers_dropped
    # The head alone shares the trunk of one adapted layer.
    return Cut(stop - max(1, adapted_layers), stop)


def copy_of(model: Any, cut: Cut) -> Any:
    """Return a copy with the cut's blocks alone and no word embeddings, fed block inputs.

    Everything around the blocks (masks, positions, the final norm) remains the model's code.
    """
    family = family_of(model)
    if family is None:
        raise InputError("model must be of a known family, got {type}; use engine='opacus'.", type=type(model).__name__)
    blocks = _at(model, family.blocks)
    left_out: dict[int, Any] = {id(b): None for i, b in enumerate(blocks) if not cut.start <= i < cut.stop}
    left_out[id(model.get_input_embeddings())] = nn.Identity()
    out = copy.deepcopy(model, {k: nn.Identity() if v is None else v for k, v in left_out.items()})
    parent, _, name = family.blocks.rpartition(".")
    setattr(_at(out, parent), name, nn.ModuleList(list(_at(out, family.blocks))[cut.start : cut.stop]))
    return out.requires_grad_(False).eval()


def without_blocks_from(model: Any, stop: int) -> Any:
    """Return the model without the blocks from `stop` on; weights are shared."""
    family = family_of(model)
    if family is None or stop == n_blocks(model):
        return model
    *parents, name = family.blocks.split(".")
    out = inner = _shallow(model)
    for part in parents:
        inner._modules[part] = _shallow(inner._modules[part])
        inner = inner._modules[part]
    inner._modules[name] = blocks_of(model)[:stop]
    return out


def blocks_of(model: Any) -> nn.ModuleList:
    """Return the list of blocks of a model of a known family."""
    family = family_of(model)
    assert family is not None
    found = _at(model, family.blocks)
    assert isinstance(found, nn.ModuleList)
    return found


def first_input(args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor:
    """Return the hidden states that a block was called with, by position or by name."""
    found: torch.Tensor = args[0] if args else kwargs["hidden_states"]
    return found


def with_first_input(
    args: tuple[Any, ...], kwargs: dict[str, Any], hidden: torch.Tensor
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments of the same call with other hidden states."""
    return ((hidden, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": hidden})


def _shallow(module: Any) -> Any:
    out = copy.copy(module)
    out._modules = dict(module._modules)
    return out


def _at(module: Any, path: str) -> Any:
    for part in path.split(".") if path else []:
        module = getattr(module, part, None)
    return module
