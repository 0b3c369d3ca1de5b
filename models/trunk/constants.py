"""Public constants that shift and scale the frozen features, so that no statistic of the customers' data is read.

Scaling by the private data's own mean and variance is a data-set-wide transformation that DP-SGD does not cover. The
constants come from sentences written for moo, which are about no real person, and are pinned for each base model.
"""

import dataclasses
from dataclasses import dataclass
from importlib import resources

import numpy as np
from numpy.typing import NDArray

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
    return (resources.files("moo.models.trunk") / "public_texts.txt").read_text(encoding="utf-8").splitlines()
