"""Export of one shadow, or a retrained model, in PEFT's format with its head.

PEFT's files are `adapter_config.json` and `adapter_model.safetensors`. The stock head becomes the
classifier of Hugging Face's own sequence classification, so that
`AutoPeftModelForSequenceClassification` loads it without moo. Scaling by public constants goes into
its layers. Where the stock classifier has a nonlinearity between the pooled token and the output,
the token is sent through its linear range and the output scaled back: tanh(z / 1024) * 1024 equals
z to 1e-6 for the sizes that z takes.

A head that also sees the frozen mean is saved as `head.safetensors` next to the adapter;
`load_exported` reads both.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import peft
import torch
import transformers
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from moo.core.errors import InputError
from moo.models.bank.bank import Bank, Frozen
from moo.models.export.loader import save_loader
from moo.models.pretrained.architectures import Family, family_of, n_blocks
from moo.models.pretrained.loading import load_base, silence_transformers

HEAD_FILE = "head.safetensors"
# Divides the input of a tanh, and multiplies its output.
_RANGE = 1024.0
# Added to the input of a ReLU, and subtracted after it.
_LIFT = 16.0
_KEPT = {"bert": ["pooler", "classifier"], "distilbert": ["pre_classifier", "classifier"]}


def export_peft(bank: Bank, frozen: Frozen, folder: Path, *, classes: Sequence[str], shadow: int = 0) -> Path:
    """Write one shadow's adapter and head.

    Args:
        bank: Trained bank.
        frozen: Base model at the bank's depth.
        folder: Target folder; created if missing.
        classes: Names of the classes, in the order of the labels.
        shadow: Position of the exported shadow in the bank.

    Raises:
        InputError: If PEFT has no form for the model: layers left out, learned queries, or no
            adapted layer.
    """
    family = family_of(frozen.base.model)
    if family is None or not has_peft_form(bank, frozen):
        raise InputError(
            "PEFT's format holds LoRA on whole models of a known family, but got {depth} on {type}; "
            "keep moo's own file, which load_bank reads.",
            depth=bank.config.depth,
            type=type(frozen.base.model).__name__,
        )
    stock = bank.config.depth.head == "stock"
    with silence_transformers():
        model = stock_model(frozen, classes) if stock else _plain_model(frozen)
        wrapped = peft.get_peft_model(model, _config(bank, frozen, family, shadow, stock=stock))
    own = {n: t.float().cpu().contiguous() for n, t in bank.shadow_parameters(shadow).items()}
    _put_lora(wrapped, own, frozen, family)
    if stock:
        put_head(wrapped, own, frozen)
    folder.mkdir(parents=True, exist_ok=True)
    with silence_transformers():
        wrapped.save_pretrained(str(folder))
    if stock:
        save_loader(frozen, folder, classes)
    else:
        save_head(own, frozen, folder, classes)
    return folder


def has_peft_form(bank: Bank, frozen: Frozen) -> bool:
    """Return True if PEFT can hold the model: LoRA on a whole known model, no queries."""
    depth = bank.config.depth
    adapted = depth.adapted_layers > 0 and family_of(frozen.base.model) is not None
    return adapted and not depth.layers_dropped and not depth.n_queries


def stock_model(frozen: Frozen, classes: Sequence[str]) -> Any:
    """Return Hugging Face's own sequence classification around the base model, in fp32."""
    labels = dict(enumerate(classes))
    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        frozen.base.model.name_or_path,
        num_labels=len(classes),
        id2label=labels,
        label2id={c: i for i, c in labels.items()},
        use_safetensors=True,
        trust_remote_code=False,
        dtype=torch.float32,
    )
    model.config.pad_token_id = frozen.base.tokenizer.pad_token_id
    return model


def _plain_model(frozen: Frozen) -> Any:
    return transformers.AutoModel.from_pretrained(
        frozen.base.model.name_or_path, use_safetensors=True, trust_remote_code=False, dtype=torch.float32
    )


