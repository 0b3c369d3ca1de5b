"""Search of a black box for its Pareto front: resumable, reproducible, any sampler."""

from moo.search.driver import default_population, search
from moo.search.search import FAILED, LOST, REFUSED
from moo.search.space import Integer, Real, Space
from moo.search.types import Candidate, Goal, Outcome, Progress, SearchResult, SearchTrial

__all__ = [
    "FAILED",
    "LOST",
    "REFUSED",
    "Candidate",
    "Goal",
    "Integer",
    "Outcome",
    "Progress",
    "Real",
    "SearchResult",
    "SearchTrial",
    "Space",
    "default_population",
    "search",
]
