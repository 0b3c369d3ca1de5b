"""Trained parameters of a bank on disk: safetensors, with the bank's shape in its metadata."""

import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from moo.errors import InputError
from moo.models.bank import Bank, BankConfig
from moo.models.fast_lane import FrozenLayer


def save_bank(bank: Bank, path: Path) -> Path:
    """Write LoRA matrices and head; the frozen base model is left out."""
    tensors = {name: p.detach().cpu().contiguous() for name, p in bank.trainable().items()}
    save_file(tensors, path, metadata={"moo.bank": json.dumps(vars(bank.config))})
    return path


def load_bank(path: Path, layer: FrozenLayer | None) -> Bank:
    """Read what `save_bank` wrote.

    Args:
        path: The file.
        layer: The frozen layer that carried LoRA; None at depth 0.

    Raises:
        InputError: If the file is none of ours, or the layer is missing.
    """
    try:
        with safe_open(path, framework="pt") as file:
            config = BankConfig(**json.loads((file.metadata() or {})["moo.bank"]))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (OSError, KeyError, ValueError, SafetensorError) as error:
        raise InputError(f"the file must hold a bank's parameters, but {path} does not ({error}).") from error
    if config.adapted_layers and layer is None:
        raise InputError(f"{path} adapts a layer: the frozen layer must be given, but got layer=None.")
    seeds = [torch.Generator().manual_seed(0) for _ in range(config.n_shadows)]
    bank = Bank(config, layer if config.adapted_layers else None, tensors["head_weight"].shape[-1], seeds)
    missing = set(bank.trainable()) ^ set(tensors)
    if missing:
        raise InputError(f"the file must hold exactly the bank's parameters, but {path} differs in {sorted(missing)}.")
    with torch.no_grad():
        for name, p in bank.trainable().items():
            p.copy_(tensors[name])
    return bank
