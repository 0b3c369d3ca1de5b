"""Base models: a registered name, a hub id or a local folder; safetensors only, and no remote code, always."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from moo.core import validate
from moo.core.errors import InputError
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
    """A loaded, frozen base model.

    Attributes:
        name: As the user gave it.
        model: The Hugging Face model, fp32 weights, in eval mode, on `device`.
        tokenizer: Its fast tokenizer.
        device: Where the trunk runs.
        digest: SHA-256 of the weights file, hex.
        low_precision: True where the device multiplies bf16 matrices in hardware, so that the frozen layers run in it.
    """

    name: str
    model: Any
    tokenizer: Any
    device: torch.device
    digest: str
    low_precision: bool

    @property
    def hidden(self) -> int:
        return int(self.model.config.hidden_size)

    @property
    def positions(self) -> int | None:
        """Largest number of tokens that it can read, or, with rotary positions, was trained for; None where nothing bounds them."""
        return positions_of(self.model)


def positions_of(model: torch.nn.Module) -> int | None:
    """Return the largest number of tokens that a model is made for; None where its configuration sets no bound.

    RoBERTa and its kin count positions from behind that of padding, and so have fewer than their configuration says.
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
        model: The base model.
        max_length: Tokens kept of a text.
        name: Of the model, as the user gave it.
        virtual: Virtual tokens before each text, which take positions too.

    Raises:
        InputError: If they may.
    """
    most = positions_of(model)
    if most is not None and max_length > most - virtual:
        beside = f", {virtual} of which the largest prefix takes" if virtual else ""
        raise InputError(
            "training.max_length must be <= {most}, got {max_length}: {name} was trained for {most2} "
            "positions{beside}, and has none, or none that it knows, for a longer text; lower it.",
            most=most - virtual,
            max_length=max_length,
            name=name,
            most2=most,
            beside=beside,
        )


def has_fast_bf16(device: torch.device) -> bool:
    """Whether bf16 is worth it: a CPU without AVX512-BF16 or AMX emulates it, six times slower than fp32 (measured)."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    found = torch.cpu.get_capabilities()
    return bool(found.get("avx512_bf16") or found.get("amx_bf16"))


def pick_device(accelerator: str = "auto") -> torch.device:
    """The device that Lightning would take for this accelerator.

    Raises:
        InputError: If the accelerator is unknown, or is not on this machine.
    """
    if accelerator not in ("auto", "cpu", "gpu", "cuda"):
        raise InputError(
            "accelerator in ['auto', 'cpu', 'gpu'] must hold, but got accelerator={accelerator!r}.",
            accelerator=accelerator,
        )
    there = torch.cuda.is_available()
    if accelerator in ("gpu", "cuda") and not there:
        raise InputError(
            "accelerator={accelerator!r} needs a CUDA device, but torch sees none; use accelerator='auto'.",
            accelerator=accelerator,
        )
    return torch.device("cuda" if there and accelerator != "cpu" else "cpu")


def load_base(name: str = "e5-small", *, accelerator: str = "auto", progress: Any = None) -> BaseModel:
    """Load a base model.

    Args:
        name: A registered name, a local Hugging Face folder, or a hub id.
        accelerator: "auto", "cpu" or "gpu".
        progress: Called with (bytes done, bytes in all) during a download.

    Raises:
        InputError: If the folder holds no safetensors weights or no tokenizer with a padding token.
        DownloadError: If it must be fetched and cannot be.
    """
    source: Path | str = fetch_model(name, progress) if name in REGISTRY else name
    try:
        model, tokenizer = load_pretrained(source)
    except (OSError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        raise InputError(
            "model must be one of {registry}, a hub id or a folder with safetensors weights, but got "
            "model={name!r} ({first}).{nearest}",
            registry=sorted(REGISTRY),
            name=name,
            first=first,
            nearest=validate.nearest(name, REGISTRY),
        ) from error
    if tokenizer.pad_token_id is None:  # decoders often have none; padding stands behind the text and is masked
        tokenizer.pad_token = tokenizer.eos_token
    if tokenizer.pad_token_id is None:
        raise InputError(
            "the tokenizer must have a padding or closing token, but that of model={name!r} has none; set one.",
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
    """SHA-256 over names, shapes and bytes of the weights, in the order of their names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(memoryview(tensor.detach().cpu().contiguous().numpy()).cast("B"))
    return digest.hexdigest()
