"""Public constants that shift and scale features, so that no private statistic is read.

Scaling by the private data's own mean and variance is a data-set-wide transformation that DP-SGD
does not cover. The constants come from sentences written for moo, which are about no real person,
and are pinned for each base model.
"""

import dataclasses
from dataclasses import dataclass
from importlib import resources

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
# Size of a query's features relative to the mean's.
QUERY_SIZE = 0.5


@dataclass(frozen=True, kw_only=True)
class Constants:
    """Shifts and scales, shape (d,): (x - shift) * scale has variance about 1 / d, norm about 1.

    Attributes:
        mean_shift, mean_scale: For the mean over tokens of the whole model's frozen output.
        pooled_shift, pooled_scale: For the pooled token of the cut's output. Where blocks above the
            cut are left out, the scale is that of all tokens. Below the top a pooled token hardly
            differs from text to text (in MiniLM its own scale is 13, that of the mean .27), and the
            head would see an adapter's change, noise included, enlarged fifty times. The shift is
            the pooled token's, so that features not yet learned are near zero: a head under DP then
            spends neither clip nor noise on them.
        query_shift, query_scale: For the answer of one fast-lane block to the mean of its inputs,
            where learned queries start. Half as large, so that most of a clipped gradient is left
            to the mean. Equal to those of the pooled token where the cut is not one fast-lane
            block.
    """

    mean_shift: Floats
    mean_scale: Floats
    pooled_shift: Floats
    pooled_scale: Floats
    query_shift: Floats
    query_scale: Floats

    def features(self, mean: Floats) -> Floats:
        """Return mean-pooled features, shape (n, d), shifted and scaled."""
        return (mean - self.mean_shift) * self.mean_scale

    def pooled_features(self, pooled: Floats) -> Floats:
        """Return features of the pooled token, shape (n, d), shifted and scaled."""
        return (pooled - self.pooled_shift) * self.pooled_scale

    def unshifted(self) -> "Constants":
        """Return the same scales without shifts, for heads that have no bias to absorb a shift."""
        zeros = {name: np.zeros_like(getattr(self, name)) for name in ("mean_shift", "pooled_shift", "query_shift")}
        return dataclasses.replace(self, **zeros)


def public_texts() -> list[str]:
    """Return the public sentences, in Chinese and English."""
    return (resources.files("moo.models.trunk") / "public_texts.txt").read_text(encoding="utf-8").splitlines()
