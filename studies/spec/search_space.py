"""Search space, goals and first trials of a study, in the search's own types."""

import itertools
from collections.abc import Mapping

from moo.core.trial_record import ACCURACY, PENALTY, RISK, TrialParams
from moo.search import Goal, Integer, Real, Space
from moo.studies.spec.space import SpaceSpec

GOALS = (
    Goal(name=ACCURACY, direction="maximize", reference=0.0),
    Goal(name=RISK, direction="minimize", reference=1.0),
    Goal(name=PENALTY, direction="minimize", reference=1.0),
)
STATUS_QUO = TrialParams(
    target_epsilon=float("inf"), masking_level=0, lora_rank=8, learning_rate=1e-3, adapted_layers=1
)


def space_of(spec: SpaceSpec) -> Space:
    """Return the search space of a study."""
    return Space(
        {
            "target_epsilon": Real(*spec.target_epsilon, log=True),
            "masking_level": Integer(*spec.masking_level),
            "lora_rank_log2": Integer(*spec.lora_rank_log2),
            "learning_rate": Real(*spec.learning_rate, log=True),
            "adapted_layers": Integer(*spec.adapted_layers),
            **{name: Integer(*bounds) for name, bounds in _optional(spec).items()},
        }
    )


def _optional(spec: SpaceSpec) -> dict[str, tuple[int, int]]:
    """Return the dimensions that are searched only if a study opens them."""
    bounds = {
        "layers_dropped": spec.layers_dropped,
        "n_queries": spec.n_queries,
        "batch_halvings": spec.batch_halvings,
    }
    return {name: pair for name, pair in bounds.items() if pair != (0, 0)}


def params_of(values: Mapping[str, float | int]) -> TrialParams:
    """Return a trial's parameters from those of the search."""
    return TrialParams(
        target_epsilon=float(values["target_epsilon"]),
        masking_level=int(values["masking_level"]),
        lora_rank=2 ** int(values["lora_rank_log2"]),
        learning_rate=float(values["learning_rate"]),
        adapted_layers=int(values["adapted_layers"]),
        layers_dropped=int(values.get("layers_dropped", 0)) if values["adapted_layers"] else 0,
        n_queries=int(values.get("n_queries", 0)) if values["adapted_layers"] == 1 else 0,
        batch_halvings=int(values.get("batch_halvings", 0)),
    )


def depths(spec: SpaceSpec) -> list[TrialParams]:
    """Return the strictest first trial at every extreme depth, learned queries at one layer among them."""
    strictest, layers = initial_trials(spec)[0], spec.adapted_layers
    choices = {
        "adapted_layers": sorted({layers[0], layers[1], min(max(layers[0], 1), layers[1])}),
        **{name: sorted(set(bounds)) for name, bounds in _optional(spec).items() if name != "batch_halvings"},
    }
    return [
        params_of({**strictest, **dict(zip(choices, at, strict=True))}) for at in itertools.product(*choices.values())
    ]


def initial_trials(spec: SpaceSpec) -> list[dict[str, float | int]]:
    """Return the first trials: the strictest corner, and one at the middle epsilon and one masking level less."""
    rate = (spec.learning_rate[0] * spec.learning_rate[1]) ** 0.5
    low, high = spec.target_epsilon
    strictest = {
        "target_epsilon": low,
        "masking_level": spec.masking_level[1],
        "lora_rank_log2": spec.lora_rank_log2[0],
        "learning_rate": rate,
        "adapted_layers": spec.adapted_layers[0],
        **{name: low for name, (low, _) in _optional(spec).items()},
    }
    level = max(spec.masking_level[0], spec.masking_level[1] - 1)
    return [strictest, {**strictest, "target_epsilon": (low * high) ** 0.5, "masking_level": level}]
