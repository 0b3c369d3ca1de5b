"""Layers of a transformer block that the fast lane opens."""

from dataclasses import dataclass
from typing import Any

from moo.models.pretrained.architectures import Cut, blocks_of


@dataclass(frozen=True)
class BlockParts:
    """Layers of a block with its norms after its sums (post-norm)."""

    query: Any
    key: Any
    value: Any
    dense: Any
    norm: Any
    up: Any
    act: Any
    down: Any
    last_norm: Any


def block_parts(model: Any, cut: Cut) -> BlockParts:
    """Return the layers of the first block of a cut."""
    block: Any = blocks_of(model)[cut.start]
    if model.config.model_type == "distilbert":
        a, f = block.attention, block.ffn
        return BlockParts(
            a.q_lin,
            a.k_lin,
            a.v_lin,
            a.out_lin,
            block.sa_layer_norm,
            f.lin1,
            f.activation,
            f.lin2,
            block.output_layer_norm,
        )
    own, after, up, down = block.attention.self, block.attention.output, block.intermediate, block.output
    return BlockParts(
        own.query,
        own.key,
        own.value,
        after.dense,
        after.LayerNorm,
        up.dense,
        up.intermediate_act_fn,
        down.dense,
        down.LayerNorm,
    )
