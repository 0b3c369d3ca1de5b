"""Loop written without moo: PEFT and Opacus around the base model, shadow by shadow.

It has two ways. The common one: fp32, every batch padded to the same length. The best one: batches
sorted by length, padded to their own longest text, large physical batches, bf16 where the processor
has it. Both share pooling, frozen mean features and optimizers with the measured engine, so that
zero noise and the same draws lead to the same parameters.
"""

import copy
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from opacus import GradSampleModule
from opacus.optimizers import DPOptimizer
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from torch.nn import functional

from moo.models.bank.lightning_module import CombinedOptimizer, OptimizerSettings
from moo.models.dp.optimizer import per_shadow
from moo.models.pretrained.loading import BaseModel
from moo.models.trunk.constants import Constants


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Settings of the mathematics; the same for both ways and for the engine.

    Attributes:
        lora_rank, lora_alpha: Rank and scale of LoRA on query and value of the adapted layers.
        layers: Adapted layers, counted from the top.
        sample_rate: Rate of Poisson sampling.
        steps: Optimizer steps.
        max_grad_norm, noise_multiplier, expected_batch_size: DP-SGD, per record.
        optimizer: Step sizes.
        max_length: Tokens kept of a text.
    """

    lora_rank: int = 8
    lora_alpha: int = 16
    layers: int = 1
    sample_rate: float = 0.25
    steps: int = 20
    max_grad_norm: float = 0.3
    noise_multiplier: float = 0.0
    expected_batch_size: float = 100.0
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    max_length: int = 64


@dataclass(frozen=True, kw_only=True)
class Way:
    """Settings of the speed alone.

    Attributes:
        physical_batch: Texts computed at a time.
        by_length: True to sort a step's texts by length and pad to the longest of each physical
            batch; else pad to max_length.
        bf16: True to use autocast.
    """

    physical_batch: int
    by_length: bool
    bf16: bool


COMMON = Way(physical_batch=32, by_length=False, bf16=False)
BEST = Way(physical_batch=128, by_length=True, bf16=True)
BEST_FP32 = Way(physical_batch=128, by_length=True, bf16=False)


class Classifier(nn.Module):
    """Linear head on the adapted encoder's first token and the frozen mean, scaled publicly."""

    def __init__(self, encoder: nn.Module, constants: Constants, n_classes: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.register_buffer("shift", torch.from_numpy(constants.pooled_shift))
        self.register_buffer("scale", torch.from_numpy(constants.pooled_scale))
        width = len(constants.pooled_shift)
        self.head = nn.Linear(2 * width, n_classes)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, ids: Tensor, mask: Tensor, mean: Tensor) -> Tensor:
        """Return logits, shape (n, C)."""
        first = self.encoder(input_ids=ids, attention_mask=mask).last_hidden_state[:, 0].float()
        out: Tensor = self.head(torch.cat([mean, (first - self.shift) * self.scale], dim=1))
        return out


