"""Pareto fronts: members, certainty, size and choice of a point. All is minimised."""

from moo.pareto.front import hypervolume, non_dominated, running_hypervolume
from moo.pareto.knee import Choice, knee
from moo.pareto.uncertainty import probability_feasible, probability_non_dominated

__all__ = [
    "Choice",
    "hypervolume",
    "knee",
    "non_dominated",
    "probability_feasible",
    "probability_non_dominated",
    "running_hypervolume",
]
