"""Checks of the evidence of an attack, made before any attack reads it."""

import numpy as np

from moo.core.errors import InputError
from moo.core.evidence import Bools, Floats, Ints, MembershipEvidence

# Two complementary pairs: one to attack, one to refer to.
MIN_SHADOWS = 4


def check_pairs(members: Bools) -> None:
    """Refuse a membership matrix that is not K/2 >= 2 complementary pairs with two sides each.

    Args:
        members: Shape (K, n). Rows 2j and 2j+1 must be each other's negation.

    Raises:
        InputError: Naming `members`.
    """
    check_complements(members)
    check_sides(members)


def check_complements(members: Bools) -> None:
    """Check pairs as `check_pairs` does, but a row may have one side alone."""
    if members.ndim != 2 or members.dtype != np.bool_:
        raise InputError(
            "members must be a boolean matrix (K, n), got {dtype} of shape {shape}.",
            dtype=members.dtype,
            shape=members.shape,
        )
    k = len(members)
    if k < MIN_SHADOWS or k % 2:
        raise InputError(
            "K must be even and >= {min_shadows}, got members with K={k} rows; train whole pairs.",
            min_shadows=MIN_SHADOWS,
            k=k,
        )
    if (members[0::2] == members[1::2]).any():
        row = 2 * int(np.argmax((members[0::2] == members[1::2]).any(axis=1)))
        raise InputError(
            "members[2j] must be ~members[2j + 1], but rows {row} and {next_row} agree somewhere; "
            "draw the shadows' halves as complementary pairs.",
            row=row,
            next_row=row + 1,
        )


def check_sides(members: Bools) -> None:
    """Refuse rows without a member, or without a non-member.

    Raises:
        InputError: Naming `members`.
    """
    n = members.shape[1]
    sizes = members.sum(axis=1)
    if (sizes == 0).any() or (sizes == n).any():
        raise InputError(
            "members must have both sides in every row, but row {row} has {count} of {n} members; "
            "give records of both sides.",
            row=int(np.argmax((sizes == 0) | (sizes == n))),
            count=int(sizes.min()),
            n=n,
        )


def check_matrix(name: str, values: Floats, shape: tuple[int, ...]) -> None:
    """Refuse an array of another shape, or with NaN or infinity in it.

    Infinity less infinity is no number either.

    Raises:
        InputError: Naming the array.
    """
    if values.shape != shape:
        raise InputError("{name} must have shape {wanted}, got {shape}.", name=name, wanted=shape, shape=values.shape)
    if np.isnan(values).any():
        raise InputError(
            "{name} must have no NaN, got {count}; a shadow's training has diverged.",
            name=name,
            count=int(np.isnan(values).sum()),
        )
    if np.isinf(values).any():
        raise InputError(
            "{name} must be finite, got {count} infinities; bound the probabilities above 0.",
            name=name,
            count=int(np.isinf(values).sum()),
        )


def check_scored(scores: Floats, members: Bools, units: Ints) -> None:
    """Refuse unfit scores: another shape, NaN, rows with one side, other units.

    Raises:
        InputError: Naming `scores`, `members` or `units`.
    """
    if members.ndim != 2 or members.dtype != np.bool_:
        raise InputError(
            "members must be a boolean matrix (K, n), got {dtype} of shape {shape}.",
            dtype=members.dtype,
            shape=members.shape,
        )
    if scores.shape != members.shape or np.isnan(scores).any():
        raise InputError(
            "scores must have shape {wanted} and no NaN, got {shape} with {count} NaN.",
            wanted=members.shape,
            shape=scores.shape,
            count=int(np.isnan(scores).sum()),
        )
    check_sides(members)
    check_units(units, members.shape[1])


def check_units(units: Ints, n: int) -> None:
    """Refuse units that are not n integers.

    Raises:
        InputError: Naming `units`.
    """
    if units.shape != (n,) or not np.issubdtype(units.dtype, np.integer):
        raise InputError(
            "units must be whole numbers of shape ({n},), got {dtype} of shape {shape}.",
            n=n,
            dtype=units.dtype,
            shape=units.shape,
        )


def tells_nothing(scores: Floats) -> str:
    """Return why scores of shape (K, n) tell nothing of training; empty if they may.

    A number of such scores, and its standard error, would be 0 by construction, not by measurement.
    """
    if (scores == scores[:, :1]).all():
        return "every record has the same score, so there is nothing to tell members by"
    if len(scores) % 2 == 0 and (scores[0::2] == scores[1::2]).all():
        return "the two shadows of every pair give the same scores, so what they were trained on made no difference"
    return ""


def check_evidence(evidence: MembershipEvidence) -> None:
    """Refuse evidence from which no honest risk can be computed.

    Raises:
        InputError: Naming `losses`, `members` or `units`.
    """
    check_pairs(evidence.members)
    check_matrix("losses", evidence.losses, evidence.members.shape)
    check_units(evidence.units, evidence.members.shape[1])


def check_unit_rows(members: Bools, units: Ints) -> None:
    """Refuse a membership matrix that splits one unit's records over both sides of a shadow.

    Raises:
        InputError: Naming `members`, or `units` of another shape.
    """
    check_units(units, members.shape[1])
    _, first, codes = np.unique(units, return_index=True, return_inverse=True)
    if (members != members[:, first[codes.reshape(-1)]]).any():
        raise InputError(
            "members must be constant within a unit, but one unit has records on both sides of a "
            "shadow; draw the halves by unit."
        )
