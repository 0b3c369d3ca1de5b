"""Export of models of the Opacus engine: parameters, and PEFT's format if there is one."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import peft
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from moo.core.errors import InputError
from moo.models.bank.bank import Depth, Frozen
from moo.models.export.loader import save_loader
from moo.models.export.peft import put_head, save_head, stock_config, stock_model
from moo.models.pretrained.architectures import Family, family_of
from moo.models.pretrained.hf_folder import silence_transformers
from moo.models.pretrained.loading import load_base
from moo.models.reference.adapters import AdapterSpec, Classifier, build_classifier
from moo.models.reference.shadows import ReferenceShadows
from moo.models.trunk.constants import Constants
from moo.models.trunk.encode import last_cut

_MARK, _PUBLIC = "moo.reference", "constants."


def save_reference(shadows: ReferenceShadows, path: Path, *, shadow: int = 0) -> Path:
    """Write one shadow's trained parameters and the public constants, without the frozen model.

    Parameters keep PEFT's names and the head's. `load_reference` reads the file.
    """
    base, constants = shadows.frozen.base, dataclasses.asdict(shadows.frozen.constants)
    state = {_short(name): p.detach().cpu().contiguous() for name, p in shadows.states[shadow].items()}
    state |= {f"{_PUBLIC}{name}": torch.from_numpy(value).contiguous() for name, value in constants.items()}
    about = {"base": base.name, "digest": base.digest, "shape": dataclasses.asdict(shadows.shape)}
    save_file(state, path, metadata={_MARK: json.dumps(about)})
    return path


class Reloaded(nn.Module):
    """Model read by `load_reference`: the logits of the trained model, from tokens."""

    def __init__(self, classifier: Classifier, frozen: Frozen, shape: AdapterSpec) -> None:
        super().__init__()
        self.classifier, self.tokenizer = classifier, frozen.base.tokenizer
        self._frozen, self._shape = frozen, shape

    @torch.no_grad()
    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return logits, shape (n, C), of token ids and mask of shape (n, L), padded at the end."""
        out: Tensor = self.classifier(input_ids, attention_mask, self._features(input_ids, attention_mask))
        return out

    def _features(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Return the frozen features: the mean over tokens, or for a stock head the pooled token.

        Empty for a stock head with an adapted token.
        """
        if not self._shape.n_frozen:
            return torch.zeros(len(ids), 0)
        top, c = self._frozen.base.model(input_ids=ids, attention_mask=mask).last_hidden_state, self._frozen.constants
        if self._shape.depth.head == "stock":
            last = mask.sum(1) - 1 if self._frozen.causal else torch.zeros(len(ids), dtype=torch.long)
            return torch.from_numpy(c.pooled_features(top[torch.arange(len(ids)), last].numpy()))
        mean = (top * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        return torch.from_numpy(c.features(mean.numpy()))


def load_reference(path: Path, *, base: str | None = None) -> Reloaded:
    """Read a file that `save_reference` wrote, for any adaptation, on the CPU.

    Args:
        path: The file.
        base: Base model, if it has moved; its weights must be the same.

    Raises:
        InputError: If the file holds no such model, or the base model has other weights.
    """
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {})[_MARK])
            # The file is no mapping.
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        shape = AdapterSpec(**{**about["shape"], "depth": Depth(**about["shape"]["depth"])})
        fields = [f.name for f in dataclasses.fields(Constants)]
        constants = Constants(**{name: state.pop(f"{_PUBLIC}{name}").numpy() for name in fields})
    except (OSError, KeyError, ValueError, TypeError, SafetensorError) as error:
        raise InputError(
            "{path} must hold a model of the Opacus engine, but does not ({error}); give a file that "
            "save_reference wrote.",
            path=path,
            error=error,
        ) from error
    loaded = load_base(base or about["base"], accelerator="cpu")
    if loaded.digest != about["digest"]:
        raise InputError(
            "The base model's weights must be those of {about!r} in training, but are others; give that model as base.",
            about=about["base"],
        )
    frozen = Frozen(base=loaded, cut=last_cut(loaded), constants=constants)
    classifier = build_classifier(shape, frozen)
    trained = {name: p for name, p in classifier.named_parameters() if p.requires_grad}
    if trained.keys() != state.keys():
        raise InputError(
            "{path} must hold exactly the trained parameters, but differs in {keys}; check the base model.",
            path=path,
            keys=sorted(trained.keys() ^ state.keys())[0],
        )
    for name, p in trained.items():
        p.data.copy_(state[name])
    return Reloaded(classifier, frozen, shape).eval()


def peft_model(shadows: ReferenceShadows, *, shadow: int = 0) -> Any | None:
    """Return a shadow's PEFT model; None for the head alone, full training, other adapters."""
    shadows.select(shadow)
    encoder = shadows.classifier.encoder
    return encoder if isinstance(encoder, peft.PeftModel) else None


def export_reference(
    shadows: ReferenceShadows, frozen: Frozen, folder: Path, *, classes: Sequence[str], stock: bool, shadow: int = 0
) -> Path:
    """Write one shadow's adapter and head in PEFT's format, as `export_peft` does for the bank.

    Args:
        shadows: Trained shadows.
        frozen: Base model.
        folder: Target folder; created if missing.
        classes: Names of the classes, in the order of the labels.
        stock: True if the head saw the adapted token alone; then stock Hugging Face classes load
            it.
        shadow: Position of the exported shadow.

    Raises:
        InputError: If PEFT has no form for the model.
    """
    encoder, family = peft_model(shadows, shadow=shadow), family_of(frozen.base.model)
    if encoder is None:
        raise InputError(
            "PEFT's format holds adapters, but no adapter that PEFT knows was trained; keep model.safetensors."
        )
    head = shadows.classifier.head
    own = {"head_weight": head.weight.detach().cpu()}
    own |= {} if head.bias is None else {"head_bias": head.bias.detach().cpu()[:, None]}
    folder.mkdir(parents=True, exist_ok=True)
    if not stock:
        with silence_transformers():
            encoder.save_pretrained(str(folder))
        save_head(own, frozen, folder, classes)
        return folder
    config = encoder.peft_config["default"]
    if family is None or not isinstance(config, peft.LoraConfig):
        raise InputError(
            "A stock head exports only with LoRA on a model of a known family; train with head = 'with_mean'."
        )
    with silence_transformers():
        wrapped = peft.get_peft_model(
            stock_model(frozen, classes),
            dataclasses.replace(config, **stock_config(frozen, family), inference_mode=True),
        )
        _put_adapters(wrapped, encoder, family)
        put_head(wrapped, own, frozen)
        wrapped.save_pretrained(str(folder))
    save_loader(frozen, folder, classes)
    return folder


def _put_adapters(wrapped: Any, encoder: Any, family: Family) -> None:
    """Copy one PEFT model's LoRA into another's of the same layers.

    Raises:
        InputError: If the layers differ.
    """
    there = {_inside(n, family): p for n, p in encoder.named_parameters() if ".lora_" in n}
    here = {_inside(n, family): p for n, p in wrapped.named_parameters() if ".lora_" in n}
    if there.keys() != here.keys():
        raise InputError(
            "Both models must adapt the same layers, but differ in {keys}; keep moo's own file.",
            keys=sorted(there.keys() ^ here.keys())[0],
        )
    with torch.no_grad():
        for name, p in here.items():
            p.copy_(there[name].detach().cpu())


def _inside(name: str, family: Family) -> str:
    return name[name.rindex(family.blocks + ".") :]


def _short(name: str) -> str:
    """Remove the prefix that Opacus adds to names."""
    return name.removeprefix("_module.")
