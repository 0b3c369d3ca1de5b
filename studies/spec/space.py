"""SpaceSpec: bounds of the parameters that a search varies."""

import dataclasses
from dataclasses import dataclass

from moo.core import validate
from moo.studies.spec.typed import set_typed


@dataclass(frozen=True, kw_only=True)
class SpaceSpec:
    """Bounds of the searched parameters; each is a pair (low, high), ends included.

    Attributes:
        target_epsilon: Epsilon of one training, > 0, on a log scale.
        masking_level: Integers in 0..5.
        lora_rank_log2: Integers; the rank is two to this power.
        learning_rate: Step size of the LoRA matrices, > 0, on a log scale.
        adapted_layers: Integers; 0 is the head alone, 1 one layer for the pooled token, more the top layers for
            all tokens.
        layers_dropped: Integers; number of layers above the adapted ones that are left out, without effect on
            the head alone.
        n_queries: Integers; number of learned query tokens that read the one adapted layer, without effect at
            other depths.
        batch_halvings: Integers in 0..12; number of times that the expected batch is halved and the steps are
            doubled, at every depth.
    """

    target_epsilon: tuple[float, float] = (0.5, 32.0)
    masking_level: tuple[int, int] = (0, 5)
    lora_rank_log2: tuple[int, int] = (1, 5)
    learning_rate: tuple[float, float] = (1e-4, 1e-2)
    adapted_layers: tuple[int, int] = (0, 1)
    layers_dropped: tuple[int, int] = (0, 0)
    n_queries: tuple[int, int] = (0, 0)
    batch_halvings: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        set_typed(self, "space.")
        for f in dataclasses.fields(self):
            low, high = getattr(self, f.name)
            if not low <= high:
                raise validate.argument_error("{name} must have low <= high", f"space.{f.name}", (low, high))
        validate.positive(target_epsilon=self.target_epsilon[0], way_out="the non-private reference runs by itself")
        validate.finite(target_epsilon=self.target_epsilon[1], way_out="the non-private reference runs by itself")
        validate.positive(learning_rate=self.learning_rate[0])
        validate.in_range(0, 5, masking_level=self.masking_level[0])
        validate.in_range(0, 5, masking_level=self.masking_level[1])
        validate.in_range(0, 12, lora_rank_log2=self.lora_rank_log2[0])
        validate.in_range(0, 12, lora_rank_log2=self.lora_rank_log2[1])
        for bound in (0, 1):
            validate.in_range(0, 1024, adapted_layers=self.adapted_layers[bound])
            validate.in_range(0, 1024, layers_dropped=self.layers_dropped[bound])
            validate.in_range(0, 64, n_queries=self.n_queries[bound])
            validate.in_range(0, 12, batch_halvings=self.batch_halvings[bound])
