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
    """Write LoRA matrices and head; the frozen base model is left out."""
    tensors = {name: p.detach().cpu().contiguous() for name, p in bank.trainable().items()}
    save_file(tensors, path, metadata={"moo.bank": json.dumps(dataclasses.asdict(bank.config))})
    return path


def load_bank(path: Path, frozen: Frozen | None) -> Bank:
    """Read what `save_bank` wrote.

    Args:
        path: The file.
        frozen: The base model at the bank's depth; None for the head alone.

    Raises:
        InputError: If the file is none of ours, or the base model is missing.
    """
    try:
        with safe_open(path, framework="pt") as file:
            values = json.loads((file.metadata() or {})["moo.bank"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        config = BankConfig(**{**values, "ranks": tuple(values["ranks"]), "depth": Depth(**values["depth"])})
    except (OSError, KeyError, ValueError, TypeError, SafetensorError) as error:
        raise InputError(
            "the file must hold a bank's parameters, but {path} does not ({error}).", path=path, error=error
        ) from error
    if config.depth.adapted_layers and frozen is None:
        raise InputError("{path} adapts a layer: the frozen base model must be given, but got frozen=None.", path=path)
    seeds = [torch.Generator().manual_seed(0) for _ in config.ranks]
    adapted = 0 if frozen is None else frozen.base.hidden * max(1, config.depth.n_queries)
    width = tensors["head_weight"].shape[-1] - (adapted if config.depth.adapted_layers else 0)
    bank = Bank(config, frozen, width, seeds)
    missing = set(bank.trainable()) ^ set(tensors)
    if missing:
        raise InputError(
            "the file must hold exactly the bank's parameters, but {path} differs in {missing}.",
            path=path,
            missing=sorted(missing),
        )
    with torch.no_grad():
        for name, p in bank.trainable().items():
            p.copy_(tensors[name])
    return bank
