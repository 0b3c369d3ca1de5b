"""Objective: a name, a direction, a unit, and a judgement of one trial's evidence."""

from typing import Literal, Protocol, runtime_checkable

from moo.core.evidence import TrialEvidence
from moo.core.measurement import Measurement

Direction = Literal["minimize", "maximize"]


@runtime_checkable
class Objective(Protocol):
    """Judges the evidence of one trial; any object with these members is one.

    Attributes:
        name: Key of the objective in every table, e.g. "membership_risk".
        direction: As people read it; inside the search everything is minimised.
        unit: What one unit of the value means, e.g. "fraction of records".
    """

    @property
    def name(self) -> str: ...

    @property
    def direction(self) -> Direction: ...

    @property
    def unit(self) -> str: ...

    def __call__(self, evidence: TrialEvidence) -> Measurement: ...
