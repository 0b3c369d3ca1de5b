"""What the reference path trained, on disk: the parameters as they are, and PEFT's format where PEFT has one."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import peft
import torch
from safetensors.torch import save_file

from moo.errors import InputError
from moo.models.bank import Frozen
from moo.models.blocks import Family, family_of
from moo.models.export import put_head, save_head, stock_config, stock_model
from moo.models.pretrained import hushed
from moo.models.reference import ReferenceShadows


def save_reference(shadows: ReferenceShadows, path: Path, *, shadow: int = 0) -> Path:
    """Write what one shadow trained, under the names of PEFT's parameters and the head's; the frozen model is left out."""
    state = {_short(name): p.detach().cpu().contiguous() for name, p in shadows.states[shadow].items()}
    save_file(state, path, metadata={"moo.reference": json.dumps(sorted(state))})
    return path


def peft_of(shadows: ReferenceShadows, *, shadow: int = 0) -> Any | None:
    """The PEFT model that a shadow trained; None where it trained the head alone, all weights, or adapters that PEFT has none of."""
    shadows.put(shadow)
    encoder = shadows.classifier.encoder
    return encoder if isinstance(encoder, peft.PeftModel) else None


def export_reference(
    shadows: ReferenceShadows, frozen: Frozen, folder: Path, *, classes: Sequence[str], stock: bool, shadow: int = 0
) -> Path:
    """Write one shadow's adapter and head in PEFT's format, as `moo.models.export.export_peft` does for the bank.

    Args:
        shadows: Trained.
        frozen: The base model.
        folder: Made if missing.
        classes: Names of the classes, in the order of the labels.
        stock: Whether the head saw the adapted token alone: then stock Hugging Face classes load it.
        shadow: Which of the models.

    Raises:
        InputError: If PEFT has no form for it.
    """
    encoder, family = peft_of(shadows, shadow=shadow), family_of(frozen.base.model)
    if encoder is None:
        raise InputError(
            "PEFT's format holds adapters, but no adapter that PEFT knows was trained; keep model.safetensors."
        )
    head = shadows.classifier.head
    own = {"head_weight": head.weight.detach().cpu()}
    own |= {} if head.bias is None else {"head_bias": head.bias.detach().cpu()[:, None]}
    folder.mkdir(parents=True, exist_ok=True)
    if not stock:
        with hushed():
            encoder.save_pretrained(str(folder))
        save_head(own, frozen, folder, classes)
        return folder
    config = encoder.peft_config["default"]
    if family is None or not isinstance(config, peft.LoraConfig):
        raise InputError("the stock head leaves with LoRA on a model of a known family; train with head = 'with_mean'.")
    with hushed():
        wrapped = peft.get_peft_model(
            stock_model(frozen, classes),
            dataclasses.replace(config, **stock_config(frozen, family), inference_mode=True),
        )
        _put_adapters(wrapped, encoder, family)
        put_head(wrapped, own, frozen)
        wrapped.save_pretrained(str(folder))
    return folder


def _put_adapters(wrapped: Any, encoder: Any, family: Family) -> None:
    """One PEFT model's LoRA into another's of the same layers; every one of both must find its own."""
    there = {_inside(n, family): p for n, p in encoder.named_parameters() if ".lora_" in n}
    here = {_inside(n, family): p for n, p in wrapped.named_parameters() if ".lora_" in n}
    if there.keys() != here.keys():
        raise InputError(
            f"both models must adapt the same layers, but differ in {sorted(there.keys() ^ here.keys())[0]}."
        )
    with torch.no_grad():
        for name, p in here.items():
            p.copy_(there[name].detach().cpu())


def _inside(name: str, family: Family) -> str:
    return name[name.rindex(family.blocks + ".") :]


def _short(name: str) -> str:
    """Without what Opacus puts in front."""
    return name.removeprefix("_module.")
