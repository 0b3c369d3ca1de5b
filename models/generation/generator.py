"""Causal language models that write: fine-tuned by LoRA with or without DP on the reference path, scored, and made to speak.

One text is one record; its loss is the mean over its tokens after the first. What trains is the reference path as it stands:
Opacus' gradients of single texts, the mean of a unit's, clipping, noise from a secret stream, Poisson batches through Lightning's fit.
"""

import copy
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import peft
import torch
import transformers
from opacus import GradSampleModule
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoModelForCausalLM, AutoTokenizer

from moo.core.errors import InputError
from moo.models.dp.observed import Observed
from moo.models.dp.optimizer import ShadowNoise
from moo.models.dp.poisson_sampling import PoissonBatches, PoissonDataModule
from moo.models.pretrained.architectures import family_of
from moo.models.pretrained.hf_folder import silence_transformers
from moo.models.pretrained.loading import REGISTRY, fetch_model, pick_device
from moo.models.reference.lightning_module import ReferenceModule
from moo.models.reference.shadows import pad_token_ids
from moo.models.training.fit import fit
from moo.models.training.settings import Stream, TrainingData, TrainingSettings
from moo.models.trunk.packed import Packed

Ids = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Generator:
    """A causal model with its head, and its tokenizer.

    Attributes:
        model: In evaluation mode.
        tokenizer: With a padding token.
        device: Where it runs.
    """

    model: Any
    tokenizer: Any
    device: torch.device

    def ids(self, texts: Sequence[str]) -> tuple[Ids, ...]:
        """Token ids of each text, without special tokens."""
        return tuple(tuple(self.tokenizer(t, add_special_tokens=False)["input_ids"]) for t in texts)


@dataclass(frozen=True, kw_only=True)
class TrainedGenerator:
    """A fine-tuned generator, and what happened on the way; see `moo.models.training.settings.Trained`."""

    generator: Generator
    observed: Observed
    non_finite: int
    expected_batch_size: float

    @property
    def steps(self) -> int:
        """Optimizer steps taken."""
        return self.observed.steps

    @property
    def noisy_steps(self) -> int:
        """Steps in which every tensor had its noise."""
        return self.observed.noisy_steps


