"""Trained parameters of a bank on disk: safetensors, with the bank's shape in its metadata."""

import dataclasses
import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from moo.core.errors import InputError
from moo.models.bank.bank import Bank, BankConfig, Depth, Frozen


def save_bank(bank: Bank, path: Path) -> Path:
    """Write LoRA matrices and head, without the frozen base model, and return the path."""
    tensors = {name: p.detach().cpu().contiguous() for name, p in bank.trainable().items()}
    save_file(tensors, path, metadata={"moo.bank": json.dumps(dataclasses.asdict(bank.config))})
    return path


def load_bank(path: Path, frozen: Frozen | None) -> Bank:
    """Read a file that `save_bank` wrote.

    Args:
        path: The file.
        frozen: Base model at the bank's depth; None for the head alone.

    Raises:
        InputError: If the file holds no bank, or the base model is missing.
    """
    try:
        with safe_open(path, framework="pt") as file:
            values = json.loads((file.metadata() or {})["moo.bank"])
            # The file is no mapping.
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        config = BankConfig(**{**values, "ranks": tuple(values["ranks"]), "depth": Depth(**values["depth"])})
    except (OSError, KeyError, ValueError, TypeError, SafetensorError) as error:
        raise InputError(
            "{path} must hold a bank's parameters, but does not ({error}); give a file that save_bank wrote.",
            path=path,
            error=error,
        ) from error
    if config.depth.adapted_layers and frozen is None:
        raise InputError("frozen must be a base model, since {path} adapts a layer, got None; load one.", path=path)
    seeds = [torch.Generator().manual_seed(0) for _ in config.ranks]
    adapted = 0 if frozen is None else frozen.base.hidden * max(1, config.depth.n_queries)
    width = tensors["head_weight"].shape[-1] - (adapted if config.depth.adapted_layers else 0)
    bank = Bank(config, frozen, width, seeds)
    missing = set(bank.trainable()) ^ set(tensors)
    if missing:
        raise InputError(
            "{path} must hold exactly the bank's parameters, but differs in {missing}; check the base model.",
            path=path,
            missing=sorted(missing),
        )
    with torch.no_grad():
        for name, p in bank.trainable().items():
            p.copy_(tensors[name])
    return bank
