"""Parameters and record of a trial: frozen, keyword-only, and JSON both ways.

Inside moo an epsilon of `math.inf` means "trained without DP"; JSON has no infinity, so it travels
as "inf".
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from moo.core import validate
from moo.core.measurement import Measurement, number_in, number_out
from moo.core.messages import Message, joined, unpack

# Number of the reference trial (no DP, level 0), which the sampler never sees.
STATUS_QUO_TRIAL = -1

# What proposes the settings of a search; the first by default.
SAMPLERS = ("nsga2", "nsga3", "tpe", "gp", "random")

ACCURACY = "accuracy"
RISK = "membership_risk"
PENALTY = "compliance_penalty"
# Accuracy of always answering the most frequent class of the test part.
MAJORITY = "majority_accuracy"
# Accuracy minus that, with the error of the paired difference.
ABOVE_MAJORITY = "above_majority"
# How the note of a measurement begins that contradicts the DP claim.
ALARM = "alarm"


@dataclass(frozen=True, kw_only=True, slots=True)
class Transformation:
    """Step that prepared the data, and the records that it read.

    Attributes:
        name: E.g. "near_duplicates".
        scope: "record" or "user" where the output of one unit depends on that unit alone; "dataset"
            where it depends on others, which withdraws a DP claim unless the ledger holds an event
            for it or the frozen, shipped result *is* the data set (`frozen`).
        detail: One line for the report.
        frozen: True where the output is a fixed public snapshot with a digest.
        before, after: Records that went in, and that came out; both 0 where they were not counted.
        changed: Records with a changed text.
        why: What the step is for.
        effect: What a step of scope "dataset" does with what it read: it changes records, which
            withdraws the claim; it refuses the data or leaves them as they are; or it takes a fact
            as public, which is stated with the claim.
    """

    name: str
    scope: Literal["record", "user", "dataset"]
    detail: str = ""
    frozen: bool = False
    before: int = 0
    after: int = 0
    changed: int = 0
    why: str = ""
    effect: Literal["changes", "refuses", "takes_as_public"] = "changes"


def describe_steps(steps: Sequence[Transformation]) -> tuple[Message, ...]:
    """Return one line for each step that counted records or takes a fact as public."""
    return tuple(_describe_step(step) for step in steps if step.before or step.effect == "takes_as_public")


def _describe_step(step: Transformation) -> Message:
    name = step.name.replace("_", " ")
    if not step.before:
        return Message("{name}: {detail}", name=name, detail=step.detail)
    counts = [Message("{n:,} of {total:,} records", n=step.after, total=step.before)]
    counts += [Message("{n:,} changed", n=step.changed)] if step.changed else []
    line = Message("{name}: {counts}", name=name, counts=joined(", ", counts))
    return Message("{text} ({detail})", text=line, detail=step.detail) if step.detail else line


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialParams:
    """Parameters that the search varies.

    Attributes:
        target_epsilon: DP budget of one training run, > 0; `math.inf` trains without DP.
        masking_level: 0 (nothing masked) to 5.
        lora_rank: Rank of the LoRA matrices, >= 1; without effect at adapted_layers = 0.
        learning_rate: Step size of the LoRA matrices, > 0.
        adapted_layers: Layers, counted from the top, that carry LoRA; 0 trains the head alone.
        layers_dropped: Layers above them that are left out.
        n_queries: Learned query tokens that read the one adapted layer; 0 reads its pooled token.
        batch_halvings: Times, at most 12, that the study's expected batch is halved and its steps
            doubled.
    """

    target_epsilon: float
    masking_level: int
    lora_rank: int
    learning_rate: float
    adapted_layers: int
    layers_dropped: int = 0
    n_queries: int = 0
    batch_halvings: int = 0

    def __post_init__(self) -> None:
        validate.positive(target_epsilon=self.target_epsilon, way_out="use math.inf to train without DP")
        validate.in_range(0, 5, masking_level=self.masking_level)
        validate.in_range(1, 4096, lora_rank=self.lora_rank)
        validate.finite(learning_rate=validate.positive(learning_rate=self.learning_rate))
        validate.in_range(0, 1024, adapted_layers=self.adapted_layers)
        validate.in_range(0, 1024, layers_dropped=self.layers_dropped)
        validate.in_range(0, 64, n_queries=self.n_queries)
        validate.in_range(0, 12, batch_halvings=self.batch_halvings)
        if self.n_queries and self.adapted_layers != 1:
            raise validate.argument_error(
                "{name} must be 1 with learned queries", "adapted_layers", self.adapted_layers
            )

    @property
    def private(self) -> bool:
        return math.isfinite(self.target_epsilon)

    def to_json(self) -> dict[str, Any]:
        return {k: number_out(v) if isinstance(v, float) else v for k, v in dataclasses.asdict(self).items()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "TrialParams":
        values: dict[str, Any] = {k: number_in(v) if isinstance(v, str) else v for k, v in data.items()}
        return cls(**values)


@dataclass(frozen=True, kw_only=True)
class TrialRecord:
    """One trial as every output shows it.

    Attributes:
        number: 0-based trial number; `STATUS_QUO_TRIAL` (-1) for the reference trial.
        params: The configuration that ran.
        state: "complete", or "failed" with its `cause`.
        objectives: "accuracy", "membership_risk", "compliance_penalty", as people read them
            (accuracy upward).
        constraints: Named violations; <= 0 is feasible.
        extras: Further measurements, e.g. "epsilon_spent", "tpr_at_1pct_fpr", "auc", "null_auc",
            "baseline_accuracy", "majority_accuracy" (absent where numbers carry noise: an exact one
            would read private units).
        contributions: Rows of the penalty's breakdown, as `moo.objectives.compliance` makes them.
        claim: "holds", or "withdrawn because ...": the DP claim of the training run.
        seconds: Wall-clock seconds by stage.
        cause: Why a failed trial failed; empty otherwise.
        resumed_at: Steps that came from the checkpoint of a killed attempt, which is charged for
            them.
        notices: What a person should know of how it ran: texts that were cut, a cache that was
            full, memory that ended.
    """

    number: int
    params: TrialParams
    state: Literal["complete", "failed"]
    objectives: Mapping[str, Measurement]
    constraints: Mapping[str, float]
    extras: Mapping[str, Measurement] = field(default_factory=dict)
    contributions: tuple[Mapping[str, Any], ...] = ()
    claim: str = ""
    seconds: Mapping[str, float] = field(default_factory=dict)
    cause: str = ""
    resumed_at: int = 0
    notices: tuple[str, ...] = ()

    @property
    def feasible(self) -> bool:
        return self.state == "complete" and all(v <= 0 for v in self.constraints.values())

    @property
    def alarms(self) -> tuple[str, ...]:
        """Measurements that contradict what the DP claim allows."""
        return tuple(m.note for m in self.extras.values() if m.note.startswith(ALARM))

    @property
    def blocking(self) -> tuple[str, ...]:
        """Names of the constraints that this trial breaks, the worst first."""
        broken = [(v, k) for k, v in self.constraints.items() if v > 0]
        return tuple(k for _, k in sorted(broken, reverse=True))

    def to_json(self) -> dict[str, Any]:
        return {
            "number": self.number,
            "params": self.params.to_json(),
            "state": self.state,
            "objectives": list(self.objectives),
            **{name: m.to_json() for name, m in self.objectives.items()},
            "constraints": {k: number_out(v) for k, v in self.constraints.items()},
            "feasible": self.feasible,
            "extras": {k: m.to_json() for k, m in self.extras.items()},
            "contributions": [dict(row) for row in self.contributions],
            "claim": self.claim,
            "seconds": dict(self.seconds),
            "cause": self.cause,
            "resumed_at": self.resumed_at,
            "notices": list(self.notices),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "TrialRecord":
        data = unpack(data)
        names = data.get("objectives", (ACCURACY, RISK, PENALTY))
        return cls(
            number=data["number"],
            params=TrialParams.from_json(data["params"]),
            state=data["state"],
            objectives={n: Measurement.from_json(data[n]) for n in names if n in data},
            constraints={k: number_in(v) for k, v in data["constraints"].items()},
            extras={k: Measurement.from_json(v) for k, v in data["extras"].items()},
            contributions=tuple(data["contributions"]),
            claim=data["claim"],
            seconds=data["seconds"],
            cause=data["cause"],
            resumed_at=data.get("resumed_at", 0),
            notices=tuple(data.get("notices", ())),
        )
