"""Checks of outcomes: every objective and every constraint, each a number."""

import dataclasses
import json
import math
from collections.abc import Collection, Sequence
from numbers import Real

from moo.core.errors import InputError
from moo.core.measurement import Measurement
from moo.search.types import Goal, Outcome

_WAY_OUT = "to record the trial as failed, raise TrialError"


def checked(
    outcome: Outcome, goals: Sequence[Goal], constraints: Collection[str], *, number: int, closed: bool = False
) -> Outcome:
    """Return the outcome with plain floats.

    Args:
        outcome: What an evaluation returned.
        goals: Objectives that a trial without a cause of failure must have.
        constraints: Constraints that it must have.
        number: Number of the trial, for the error.
        closed: True where it may have no constraint besides.

    Raises:
        InputError: If an objective or a constraint is missing, None, NaN, or no number, if a
            constraint is one that other trials lack, or if the payload is no JSON.
    """
    if not outcome.cause:
        _refuse_missing("objective", [g.name for g in goals], outcome.values, number)
        _refuse_missing("constraint", constraints, outcome.constraints, number)
        _refuse_further(constraints if closed else outcome.constraints, outcome.constraints, number)
    for name, measured in outcome.values.items():
        _refuse_unmeasured(name, measured, number)
    for name, value in outcome.constraints.items():
        if not _is_number(value) or not math.isfinite(value):
            raise InputError(
                "constraint {name!r} of trial {number} must be a finite number, got {value!r}; {way_out}.",
                name=name,
                number=number,
                value=value,
                way_out=_WAY_OUT,
            )
    try:
        json.dumps(dict(outcome.payload))
    except (TypeError, ValueError) as error:
        raise InputError(
            "the payload of trial {number} must be JSON, got a value that is not: {error}.", number=number, error=error
        ) from None
    return dataclasses.replace(
        outcome,
        values={k: dataclasses.replace(m, value=float(m.value)) for k, m in outcome.values.items()},
        constraints={k: float(v) for k, v in outcome.constraints.items()},
    )


def _refuse_missing(kind: str, wanted: Collection[str], got: Collection[str], number: int) -> None:
    missing = [name for name in wanted if name not in got]
    if missing:
        raise InputError(
            "{kind} {missing!r} of trial {number} must be given, got {got}; {way_out}.",
            kind=kind,
            missing=missing[0],
            number=number,
            got=sorted(got),
            way_out=_WAY_OUT,
        )


def _refuse_further(known: Collection[str], got: Collection[str], number: int) -> None:
    further = [name for name in got if name not in known]
    if further:
        raise InputError(
            "constraints of trial {number} must be those of every other trial, {known}, got {further!r} besides.",
            number=number,
            known=sorted(known),
            further=further[0],
        )


def _refuse_unmeasured(name: str, measured: object, number: int) -> None:
    """Refuse a value that is no number; NaN passes with a note alone.

    An objective that was not assessed says why in its note.
    """
    if not isinstance(measured, Measurement):
        raise InputError(
            "objective {name!r} of trial {number} must be a Measurement, got {measured!r}; {way_out}.",
            name=name,
            number=number,
            measured=measured,
            way_out=_WAY_OUT,
        )
    if not _is_number(measured.value) or (math.isnan(measured.value) and not measured.note):
        raise InputError(
            "objective {name!r} of trial {number} must be a number, got {value!r}; {way_out}.",
            name=name,
            number=number,
            value=measured.value,
            way_out=_WAY_OUT,
        )


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)
