"""How a study runs on a machine: time, memory and what is written beside the numbers. No number changes beyond rounding."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from moo import validate
from moo.models.arguments import check_trainer
from moo.models.segments import LIMIT_GIB

ACCELERATORS = ("auto", "cpu", "gpu")


@dataclass(frozen=True, kw_only=True)
class Machine:
    """No part of a study's identity: a study may go on with other ones.

    Attributes:
        accelerator: "auto" takes a GPU where torch sees one, "cpu", or "gpu".
        chunk: Records of each shadow that are computed at a time; halved by itself where memory ends.
        cache_gib: Size of the trunk's cache above which what was used longest ago goes; 0 keeps nothing.
        trainer: Further arguments of `lightning.Trainer`; those that would break the DP accounting are refused.
    """

    accelerator: str = "auto"
    chunk: int = 128
    cache_gib: float = LIMIT_GIB
    trainer: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        validate.one_of(ACCELERATORS, accelerator=self.accelerator)
        validate.in_range(1, 1_000_000, chunk=self.chunk)
        validate.in_range(0, 1e6, cache_gib=self.cache_gib)
        check_trainer(self.trainer)