def load_generator(name: str, *, accelerator: str = "auto") -> Generator:
    """Load a causal model: a registered name, a local folder or a hub id; safetensors only, no remote code.

    Raises:
        InputError: If there is no such causal model.
    """
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    source: str | Path = fetch_model(name) if name in REGISTRY else name
    try:
        with silence_transformers():
            model: Any = AutoModelForCausalLM.from_pretrained(
                source, use_safetensors=True, trust_remote_code=False, dtype=torch.float32
            )
            tokenizer: Any = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    except (OSError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        raise InputError(
            "model must be a causal one with safetensors weights, but got model={name!r} ({first}).",
            name=name,
            first=first,
        ) from error
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    device = pick_device(accelerator)
    return Generator(model=model.to(device).eval(), tokenizer=tokenizer, device=device)


class GeneratorModule(ReferenceModule):
    """Trains one generator: the loss of a text is the mean over its tokens after the first, nats."""

    def record_losses(self, rows: Tensor) -> Tensor:
        ids, mask = pad_token_ids(self._data.packed, rows, self._pad)
        ids, mask = ids.to(self.device), mask.to(self.device)
        logits = self.model(input_ids=ids, attention_mask=mask).logits
        each = _token_losses(logits, ids) * mask[:, 1:]
        return each.sum(1) / mask[:, 1:].sum(1)


def train_generator(
    generator: Generator, texts: Sequence[Ids], units: Any, settings: TrainingSettings, stream: Stream
) -> TrainedGenerator:
    """Fine-tune the top `depth.adapted_layers` layers by LoRA.

    Args:
        generator: Left as it is.
        texts: Token ids of n texts, two tokens each at least.
        units: Shape (n,). Unit of privacy of each text.
        settings: The run; its head and lanes have no meaning here.
        stream: (purpose, 0) -> a secret generator; purposes are "init", "sampling" and "noise".

    Raises:
        InputError: If a text is too short, or no layer is adapted.
        TrialError: If the parameters became non-finite.
    """
    short = [i for i, t in enumerate(texts) if len(t) < 2]
    if short or not len(texts):
        raise InputError(
            "texts of two tokens at least must hold, but got {n_short} shorter ones of {n_texts}.",
            n_short=len(short),
            n_texts=len(texts),
        )
    if settings.depth.adapted_layers < 1:
        raise InputError(
            "adapted_layers >= 1 must hold for a generator, but got adapted_layers=0; its head is not trained."
        )
    model = GradSampleModule(_with_lora(generator, settings, stream), loss_reduction="sum")
    model.train()
    data = _data(texts, units)
    noise = ShadowNoise([stream("noise", 0)])
    module = GeneratorModule(model, data, settings, noise, shadow=0, pad=int(generator.tokenizer.pad_token_id))
    batches = PoissonBatches(
        units=data.units,
        lengths=data.packed.lengths,
        members=data.members,
        sample_rate=settings.sample_rate,
        steps=settings.steps,
        generators=[stream("sampling", 0)],
    )
    fit(module, PoissonDataModule(batches), settings)
    optimizer: Any = module.dp_optimizer
    trained = model._module.to(generator.device).eval()
    model.remove_hooks()
    return TrainedGenerator(
        generator=dataclasses.replace(generator, model=trained),
        observed=module.observer.observed(),
        non_finite=module.non_finite,
        expected_batch_size=float(optimizer.expected_batch_size),
    )


def _with_lora(generator: Generator, settings: TrainingSettings, stream: Stream) -> Any:
    """LoRA on the top layers: A uniform from the secret stream, B zero, dropout off."""
    inner = generator.model.base_model
    family, top = family_of(inner), int(generator.model.config.num_hidden_layers)
    if family is None or not isinstance(settings.lora_rank, int):
        raise InputError(
            "a known decoder and one lora_rank must hold, but got {type}, {lora_rank!r}.",
            type=type(inner).__name__,
            lora_rank=settings.lora_rank,
        )
    config = peft.LoraConfig(
        r=settings.lora_rank,
        lora_alpha=settings.lora_alpha,  # type: ignore[arg-type] # PEFT says int, and divides it by the rank
        lora_dropout=0.0,
        target_modules=family.peft_targets(settings.depth.targets),
        layers_to_transform=list(range(max(0, top - settings.depth.adapted_layers), top)),
        layers_pattern=family.blocks.rpartition(".")[2],
        fan_in_fan_out=generator.model.config.model_type == "gpt2",
    )
    with silence_transformers():
        adapted = peft.get_peft_model(copy.deepcopy(generator.model), config)
    seed = torch.Generator().manual_seed(int(stream("init", 0).integers(2**63)))
    for name, p in adapted.named_parameters():
        if ".lora_A." in name:
            p.data.copy_((torch.rand(p.shape, generator=seed) * 2 - 1) * p.shape[1] ** -0.5)
    for layer in adapted.modules():
        if isinstance(layer, nn.Dropout):
            layer.p = 0.0
    return adapted


def _data(texts: Sequence[Ids], units: Any) -> TrainingData:
    """Texts as the reference path takes them: token ids alone."""
    n, lengths = len(texts), torch.tensor([0, *map(len, texts)])
    packed = Packed(features=torch.zeros(n, 0), tokens=torch.zeros(0, 0), offsets=lengths.cumsum(0), ids=tuple(texts))
    zeros = torch.zeros(n, dtype=torch.long).numpy()
    return TrainingData(
        packed=packed, labels=zeros, units=units, members=torch.ones(1, n, dtype=torch.bool).numpy(), n_classes=1
    )


def _token_losses(logits: Tensor, ids: Tensor) -> Tensor:
    """Nats of each token after the first, shape (n, L - 1)."""
    return functional.cross_entropy(logits[:, :-1].mT, ids[:, 1:], reduction="none")


@torch.no_grad()
def continuation_losses(generator: Generator, prompt: Ids, endings: Sequence[Ids], *, chunk: int = 128) -> Tensor:
    """Nats that the model needs for each ending after the prompt, summed over the ending's tokens: shape (n,), on the CPU.

    The prompt is read once, and endings that differ in their last token alone are one row: all 1,000 codes of three digits take 100.

    Args:
        generator: The model.
        prompt: One token at least.
        endings: n endings.
        chunk: Rows at a time.
    """
    if not prompt or not all(endings):
        raise InputError("prompt and endings of one token at least must hold, but some are empty.")
    read = generator.model(input_ids=torch.tensor([prompt], device=generator.device), use_cache=True)
    first = read.logits[0, -1].log_softmax(-1).cpu()
    heads = sorted({e[:-1] for e in endings} - {()})
    after: dict[Ids, tuple[float, Tensor]] = {
        (): (0.0, first)
    }  # of each head: its log-probability, and those of what follows
    for at in range(0, len(heads), chunk):
        rows = heads[at : at + chunk]
        told = _after_prompt(generator, read.past_key_values, len(prompt), rows)
        for head, row in zip(rows, told, strict=True):
            within = row[torch.arange(len(head) - 1), torch.tensor(head[1:], dtype=torch.long)].sum()
            after[head] = float(first[head[0]] + within), row[len(head) - 1]
    return torch.tensor([-(after[e[:-1]][0] + float(after[e[:-1]][1][e[-1]])) for e in endings])


def _after_prompt(generator: Generator, past: Any, n_prompt: int, rows: Sequence[Ids]) -> Tensor:
    """Log-probabilities of what follows each token of some rows after a prompt that was read, shape (n, L, vocabulary)."""
    whole = Packed(features=torch.zeros(0, 0), tokens=torch.zeros(0, 0), offsets=torch.zeros(1), ids=tuple(rows))
    ids, mask = pad_token_ids(whole, torch.arange(len(rows)), int(generator.tokenizer.pad_token_id))
    repeated = copy.deepcopy(past)
    repeated.batch_repeat_interleave(len(rows))
    attended = torch.cat([torch.ones(len(rows), n_prompt, dtype=mask.dtype), mask], dim=1)
    logits: Tensor = generator.model(
        input_ids=ids.to(generator.device), attention_mask=attended.to(generator.device), past_key_values=repeated
    ).logits
    return logits.log_softmax(-1).cpu()


@torch.no_grad()
def text_losses(generator: Generator, texts: Sequence[Ids], *, chunk: int = 16) -> Tensor:
    """Mean nats a token of each text after its first token, shape (n,), on the CPU: as it is trained on."""
    whole = Packed(features=torch.zeros(0, 0), tokens=torch.zeros(0, 0), offsets=torch.zeros(1), ids=tuple(texts))
    out = []
    for rows in torch.split(torch.arange(len(texts)), chunk):
        ids, mask = (t.to(generator.device) for t in pad_token_ids(whole, rows, int(generator.tokenizer.pad_token_id)))
        each = _token_losses(generator.model(input_ids=ids, attention_mask=mask).logits, ids) * mask[:, 1:]
        out.append((each.sum(1) / mask[:, 1:].sum(1)).cpu())
    return torch.cat(out)


@torch.no_grad()
def greedy(generator: Generator, prompt: Ids, n_tokens: int) -> Ids:
    """What the model says after a prompt, token by token the likeliest."""
    ids = list(prompt)
    for _ in range(n_tokens):
        logits = generator.model(input_ids=torch.tensor([ids], device=generator.device)).logits
        ids.append(int(logits[0, -1].argmax()))
    return tuple(ids[len(prompt) :])
