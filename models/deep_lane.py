"""The deep lane: the top blocks for all tokens, in the model's own code, with LoRA of K shadows on their linear layers.

The model is copied without the blocks below the cut; their output, computed once per text, is put in place of what its first block
would be called with. Masks, positions, rotary embeddings and the final norm are therefore the model's own, and at zero adapters so are
the logits.
"""

from typing import Any

import torch
from torch import Tensor, nn

from moo.models.activations import Activations
from moo.models.base_models import BaseModel
from moo.models.blocks import Cut, Targets, blocks_of, copy_of, family_of, with_first_input
from moo.models.lora import LoraLinear, LoraShape, Pair, split_axis
from moo.models.scaling import Constants


class DeepLane(nn.Module):
    """Trainable LoRA of K shadows on the blocks of a cut.

    Args:
        base: A model of a known family.
        constants: Public shift and scale of the cut's pooled output.
        cut: The live blocks.
        targets: Layers that carry LoRA.
        shape: Ranks, scale and generators.
    """

    shift: Tensor
    feature_scale: Tensor

    def __init__(self, base: BaseModel, constants: Constants, cut: Cut, *, targets: Targets, shape: LoraShape) -> None:
        super().__init__()
        family = family_of(base.model)
        assert family is not None
        self.n_features, self._causal, self._low_precision = base.hidden, family.causal, base.low_precision
        self.model = copy_of(base.model, cut)
        self._names: list[str] = []
        for i, block in enumerate(blocks_of(self.model)):
            for path in family.targets(targets):
                parent, _, name = path.rpartition(".")
                owner = block.get_submodule(parent)
                setattr(owner, name, LoraLinear(getattr(owner, name), shape))
                self._names.append(f"{family.blocks}.{i}.{path}")
        if base.low_precision:
            _halve(blocks_of(self.model))
        self._hidden: Tensor | None = None
        blocks_of(self.model)[0].register_forward_pre_hook(self._put_in, with_kwargs=True)
        self.register_buffer("shift", torch.from_numpy(constants.pooled_shift))
        self.register_buffer("feature_scale", torch.from_numpy(constants.pooled_scale))
        self.eval()

    def train(self, mode: bool = True) -> "DeepLane":  # noqa: ARG002 - the dropout of frozen blocks stays off
        return super().train(False)

    def run(self, x: Activations, *, capture: bool = False) -> Tensor:
        """Pooled outputs, shifted and scaled: shape (K, P, d).

        Args:
            x: Records laid out as (K, P), or as (1, P) where all shadows look at the same.
            capture: Keep what `factors` needs.
        """
        layers = self._adapted()
        k = len(next(iter(layers.values())).lora_a)
        for layer in layers.values():
            layer.capture = capture
        tokens = x.tokens.float().expand(k, *x.tokens.shape[1:]).flatten(0, 1)
        mask = x.mask.expand(k, *x.mask.shape[1:]).flatten(0, 1)
        self._hidden = tokens
        with torch.autocast(tokens.device.type, dtype=torch.bfloat16, enabled=self._low_precision):
            top = self.model(inputs_embeds=tokens, attention_mask=mask.long()).last_hidden_state.float()
        self._hidden = None
        last = mask.sum(-1) - 1 if self._causal else torch.zeros(len(mask), dtype=torch.long, device=mask.device)
        pooled = top[torch.arange(len(top), device=top.device), last]
        return split_axis(((pooled - self.shift) * self.feature_scale), 0, (k, -1))

    def _put_in(self, _: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        assert self._hidden is not None
        return with_first_input(args, kwargs, self._hidden)

    def _adapted(self) -> dict[str, LoraLinear]:
        found = {name: self.model.get_submodule(name) for name in self._names}
        return {name: layer for name, layer in found.items() if isinstance(layer, LoraLinear)}

    def taps(self) -> list[Tensor]:
        """Outputs of the adapted layers, in the order in which `factors` takes their gradients."""
        return [layer.tap for layer in self._adapted().values()]

    def factors(self, grads: list[Tensor]) -> dict[str, Pair]:
        """Gradient factors of each record by parameter, each (K, P, tokens, .).

        Args:
            grads: Of the loss at `taps()`.
        """
        out: dict[str, Pair] = {}
        for (name, layer), grad in zip(self._adapted().items(), grads, strict=True):
            records = grad.shape[0] // len(layer.lora_a)
            out |= {f"model.{name}.{part}": pair for part, pair in layer.factors(grad, records).items()}
        return out


def _halve(blocks: nn.Module) -> None:
    """Frozen matrices to bf16 once, in place of at every call."""
    for layer in blocks.modules():
        if type(layer).__name__ in ("Linear", "Conv1D"):
            layer.weight.data = layer.weight.data.bfloat16()
            if layer.bias is not None:
                layer.bias.data = layer.bias.data.bfloat16()
