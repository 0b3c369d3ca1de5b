"""Base models from a registered name, hub id or folder; safetensors, never remote code."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from moo.core import validate
from moo.core.errors import InputError
from moo.core.messages import Message
from moo.data.sources.download import Progress
from moo.models.pretrained.catalogue import REGISTRY, fetch_model
from moo.models.pretrained.hf_folder import load_pretrained, silence_transformers

__all__ = [
    "REGISTRY",
    "BaseModel",
    "fetch_model",
    "has_fast_bf16",
    "load_base",
    "pick_device",
    "positions_of",
    "refuse_longer",
    "silence_transformers",
    "weights_digest",
]


@dataclass(frozen=True, kw_only=True)
class BaseModel:
    """Loaded, frozen base model.

    Attributes:
        name: Name as the user gave it.
        model: Hugging Face model, fp32 weights, in eval mode, on `device`.
        tokenizer: Its fast tokenizer.
        device: Device of the trunk.
        digest: SHA-256 of the weights, hex.
        low_precision: True if the device multiplies bf16 matrices in hardware; the frozen layers
            then run in bf16.
    """

    name: str
    model: Any
    tokenizer: Any
    device: torch.device
    digest: str
    low_precision: bool

    @property
    def hidden(self) -> int:
        """Return the width of a hidden state."""
        return int(self.model.config.hidden_size)

    @property
    def positions(self) -> int | None:
        """Return the most tokens that the model can read; None without a bound.

        With rotary positions, the number that it was trained for.
        """
        return positions_of(self.model)


def positions_of(model: torch.nn.Module) -> int | None:
    """Return the most tokens that a model is made for; None if its configuration sets no bound.

    RoBERTa and its kin count positions from behind that of padding, so they have fewer than their
    configuration says.
    """
    found = getattr(model.config, "max_position_embeddings", None)
    if found is None or found < 1:
        return None
    tables = (m for name, m in model.named_modules() if name.endswith("position_embeddings"))
    padding = next((p for m in tables if (p := getattr(m, "padding_idx", None)) is not None), -1)
    return int(found) - padding - 1


def refuse_longer(model: torch.nn.Module, max_length: int, *, name: str, virtual: int = 0) -> None:
    """Raise if texts may be longer than a model is made for.

    Args:
        model: Base model.
        max_length: Tokens kept of a text.
        name: Name of the model, as the user gave it.
        virtual: Virtual tokens before each text, which take positions too.

    Raises:
        InputError: If a text may be too long.
    """
    positions = positions_of(model)
    if positions is not None and max_length > positions - virtual:
        prefix = Message(", of which the largest prefix takes {virtual}", virtual=virtual) if virtual else ""
        raise InputError(
            "training.max_length must be <= {most}, got {max_length}: {name} was trained for {positions} positions"
            "{prefix}; lower it.",
            most=positions - virtual,
            max_length=max_length,
            name=name,
            positions=positions,
            prefix=prefix,
        )


def has_fast_bf16(device: torch.device) -> bool:
    """Return True if bf16 pays off on a device.

    A CPU without AVX512-BF16 or AMX emulates it, six times slower than fp32 (measured).
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    found = torch.cpu.get_capabilities()
    return bool(found.get("avx512_bf16") or found.get("amx_bf16"))


def pick_device(accelerator: str = "auto") -> torch.device:
    """Return the device that Lightning would use for this accelerator.

    Raises:
        InputError: If the accelerator is unknown, or is not on this machine.
    """
    if accelerator not in ("auto", "cpu", "gpu", "cuda"):
        raise InputError(
            "accelerator must be one of auto, cpu, gpu, got {accelerator!r}.",
            accelerator=accelerator,
        )
    there = torch.cuda.is_available()
    if accelerator in ("gpu", "cuda") and not there:
        raise InputError(
            "accelerator must be 'auto' or 'cpu', got {accelerator!r}: torch sees no CUDA device.",
            accelerator=accelerator,
        )
    return torch.device("cuda" if there and accelerator != "cpu" else "cpu")


def load_base(name: str = "e5-small", *, accelerator: str = "auto", progress: Progress | None = None) -> BaseModel:
    """Load a base model.

    Args:
        name: Registered name, local Hugging Face folder, or hub id.
        accelerator: "auto", "cpu" or "gpu".
        progress: Called with (bytes done, bytes in all) during a download.

    Raises:
        InputError: If the folder holds no safetensors weights or no tokenizer with a padding token.
        DownloadError: If a download is needed and fails.
    """
    source: Path | str = fetch_model(name, progress) if name in REGISTRY else name
    try:
        model, tokenizer = load_pretrained(source)
    except (OSError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        raise InputError(
            "model must be one of {registry}, a hub id or a folder with safetensors weights, got {name!r} "
            "({first}).{nearest}",
            registry=sorted(REGISTRY),
            name=name,
            first=first,
            nearest=validate.nearest(name, REGISTRY),
        ) from error
    # Decoders often have no padding token; padding comes after the text and is masked.
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    if tokenizer.pad_token_id is None:
        raise InputError(
            "The tokenizer must have a padding or closing token, but that of {name!r} has none; set one.",
            name=name,
        )
    device = pick_device(accelerator)
    return BaseModel(
        name=name,
        model=model.to(device),
        tokenizer=tokenizer,
        device=device,
        digest=weights_digest(model),
        low_precision=has_fast_bf16(device),
    )


def weights_digest(model: torch.nn.Module) -> str:
    """Return the SHA-256 over names, shapes and bytes of the weights, in order of name."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(memoryview(tensor.detach().cpu().contiguous().numpy()).cast("B"))
    return digest.hexdigest()
