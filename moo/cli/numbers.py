"""Numbers as the terminal shows them."""

import dataclasses
import math

from moo.cli.language import words
from moo.core.measurement import Measurement
from moo.privacy.composed_epsilon import ComposedEpsilon


def epsilon_text(value: float) -> str:
    """Return an epsilon; without DP "none"."""
    if math.isinf(value):
        return words("none")
    return f"{value:.2f}" if value < 10 else f"{value:.1f}"


def composed_text(composed: ComposedEpsilon) -> str:
    """Return a composed epsilon; of events with and without DP also that of the former."""
    private = epsilon_text(composed.private_part)
    if not composed.includes_non_private:
        return private
    return words("unbounded (trainings without DP are among them; those with DP alone: {private})", private=private)


def plus_minus(m: Measurement) -> str:
    """Return a number with its error, if it has one."""
    return f"{m.value:.3f} ± {m.stderr:.3f}" if m.stderr else f"{m.value:.3f}"


def measured(m: Measurement | None, missing: str = "not assessed") -> str:
    """Return a number with its error, or that it was not assessed."""
    return words(missing) if m is None or math.isnan(m.value) else plus_minus(dataclasses.replace(m, note=""))


def duration(seconds: float) -> str:
    """Return a duration in minutes, or in seconds if it is shorter than one."""
    minutes = round(seconds / 60)
    if minutes >= 1:
        return words("{n} min", n=minutes)
    return words("{n} s", n=max(0, round(seconds)))