def _config(bank: Bank, frozen: Frozen, family: Family, shadow: int, *, stock: bool) -> peft.LoraConfig:
    kind, rank = frozen.base.model.config.model_type, bank.config.ranks[shadow]
    head = stock_config(frozen, family) if stock else {"task_type": "FEATURE_EXTRACTION", "modules_to_save": None}
    first = n_blocks(frozen.base.model) - bank.config.depth.adapted_layers
    return peft.LoraConfig(
        r=rank,
        # PEFT declares int, and divides it by the rank.
        lora_alpha=bank.config.lora_alpha,  # type: ignore[arg-type]
        lora_dropout=0.0,
        target_modules=family.peft_targets(bank.config.depth.targets),
        layers_to_transform=list(range(first, n_blocks(frozen.base.model))),
        layers_pattern=family.blocks.rpartition(".")[2],
        fan_in_fan_out=kind == "gpt2",
        inference_mode=True,
        **head,
    )


def stock_config(frozen: Frozen, family: Family) -> dict[str, Any]:
    """Return PEFT options of Hugging Face's own classifier: task and layers saved whole."""
    kept = _KEPT.get(frozen.base.model.config.model_type, ["score"] if family.causal else ["classifier"])
    return {"task_type": "SEQ_CLS", "modules_to_save": kept}


def _put_lora(wrapped: Any, own: dict[str, Tensor], frozen: Frozen, family: Family) -> None:
    """Copy the bank's matrices into PEFT's.

    Raises:
        InputError: If a matrix of the bank has no counterpart.
    """
    first = n_blocks(frozen.base.model) - frozen.cut.stop + frozen.cut.start
    waiting = {n for n in own if n.startswith("lane.")}
    for name, parameter in wrapped.named_parameters():
        for letter in ("A", "B"):
            path, mark, _ = name.partition(f".lora_{letter}.")
            if not mark:
                continue
            inside = path[path.rindex(family.blocks + ".") + len(family.blocks) + 1 :]
            index, _, layer = inside.partition(".")
            key = _key_in_bank(own, family, int(index) - first, layer, letter.lower())
            parameter.data.copy_(own[key])
            waiting.discard(key)
    if waiting:
        raise InputError(
            "Every adapter must have its place in PEFT's model, but {waiting} has none; keep moo's own file.",
            waiting=sorted(waiting)[0],
        )


def _key_in_bank(own: dict[str, Tensor], family: Family, block: int, layer: str, letter: str) -> str:
    deep = f"lane.model.{family.blocks}.{block}.{layer}.lora_{letter}"
    if deep in own:
        return deep
    order = [family.query, family.key, family.value, *family.others]
    opened = f"{('query', 'key', 'value', 'dense', 'up', 'down')[order.index(layer)]}.lora_{letter}"
    return f"lane.top.{opened}" if f"lane.top.{opened}" in own else f"lane.{opened}"


def put_head(wrapped: Any, own: dict[str, Tensor], frozen: Frozen) -> None:
    """Copy head and public scaling into the stock classifier of each family."""
    kind, c = frozen.base.model.config.model_type, frozen.constants
    scale, shift = torch.from_numpy(c.pooled_scale), torch.from_numpy(c.pooled_shift)
    weight = own["head_weight"]
    bias = own["head_bias"][:, 0] if "head_bias" in own else torch.zeros(len(weight))
    model = wrapped.base_model.model

    def linear(layer: Any, w: Tensor, b: Tensor | None) -> None:
        target = layer.modules_to_save["default"] if hasattr(layer, "modules_to_save") else layer
        target.weight.data.copy_(w)
        if b is not None:
            target.bias.data.copy_(b)

    if frozen.causal:
        linear(model.score, weight * scale, None)
    elif kind == "distilbert":
        linear(model.pre_classifier, torch.diag(scale), _LIFT - shift * scale)
        linear(model.classifier, weight, bias - _LIFT * weight.sum(1))
    elif kind == "bert":
        linear(_default(model.bert.pooler).dense, torch.diag(scale / _RANGE), -shift * scale / _RANGE)
        linear(model.classifier, weight * _RANGE, bias)
    else:
        inner = _default(model.classifier)
        linear(inner.dense, torch.diag(scale / _RANGE), -shift * scale / _RANGE)
        linear(inner.out_proj, weight * _RANGE, bias)


