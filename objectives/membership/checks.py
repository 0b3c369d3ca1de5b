"""What the evidence of an attack must hold before any attack looks at it."""

import numpy as np

from moo.errors import InputError
from moo.evidence import Bools, Floats, Ints, MembershipEvidence

MIN_SHADOWS = 4  # two complementary pairs: one to attack, one to refer to


def check_pairs(members: Bools) -> None:
    """Refuse a membership matrix that is not K/2 >= 2 complementary pairs with two sides each.

    Args:
        members: Shape (K, n). Rows 2j and 2j+1 must be each other's negation.

    Raises:
        InputError: Naming `members`.
    """
    if members.ndim != 2 or members.dtype != np.bool_:
        raise InputError(
            f"members a boolean matrix (K, n) must hold, but got {members.dtype} of shape {members.shape}."
        )
    k, n = members.shape
    if k < MIN_SHADOWS or k % 2:
        raise InputError(f"K even and >= {MIN_SHADOWS} must hold, but got members with K={k} rows; train whole pairs.")
    if (members[0::2] == members[1::2]).any():
        row = 2 * int(np.argmax((members[0::2] == members[1::2]).any(axis=1)))
        raise InputError(
            f"members[2j] == ~members[2j + 1] must hold, but rows {row} and {row + 1} agree somewhere;"
            " draw the shadows' halves as complementary pairs."
        )
    sizes = members.sum(axis=1)
    if (sizes == 0).any() or (sizes == n).any():
        raise InputError(
            f"members with both sides must hold, but row {int(np.argmax((sizes == 0) | (sizes == n)))} of members"
            f" has {int(sizes.min())} of {n} members; give records of both sides."
        )


def check_matrix(name: str, values: Floats, shape: tuple[int, ...]) -> None:
    """Refuse an array of another shape, or with NaN in it.

    Raises:
        InputError: Naming the array.
    """
    if values.shape != shape:
        raise InputError(f"{name} of shape {shape} must hold, but got shape {values.shape}.")
    if np.isnan(values).any():
        raise InputError(
            f"{name} without NaN must hold, but got {int(np.isnan(values).sum())} NaN; a shadow's training has diverged."
        )


def check_evidence(evidence: MembershipEvidence) -> None:
    """Refuse evidence from which no honest risk can be computed.

    Raises:
        InputError: Naming `losses`, `members` or `units`.
    """
    check_pairs(evidence.members)
    check_matrix("losses", evidence.losses, evidence.members.shape)
    if evidence.units.shape != (evidence.members.shape[1],):
        raise InputError(f"units of shape ({evidence.members.shape[1]},) must hold, but got {evidence.units.shape}.")


def check_unit_rows(members: Bools, units: Ints) -> None:
    """Refuse a membership matrix that splits one unit's records over both sides of a shadow.

    Raises:
        InputError: Naming `units`.
    """
    _, first, codes = np.unique(units, return_index=True, return_inverse=True)
    if (members != members[:, first[codes.reshape(-1)]]).any():
        raise InputError(
            "members constant within units must hold, but one unit's records lie on both sides of a shadow;"
            " draw the halves by unit."
        )