@dataclass
class HandWritten:
    """Texts, labels and features ready to train shadows on.

    Attributes:
        base: Base model; copied for every shadow.
        constants: Public scaling.
        ids: Token ids of each text, cut to max_length.
        labels: Shape (n,).
        mean: Shape (n, d). Frozen mean features, computed once.
        recipe: Settings of the mathematics.
        way: Settings of the speed.
        seconds: Seconds of all steps so far.
        examples: Examples of all steps so far.
    """

    base: BaseModel
    constants: Constants
    ids: Sequence[Sequence[int]]
    labels: Tensor
    mean: Tensor
    recipe: Recipe
    way: Way
    seconds: float = 0.0
    examples: int = 0

    def shadow(
        self, members: NDArray[np.bool_], rng: np.random.Generator, lora_a: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """Train one shadow on its members and return its LoRA matrices and head.

        Args:
            members: Shape (n,).
            rng: Generator of Poisson sampling.
            lora_a: "query" and "value" -> initial A, shape (r, d).
        """
        r = self.recipe
        encoder = self._adapted(lora_a)
        model = GradSampleModule(Classifier(encoder, self.constants, int(self.labels.max()) + 1), loss_reduction="sum")
        model.train()
        trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
        head = [p for n, p in trained.items() if ".head." in n]
        lora = [p for n, p in trained.items() if ".head." not in n]
        (rate,) = per_shadow(r.optimizer.learning_rate, 1, "learning_rate")
        (head_rate,) = per_shadow(r.optimizer.head_learning_rate, 1, "head_learning_rate")
        sgd = torch.optim.SGD(head, lr=head_rate / r.max_grad_norm, momentum=r.optimizer.head_momentum)
        optimizer = DPOptimizer(
            CombinedOptimizer([sgd, torch.optim.Adam(lora, lr=rate)]),
            noise_multiplier=r.noise_multiplier,
            max_grad_norm=r.max_grad_norm,
            # Opacus declares int, and divides by it.
            expected_batch_size=r.expected_batch_size,  # type: ignore[arg-type]
        )
        mine = np.flatnonzero(members)
        for _ in range(r.steps):
            drawn = mine[rng.random(len(mine)) < r.sample_rate]
            started = time.perf_counter()
            self._step(model, optimizer, drawn)
            self.seconds += time.perf_counter() - started
            self.examples += len(drawn)
        return {n: p.detach().clone() for n, p in trained.items()}

    def _step(self, model: GradSampleModule, optimizer: DPOptimizer, drawn: NDArray[np.intp]) -> None:
        optimizer.zero_grad()
        physical = list(self._physical(drawn))
        for i, rows in enumerate(physical):
            ids, mask = self.padded(rows)
            with torch.autocast("cpu", torch.bfloat16, enabled=self.way.bf16):
                logits = model(ids, mask, self.mean[rows])
            functional.cross_entropy(logits.float(), self.labels[rows], reduction="sum").backward()
            optimizer.signal_skip_step(do_skip=i + 1 < len(physical))
            optimizer.step()
            optimizer.zero_grad()

    def _physical(self, drawn: NDArray[np.intp]) -> Iterator[NDArray[np.intp]]:
        order = np.arange(len(drawn))
        if self.way.by_length:
            order = np.argsort([len(self.ids[i]) for i in drawn], kind="stable")
        for start in range(0, len(drawn), self.way.physical_batch):
            yield drawn[order[start : start + self.way.physical_batch]]

    def padded(self, rows: Sequence[int] | NDArray[np.intp]) -> tuple[Tensor, Tensor]:
        """Return token ids and mask of some texts, each (n, L)."""
        length = max(len(self.ids[i]) for i in rows) if self.way.by_length else self.recipe.max_length
        ids = torch.full((len(rows), length), self.base.tokenizer.pad_token_id)
        mask = torch.zeros(len(rows), length, dtype=torch.long)
        for j, i in enumerate(rows):
            ids[j, : len(self.ids[i])] = torch.tensor(self.ids[i])
            mask[j, : len(self.ids[i])] = 1
        return ids, mask

    def _adapted(self, lora_a: dict[str, Tensor]) -> nn.Module:
        r, top = self.recipe, self.base.model.config.num_hidden_layers
        config = LoraConfig(
            r=r.lora_rank,
            lora_alpha=r.lora_alpha,
            target_modules=["query", "value"],
            layers_to_transform=list(range(top - r.layers, top)),
            lora_dropout=0.0,
        )
        encoder: nn.Module = get_peft_model(copy.deepcopy(self.base.model), config)
        for module in encoder.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        for name, p in encoder.named_parameters():
            p.data = p.data.float()
            for target, a in lora_a.items():
                if f".{target}.lora_A" in name:
                    p.data.copy_(a)
        return encoder


def token_ids(base: BaseModel, texts: Sequence[str], max_length: int) -> list[list[int]]:
    """Return token ids cut to max_length, with the closing token kept."""
    closing = base.tokenizer.sep_token_id
    rows: list[list[int]] = base.tokenizer(list(texts), truncation=False, verbose=False)["input_ids"]
    return [row if len(row) <= max_length else [*row[: max_length - 1], closing] for row in rows]