def _default(layer: Any) -> Any:
    return layer.modules_to_save["default"] if hasattr(layer, "modules_to_save") else layer


def save_head(own: dict[str, Tensor], frozen: Frozen, folder: Path, classes: Sequence[str]) -> None:
    """Write a head that also sees the frozen mean, with its scaling; `load_exported` reads it."""
    c = frozen.constants
    tensors = {
        n: torch.from_numpy(getattr(c, n)).contiguous()
        for n in ("mean_shift", "mean_scale", "pooled_shift", "pooled_scale")
    }
    tensors |= {"weight": own["head_weight"], "bias": own["head_bias"][:, 0].contiguous()}
    pooled = "last" if frozen.causal else "first"
    save_file(tensors, folder / HEAD_FILE, metadata={"classes": json.dumps(list(classes)), "pooled": pooled})


class Exported(nn.Module):
    """Exported model with a head that also sees the frozen mean.

    Runs the base model twice, without and with its adapter.
    """

    def __init__(self, model: Any, head: dict[str, Tensor], *, last: bool) -> None:
        super().__init__()
        self.model, self._last = model, last
        self.head = nn.ParameterDict({n: nn.Parameter(t, requires_grad=False) for n, t in head.items()})

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return logits, shape (n, C), of token ids and mask of shape (n, L)."""
        h, mask = self.head, attention_mask[..., None].float()
        top = self._frozen(input_ids, attention_mask)
        mean = (top * mask).sum(1) / mask.sum(1)
        adapted = self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        place = attention_mask.sum(1) - 1 if self._last else torch.zeros(len(adapted), dtype=torch.long)
        pooled = adapted[torch.arange(len(adapted)), place]
        features = [(mean - h["mean_shift"]) * h["mean_scale"], (pooled - h["pooled_shift"]) * h["pooled_scale"]]
        out: Tensor = torch.cat(features, -1) @ h["weight"].mT + h["bias"]
        return out

    def _frozen(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Return the last states without the adapter.

        A prefix is outside the base model, and PEFT cannot disable it on encoders.
        """
        if self.model.active_peft_config.is_prompt_learning:
            outside: Tensor = self.model.get_base_model()(input_ids=ids, attention_mask=mask).last_hidden_state
            return outside
        with self.model.disable_adapter():
            inside: Tensor = self.model(input_ids=ids, attention_mask=mask).last_hidden_state
        return inside


def load_exported(folder: Path, *, base: str | None = None) -> Exported:
    """Read an export with a head that also sees the frozen mean.

    Args:
        folder: Folder written by `export_peft`.
        base: Base model, if it is not at the place named in the adapter's configuration.

    Raises:
        InputError: If the folder has no such head.
    """
    if not (folder / HEAD_FILE).is_file():
        raise InputError(
            "{folder} must hold {head_file}, but does not; load a stock head with "
            "peft.AutoPeftModelForSequenceClassification.",
            folder=folder,
            head_file=HEAD_FILE,
        )
    source = base or peft.PeftConfig.from_pretrained(str(folder)).base_model_name_or_path
    with silence_transformers():
        model = peft.PeftModel.from_pretrained(load_base(str(source), accelerator="cpu").model, str(folder))
    with safe_open(folder / HEAD_FILE, framework="pt") as file:
        last = (file.metadata() or {}).get("pooled") == "last"
    return Exported(model, load_file(folder / HEAD_FILE), last=last).eval()
