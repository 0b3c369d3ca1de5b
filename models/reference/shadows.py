"""Trained shadows of the Opacus engine, and the texts that they read."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from moo.models.bank.bank import Frozen
from moo.models.reference.adapters import AdapterSpec
from moo.models.trunk.packed import Packed


class ReferenceShadows:
    """K trained models that share frozen weights: one classifier, and each shadow's parameters.

    Args:
        model: Classifier wrapped by Opacus.
        states: Trained parameters, one dictionary per shadow.
        shape: Trainable part of each shadow.
        frozen: Shared frozen parts.
    """

    def __init__(self, model: Any, states: list[dict[str, Tensor]], *, shape: AdapterSpec, frozen: Frozen) -> None:
        self.model, self.states, self.shape, self.frozen = model, states, shape, frozen
        self._pad = int(frozen.base.tokenizer.pad_token_id)

    @property
    def classifier(self) -> Any:
        """Return the model without Opacus' wrapper."""
        return self.model._module

    def select(self, shadow: int) -> None:
        """Load one shadow's parameters into the model."""
        _load(self.model, self.states[shadow])

    @torch.no_grad()
    def log_probs(self, packed: Packed, *, chunk: int) -> Tensor:
        """Return log-probabilities of every shadow on every text, shape (K, n, C), nats.

        A quarter of a chunk of texts is computed at a time.
        """
        order = torch.from_numpy(np.argsort([len(i) for i in packed.ids], kind="stable"))
        out = []
        self.model.eval()
        for state in self.states:
            _load(self.model, state)
            parts = []
            for rows in torch.split(order, max(1, chunk // 4)):
                ids, mask = pad_token_ids(packed, rows, self._pad)
                features = packed.features[rows.to(packed.features.device)].to(ids.device)
                parts.append(self.model(ids, mask, features).log_softmax(-1))
            by_length = torch.cat(parts)
            out.append(torch.empty_like(by_length).index_copy_(0, order, by_length))
        return torch.stack(out)


def _load(model: Any, state: dict[str, Tensor]) -> None:
    for name, p in model.named_parameters():
        if name in state:
            p.data.copy_(state[name])


def pad_token_ids(packed: Packed, rows: Tensor, pad: int) -> tuple[Tensor, Tensor]:
    """Return token ids and mask of some texts, each (n, L), padded at the end to the longest."""
    texts = [packed.ids[i] for i in rows.tolist()]
    ids = torch.full((len(texts), max(map(len, texts))), pad)
    mask = torch.zeros_like(ids)
    for j, text in enumerate(texts):
        ids[j, : len(text)] = torch.tensor(text)
        mask[j, : len(text)] = 1
    return ids, mask
