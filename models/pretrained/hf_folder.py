"""Loading of Hugging Face folders and hub ids: safetensors, no remote code, frozen, fp32."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import transformers


def load_pretrained(source: Path | str) -> tuple[Any, Any]:
    """Return a frozen base model in eval mode, and its fast tokenizer.

    Raises:
        OSError: If there is none, or it has no safetensors weights.
        ValueError: If it would need code that comes with it.
    """
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    options: dict[str, Any] = {"use_safetensors": True, "trust_remote_code": False}
    config = transformers.AutoConfig.from_pretrained(source, trust_remote_code=False)
    # Decoders would cache keys and values for tokens that are never generated.
    config.use_cache = False
    if config.model_type in ("bert", "roberta", "xlm-roberta"):
        options["add_pooling_layer"] = False
    # Weights of poolers and heads, which a base model lacks, are reported otherwise.
    with silence_transformers():
        model = transformers.AutoModel.from_pretrained(source, config=config, **options)
    return model.float().eval().requires_grad_(False), transformers.AutoTokenizer.from_pretrained(
        source, trust_remote_code=False, use_fast=True
    )


@contextmanager
def silence_transformers() -> Iterator[None]:
    """Silence transformers' notes on layers filled later, and a warning about a name in PEFT."""
    before = transformers.utils.logging.get_verbosity()
    transformers.utils.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
            yield
    finally:
        transformers.utils.logging.set_verbosity(before)
