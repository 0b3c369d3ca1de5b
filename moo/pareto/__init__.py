"""Pareto fronts: who is on them, how sure that is, how large they are, and which point to take. All is minimised."""

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
