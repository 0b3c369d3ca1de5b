"""Losses of continuations and texts under a causal model, and its greedy continuation."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from moo.core.errors import InputError
from moo.models.generation.generator import Generator, Ids, token_losses
from moo.models.reference.shadows import pad_token_ids
from moo.models.trunk.packed import Packed


@torch.no_grad()
def continuation_losses(generator: Generator, prompt: Ids, endings: Sequence[Ids], *, chunk: int = 128) -> Tensor:
    """Return the loss of each ending after the prompt in nats, summed over the ending's tokens.

    The prompt is read once, and endings that differ in their last token alone share one row: all
    1,000 codes of three digits take 100 rows.

    Args:
        generator: Causal model.
        prompt: Token ids, at least one.
        endings: n endings, each of at least one token.
        chunk: Rows at a time.

    Returns:
        Shape (n,), on the CPU.

    Raises:
        InputError: If prompt or an ending is empty.
    """
    if not prompt or not all(endings):
        raise InputError("prompt and endings must have at least one token each, but some are empty; leave them out.")
    read = generator.model(input_ids=torch.tensor([prompt], device=generator.device), use_cache=True)
    first = read.logits[0, -1].log_softmax(-1).cpu()
    heads = sorted({e[:-1] for e in endings} - {()})
    # Per head: its log-probability, and those of the token after it.
    after: dict[Ids, tuple[float, Tensor]] = {(): (0.0, first)}
    for at in range(0, len(heads), chunk):
        rows = heads[at : at + chunk]
        log_probs = _after_prompt(generator, read.past_key_values, len(prompt), rows)
        for head, row in zip(rows, log_probs, strict=True):
            within = row[torch.arange(len(head) - 1), torch.tensor(head[1:], dtype=torch.long)].sum()
            after[head] = float(first[head[0]] + within), row[len(head) - 1]
    return torch.tensor([-(after[e[:-1]][0] + float(after[e[:-1]][1][e[-1]])) for e in endings])


def _after_prompt(generator: Generator, past: Any, n_prompt: int, rows: Sequence[Ids]) -> Tensor:
    """Return log-probabilities of the next token at each token of some rows after a prompt.

    Args:
        generator: Causal model.
        past: Keys and values of the prompt.
        n_prompt: Tokens of the prompt.
        rows: Token ids, n rows.

    Returns:
        Shape (n, L, vocabulary).
    """
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
    """Return each text's mean loss per token after the first, as in training, in nats.

    Returns:
        Shape (n,), on the CPU.
    """
    whole = Packed(features=torch.zeros(0, 0), tokens=torch.zeros(0, 0), offsets=torch.zeros(1), ids=tuple(texts))
    out = []
    for rows in torch.split(torch.arange(len(texts)), chunk):
        ids, mask = (t.to(generator.device) for t in pad_token_ids(whole, rows, int(generator.tokenizer.pad_token_id)))
        each = token_losses(generator.model(input_ids=ids, attention_mask=mask).logits, ids) * mask[:, 1:]
        out.append((each.sum(1) / mask[:, 1:].sum(1)).cpu())
    return torch.cat(out)


@torch.no_grad()
def greedy(generator: Generator, prompt: Ids, n_tokens: int) -> Ids:
    """Return the n_tokens likeliest tokens after a prompt, chosen one by one."""
    ids = list(prompt)
    for _ in range(n_tokens):
        logits = generator.model(input_ids=torch.tensor([ids], device=generator.device)).logits
        ids.append(int(logits[0, -1].argmax()))
    return tuple(ids[len(prompt) :])
