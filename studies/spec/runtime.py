"""Settings of the machine that runs a study: time, memory and logs. No number changes beyond rounding."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from moo.core import validate
from moo.models.training.trainer_arguments import check_trainer, has_tensorboard
from moo.models.trunk.segment_file import LIMIT_GIB
from moo.studies.spec.typed import set_typed

ACCELERATORS = ("auto", "cpu", "gpu")
PRECISIONS = ("auto", "32-true", "bf16-mixed")
LOGGERS = ("none", "auto", "csv", "tensorboard")


@dataclass(frozen=True, kw_only=True)
class RuntimeSettings:
    """Settings of the machine, the TOML table [machine].

    No part of a study's identity but for the precision: a study may go on with other settings.

    Attributes:
        accelerator: "auto" takes a GPU if torch sees one, "cpu", or "gpu".
        precision: Precision of the frozen part: "32-true", "bf16-mixed", or "auto", bf16 if the device multiplies
            it in hardware. Training, clipping and sums are fp32 in any case.
        logger: Logger of a trial's steps, in the study's folder under logs/: "csv", "tensorboard", "auto"
            (TensorBoard if installed, else CSV), or "none". Another logger goes into `trainer`.
        checkpoint_steps: Number of steps between two checkpoints of a training, so that a kill costs its units no
            more than these again; 0 keeps none, which is best for trainings of seconds.
        chunk: Number of records of each shadow that are computed at a time; halved if memory ends.
        cache_gib: Size of the trunk's cache in GiB, above which the least recently used entries go; 0 keeps none.
        trainer: Further arguments of `lightning.Trainer`; those that would break the DP accounting are refused.
            From Python, "logger" and "callbacks" may be functions of a training's name, one result each.
    """

    accelerator: str = "auto"
    precision: str = "auto"
    logger: str = "none"
    checkpoint_steps: int = 0
    chunk: int = 384
    cache_gib: float = LIMIT_GIB
    trainer: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        set_typed(self, "machine.")
        validate.one_of(ACCELERATORS, accelerator=self.accelerator)
        validate.one_of(PRECISIONS, precision=self.precision, way_out="16-bit training would break clipping and noise")
        validate.one_of(LOGGERS, logger=self.logger)
        if self.logger == "tensorboard" and not has_tensorboard():
            raise validate.argument_error(
                "{name} must be one that is installed",
                "logger",
                self.logger,
                "pip install 'moo-privacy[tensorboard]', or use logger='csv'",
            )
        validate.in_range(0, 1_000_000, checkpoint_steps=self.checkpoint_steps)
        validate.in_range(1, 1_000_000, chunk=self.chunk)
        validate.in_range(0, 1e6, cache_gib=self.cache_gib)
        check_trainer(self.trainer)

    def to_json(self) -> dict[str, Any]:
        """Return the settings as JSON; loggers and callbacks from Python, which have no such form, stay out."""
        plain = {k: v for k, v in self.trainer.items() if isinstance(v, str | int | float | None)}
        return {**vars(self), "trainer": plain}
