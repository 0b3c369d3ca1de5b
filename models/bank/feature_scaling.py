"""Computation of the public constants that shift and scale the features of a base model.

See `moo.models.trunk.constants` for their privacy: no statistic of private data is read.
"""

import dataclasses

import numpy as np
import torch
from numpy.typing import NDArray

from moo.models.bank.fast_lane import FastLane
from moo.models.bank.lora import LoraShape
from moo.models.pretrained.architectures import Cut, family_of, is_causal, n_blocks
from moo.models.pretrained.loading import BaseModel
from moo.models.trunk.constants import QUERY_SIZE, Constants, public_texts
from moo.models.trunk.encode import encode, states_below
from moo.models.trunk.packed import Packed

Floats = NDArray[np.float32]


def constants(base: BaseModel, *, max_length: int, cut: Cut | None = None) -> Constants:
    """Compute the constants of a base model at a cut.

    Takes one short pass over the public sentences, two if blocks above the cut are left out.

    Args:
        base: Base model.
        max_length: Tokens kept of each sentence.
        cut: Live blocks; None for the whole model's output alone.
    """
    texts = public_texts()
    out = encode(base, texts, max_length=max_length, cut=cut)
    mean_shift, mean_scale = _shift_and_scale(out.mean)
    pooled_shift, pooled_scale = _shift_and_scale(out.pooled)
    if cut is not None and cut.stop < n_blocks(base.model):
        states = states_below(base, texts, max_length=max_length, stop=cut.stop)
        pooled_shift = np.stack([s[-1 if is_causal(base.model) else 0] for s in states]).mean(0)
        _, pooled_scale = _shift_and_scale(np.concatenate(states))
    found = Constants(
        mean_shift=mean_shift,
        mean_scale=mean_scale,
        pooled_shift=pooled_shift,
        pooled_scale=pooled_scale,
        query_shift=pooled_shift,
        query_scale=pooled_scale,
    )
    family = family_of(base.model)
    if family is None or not family.fast_lane or cut is None or cut.stop - cut.start != 1:
        return found
    shift, scale = _shift_and_scale(_answers(base, found, cut, out.tokens))
    return dataclasses.replace(found, query_shift=shift, query_scale=QUERY_SIZE * scale)


def _answers(base: BaseModel, found: Constants, cut: Cut, tokens: list[Floats]) -> Floats:
    """Return the output of one unlearned query on a fast-lane block, shape (n, d).

    Texts are in the order of their lengths.
    """
    nothing, one = np.zeros_like(found.query_shift), np.ones_like(found.query_scale)
    # B is zero, so A has no effect.
    shape = LoraShape(ranks=(1,), alpha=1.0, generators=[torch.Generator().manual_seed(0)])
    plain = dataclasses.replace(found, query_shift=nothing, query_scale=one)
    lane = FastLane(base, plain, cut, targets="query_value", shape=shape, n_queries=1).to(base.device)
    by_length = sorted(tokens, key=len)
    packed = Packed(
        features=torch.empty(len(tokens), 0),
        tokens=torch.from_numpy(np.concatenate(by_length)).to(lane.key_weight.dtype),
        offsets=torch.from_numpy(np.cumsum([0, *map(len, by_length)])),
    ).to(base.device)
    every = torch.arange(len(tokens))[None].to(base.device)
    with torch.no_grad():
        return lane.run(packed.sampled_rows(every))[0].cpu().numpy()


def _shift_and_scale(features: Floats) -> tuple[Floats, Floats]:
    spread = np.maximum(features.std(0), 1e-6) * np.sqrt(features.shape[1])
    return features.mean(0), (1.0 / spread).astype(np.float32)
