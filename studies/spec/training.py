"""TrainingSpec: the training that every trial of a study shares."""

from dataclasses import dataclass

from moo.core import validate
from moo.studies.spec.typed import set_typed


@dataclass(frozen=True, kw_only=True)
class TrainingSpec:
    """Training of every trial; `batch_halvings` changes steps, sample_rate and head_learning_rate together.

    Attributes:
        n_shadows: K, even, >= 4: the shadows are K/2 complementary pairs.
        target_delta: Delta of one training, below 1 / (units of the whole data set).
        max_grad_norm: Norm to which a unit's gradient is clipped.
        sample_rate: Probability with which a unit enters a step's batch.
        steps: Optimizer steps.
        head_learning_rate: Step size of the head, by SGD on gradients over max_grad_norm.
        head_momentum: Momentum of that SGD, a fraction.
        lora_alpha: Numerator of LoRA's scale, lora_alpha / rank.
        lora_targets: Linear layers that carry LoRA: "query_value", "query_key_value" or "all_linear".
        head: "with_mean", which reads the frozen mean and the adapted token, or "stock", which reads the
            adapted token alone and which PEFT can load.
        max_length: Number of tokens kept of a text.
        engine: "bank", which trains shadows together on a cached trunk; "opacus", which trains one after
            another by PEFT and Opacus; "auto", the bank if it knows model and adaptation, else the other.
        adaptation: "lora", or on the Opacus engine "prefix", "bottleneck" or "full".
    """

    n_shadows: int = 4
    target_delta: float = 1e-5
    max_grad_norm: float = 0.3
    sample_rate: float = 0.5
    steps: int = 25
    head_learning_rate: float = 1.5
    head_momentum: float = 0.9
    lora_alpha: float = 16.0
    lora_targets: str = "query_value"
    head: str = "with_mean"
    max_length: int = 96
    engine: str = "auto"
    adaptation: str = "lora"

    def __post_init__(self) -> None:
        set_typed(self, "training.")
        if self.n_shadows < 4 or self.n_shadows % 2:
            raise validate.argument_error(
                "{name} must be even and >= 4", "n_shadows", self.n_shadows, "shadows come in pairs"
            )
        if not 0 < self.target_delta < 1:
            raise validate.argument_error("{name} must be above 0 and below 1", "target_delta", self.target_delta)
        validate.finite(max_grad_norm=validate.positive(max_grad_norm=self.max_grad_norm))
        validate.positive(sample_rate=self.sample_rate)
        validate.in_range(0, 1, sample_rate=self.sample_rate)
        validate.in_range(1, 100_000, steps=self.steps)
        validate.finite(head_learning_rate=validate.positive(head_learning_rate=self.head_learning_rate))
        validate.finite(lora_alpha=validate.positive(lora_alpha=self.lora_alpha))
        validate.one_of(("query_value", "query_key_value", "all_linear"), lora_targets=self.lora_targets)
        validate.one_of(("with_mean", "stock"), head=self.head)
        validate.one_of(("auto", "bank", "opacus"), engine=self.engine)
        validate.one_of(("lora", "prefix", "bottleneck", "full"), adaptation=self.adaptation)
        if self.engine == "bank" and self.adaptation != "lora":
            raise validate.argument_error(
                "{name} must be 'auto' or 'opacus' with an adaptation other than lora", "engine", self.engine
            )
        validate.in_range(0, 0.999, head_momentum=self.head_momentum)
        validate.in_range(8, 8192, max_length=self.max_length)
