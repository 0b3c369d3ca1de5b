"""Deep lane: the top blocks for all tokens, in the model's own code, with LoRA of K shadows.

The model is copied without the blocks below the cut; their output, computed once per text, replaces
the input of its first block. Masks, positions, rotary embeddings and the final norm therefore
remain the model's code, and so do the logits at zero adapters. A last block that the fast lane
supports is left to it, since only the pooled token of its output is read.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from moo.models.bank import batched_attention
from moo.models.bank.fast_lane import FastLane
from moo.models.bank.lora import FrozenLinear, LoraLinear, LoraShape, Pair
from moo.models.pretrained.architectures import Cut, Targets, blocks_of, copy_of, family_of, with_first_input
from moo.models.pretrained.loading import BaseModel
from moo.models.trunk.constants import Constants
from moo.models.trunk.packed import Activations


class DeepLane(nn.Module):
    """Trainable LoRA of K shadows on the blocks of a cut.

    Args:
        base: Model of a known family.
        constants: Public shift and scale of the cut's pooled output.
        cut: Live blocks.
        targets: Layers that carry LoRA.
        shape: Ranks, scale and generators.
    """

    shift: Tensor
    feature_scale: Tensor
    # One in 48 of a chunk's records is computed at a time: a block's activations for all tokens then stay in the cache.
    chunk_divisor = 48

    def __init__(self, base: BaseModel, constants: Constants, cut: Cut, *, targets: Targets, shape: LoraShape) -> None:
        super().__init__()
        family = family_of(base.model)
        assert family is not None
        self.n_features, self._causal = base.hidden, family.causal
        self._dtype = torch.bfloat16 if base.low_precision else torch.float32
        opened = family.fast_lane and cut.stop - cut.start > 1
        self.model = copy_of(base.model, Cut(cut.start, cut.stop - opened))
        if base.device.type == "cpu":
            self.model.config._attn_implementation = batched_attention.NAME
        self.model.to(self._dtype)
        self._names: list[str] = []
        for i, block in enumerate(blocks_of(self.model)):
            _freeze_linears(block, self._dtype)
            for path in family.targets(targets):
                parent, _, name = path.rpartition(".")
                owner = block.get_submodule(parent)
                setattr(owner, name, LoraLinear(getattr(owner, name), shape))
                self._names.append(f"{family.blocks}.{i}.{path}")
        last = Cut(cut.stop - 1, cut.stop)
        self.top = FastLane(base, constants, last, targets=targets, shape=shape) if opened else None
        self._hidden: Tensor | None = None
        self._records = 0
        blocks_of(self.model)[0].register_forward_pre_hook(self._put_in, with_kwargs=True)
        self.register_buffer("shift", torch.from_numpy(constants.pooled_shift))
        self.register_buffer("feature_scale", torch.from_numpy(constants.pooled_scale))
        self.eval()

    # the dropout of frozen blocks stays off
    def train(self, mode: bool = True) -> "DeepLane":  # noqa: ARG002
        """Keep evaluation mode: the dropout of frozen blocks stays off."""
        return super().train(False)

    def run(self, x: Activations, *, capture: bool = False) -> Tensor:
        """Return pooled outputs, shifted and scaled, shape (K, P, d).

        Args:
            x: Records laid out as (K, P), or as (1, P) if all shadows read the same ones.
            capture: Keep the activations that `factors` needs.
        """
        layers = self._adapted()
        k = len(next(iter(layers.values())).lora_a)
        for layer in layers.values():
            layer.capture = capture
        tokens = x.tokens.to(self._dtype).expand(k, *x.tokens.shape[1:])
        mask = x.mask.expand(k, *x.mask.shape[1:])
        self._hidden, self._records = tokens.flatten(0, 1), tokens.shape[1]
        states = self.model(inputs_embeds=self._hidden, attention_mask=mask.flatten(0, 1).long()).last_hidden_state
        self._hidden = None
        states = states.view(tokens.shape)
        if self.top is not None:
            return self.top.run(Activations(x.features, states, mask), capture=capture)
        last = mask.sum(-1) - 1 if self._causal else mask.new_zeros(mask.shape[:2], dtype=torch.long)
        pooled = states.gather(2, last[..., None, None].expand(-1, -1, 1, states.shape[-1])).squeeze(2)
        features: Tensor = (pooled.float() - self.shift) * self.feature_scale
        return features

    def _put_in(self, _: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Replace the input of the first block by the laid-out activations."""
        assert self._hidden is not None
        return with_first_input(args, kwargs, self._hidden)

    def _adapted(self) -> dict[str, LoraLinear]:
        found = {name: self.model.get_submodule(name) for name in self._names}
        return {name: layer for name, layer in found.items() if isinstance(layer, LoraLinear)}

    def taps(self) -> list[Tensor]:
        """Return outputs of the adapted layers, in the order of `factors`' gradients."""
        own = [layer.tap for layer in self._adapted().values()]
        return own if self.top is None else [*own, *self.top.taps()]

    def factors(self, grads: list[Tensor]) -> dict[str, Pair]:
        """Return gradient factors of each record by parameter, each (K, P, tokens, .).

        A top block in the fast lane has factors in that lane's form.

        Args:
            grads: Gradients of the loss at `taps()`.
        """
        out: dict[str, Pair] = {}
        rest = list(grads)
        for name, layer in self._adapted().items():
            out |= {f"model.{name}.{part}": pair for part, pair in layer.factors(rest.pop(0), self._records).items()}
        return out if self.top is None else out | {f"top.{n}": pair for n, pair in self.top.factors(rest).items()}


def _freeze_linears(block: nn.Module, dtype: torch.dtype) -> None:
    """Replace a block's linear layers, GPT-2's transposed ones included, by `FrozenLinear`."""
    for parent in list(block.modules()):
        for name, layer in parent.named_children():
            if isinstance(layer, (nn.Linear, Conv1D)):
                setattr(parent, name, FrozenLinear(layer, dtype))
