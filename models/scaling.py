"""Public constants that shift and scale the frozen features, so that no statistic of the customers' data is read.

Scaling by the private data's own mean and variance is a data-set-wide transformation that DP-SGD does not cover. The
constants come from sentences written for moo, which are about no real person, and are pinned for each base model.
"""

import dataclasses
from dataclasses import dataclass
from importlib import resources

import numpy as np
import torch
from numpy.typing import NDArray

from moo.models.activations import Packed
from moo.models.base_models import BaseModel
from moo.models.blocks import Cut, family_of, is_causal, n_blocks
from moo.models.fast_lane import FastLane
from moo.models.lora import LoraShape
from moo.models.trunk import encode, states_behind

Floats = NDArray[np.float32]
QUERY_SIZE = 0.5  # of a query's features beside the mean's


@dataclass(frozen=True, kw_only=True)
class Constants:
    """(x - shift) * scale has about unit variance over sqrt(d), hence norm about 1. All of shape (d,).

    Attributes:
        mean_shift, mean_scale: For the mean over tokens of the whole model's frozen output.
        pooled_shift, pooled_scale: For the pooled token of the cut's output. Where blocks above the cut are left out, the scale is that
            of all tokens: below the top a pooled token hardly differs from text to text (in MiniLM its own scale is 13, that of the
            mean .27), and what an adapter adds would be shown to the head enlarged fifty times, noise included. The shift is the
            pooled token's, so that what is not yet learned is near zero: a head under DP then spends neither clip nor noise on it.
        query_shift, query_scale: For what one open block answers to the mean of its inputs, where learned queries start; half as large,
            so that of a clipped gradient most is left to the mean. Those of the pooled token where the cut is not one open block.
    """

    mean_shift: Floats
    mean_scale: Floats
    pooled_shift: Floats
    pooled_scale: Floats
    query_shift: Floats
    query_scale: Floats

    def features(self, mean: Floats) -> Floats:
        """Mean-pooled features, shape (n, d), shifted and scaled."""
        return (mean - self.mean_shift) * self.mean_scale

    def pooled_features(self, pooled: Floats) -> Floats:
        """Features of the pooled token, shape (n, d), shifted and scaled."""
        return (pooled - self.pooled_shift) * self.pooled_scale

    def unshifted(self) -> "Constants":
        """The same scales about zero, for heads that have no bias to take a shift into."""
        zeros = {name: np.zeros_like(getattr(self, name)) for name in ("mean_shift", "pooled_shift", "query_shift")}
        return dataclasses.replace(self, **zeros)


def public_texts() -> list[str]:
    """The sentences, in Chinese and English."""
    return (resources.files("moo.models") / "public_texts.txt").read_text(encoding="utf-8").splitlines()


def constants(base: BaseModel, *, max_length: int, cut: Cut | None = None) -> Constants:
    """The constants of a base model at a cut: one short pass over the public sentences, two where blocks above it are left out."""
    texts = public_texts()
    out = encode(base, texts, max_length=max_length, cut=cut)
    mean_shift, mean_scale = _shift_and_scale(out.mean)
    pooled_shift, pooled_scale = _shift_and_scale(out.pooled)
    if cut is not None and cut.stop < n_blocks(base.model):
        states = states_behind(base, texts, max_length=max_length, stop=cut.stop)
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
    if family is None or not family.opens or cut is None or cut.stop - cut.start != 1:
        return found
    shift, scale = _shift_and_scale(_answers(base, found, cut, out.tokens))
    return dataclasses.replace(found, query_shift=shift, query_scale=QUERY_SIZE * scale)


def _answers(base: BaseModel, found: Constants, cut: Cut, tokens: list[Floats]) -> Floats:
    """What one query that has learned nothing makes of an open block's inputs: shape (n, d), texts in the order of their lengths."""
    nothing, one = np.zeros_like(found.query_shift), np.ones_like(found.query_scale)
    shape = LoraShape(ranks=(1,), alpha=1.0, generators=[torch.Generator().manual_seed(0)])  # with B = 0, whatever A
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
        return lane.run(packed.drawn(every))[0].cpu().numpy()


def _shift_and_scale(features: Floats) -> tuple[Floats, Floats]:
    spread = np.maximum(features.std(0), 1e-6) * np.sqrt(features.shape[1])
    return features.mean(0), (1.0 / spread).astype(np.float32)
