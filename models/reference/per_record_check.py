"""Check that each record has its own gradient under Opacus' hooks, as clipping requires."""

import warnings
from typing import Any

import torch
from torch import Tensor

from moo.core.errors import InputError
from moo.models.bank.lightning_module import is_out_of_memory
from moo.models.dp.losses import losses
from moo.models.pretrained.architectures import sample_token_ids
from moo.models.pretrained.loading import BaseModel


def check_per_record_gradients(model: Any, base: BaseModel, *, n_frozen: int) -> None:
    """Compare Opacus' gradients of two unlike records with autograd's of each alone.

    The two records are made up and differ in length. A layer that is called once for a whole batch
    (positions; DeBERTa's keys of relative positions) or with records laid end to end (OPT's
    feed-forward layers) has other gradients there, and a unit could move the sum by more than the
    clip. Runs before a training.

    Args:
        model: Model under Opacus' hooks, on the base model's device, with a head that is not zero.
        base: Base model.
        n_frozen: Width of the frozen features.

    Raises:
        InputError: If a trained parameter has no gradient, or not one for each record.
    """
    draw = torch.Generator().manual_seed(0)
    features = torch.randn(2, n_frozen, generator=draw).to(base.device)
    ids = sample_token_ids(base.model, 8).to(base.device)
    texts = [ids[:, :5], ids[:, 5:]]
    together = torch.cat([texts[0], torch.nn.functional.pad(texts[1], (0, 2), value=int(base.tokenizer.pad_token_id))])
    mask = torch.ones_like(together)
    mask[1, 3:] = 0
    name = type(base.model).__name__
    try:
        _backward(model, together, mask, features, of=name)
        found = {n: p.grad_sample for n, p in model.named_parameters() if p.requires_grad}
        for i, text in enumerate(texts):
            _backward(model, text, torch.ones_like(text), features[i : i + 1], of=name, label=i)
            alone = {n: p.grad for n, p in model.named_parameters() if p.requires_grad}
            _compare(name, found, alone, i)
    except (RuntimeError, TypeError, AttributeError, IndexError, ValueError) as error:
        if isinstance(error, InputError) or is_out_of_memory(error):
            raise
        raise InputError(
            "{name} must run under PEFT and Opacus, but does not with this adaptation ({error}); use "
            "another adaptation.",
            name=name,
            error=error,
        ) from error
    finally:
        model.zero_grad(set_to_none=True)


def _backward(model: Any, ids: Tensor, mask: Tensor, features: Tensor, *, of: str, label: int = 0) -> None:
    model.zero_grad(set_to_none=True)
    labels = torch.arange(len(ids), device=ids.device) + label
    record_losses = losses(model(ids, mask, features), labels)
    for name, layer in model.named_modules():
        if any(len(x) != len(ids) for taken in getattr(layer, "activations", ()) for x in taken):
            raise InputError(
                "Every trained layer must be called with one row a record, or no clipping bounds a record's "
                "contribution, but {short} of {of} is not; use other targets or another adaptation.",
                short=_short(name),
                of=of,
            )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*Full backward hook is firing.*")
        record_losses.sum().backward()  # type: ignore[no-untyped-call]


def _compare(of: str, found: dict[str, Any], alone: dict[str, Any], record: int) -> None:
    whole = sum(float(g.norm()) for g in alone.values() if g is not None)
    for name, reference in alone.items():
        taken = found[name]
        if reference is None or taken is None:
            raise InputError(
                "Every trained parameter must reach the prediction, but {short} of {of} does not; use "
                "other targets or another adaptation.",
                short=_short(name),
                of=of,
            )
        if len(taken) != 2 or float((taken[record] - reference).norm()) > 1e-3 * float(reference.norm()) + 1e-6 * whole:
            raise InputError(
                "Each record must have its own gradient, or no clipping bounds its contribution, but under Opacus "
                "{short} of {of} has another; use other targets or another adaptation.",
                short=_short(name),
                of=of,
            )


def _short(name: str) -> str:
    return name.removeprefix("_module.")
