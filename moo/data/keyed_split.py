"""Splits and complementary pairs, by keyed hash of each unit's own identity: no unit's part depends on other data."""

import hashlib
import hmac
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from moo.core.errors import InputError

Bools = NDArray[np.bool_]


def keyed_uniform(identities: Sequence[str], key: bytes) -> NDArray[np.float64]:
    """Return one number in [0, 1) for each identity: the first 53 bits of HMAC-SHA256 under the key."""
    digests = (hmac.new(key, i.encode("utf-8", "surrogatepass"), hashlib.sha256).digest() for i in identities)
    return np.array([(int.from_bytes(d[:8]) >> 11) * 2.0**-53 for d in digests])


def split_units(unit_ids: Sequence[str], key: bytes, fractions: Mapping[str, float]) -> dict[str, Bools]:
    """Assign units to parts.

    Args:
        unit_ids: Identities of the units, length U.
        key: Secret key.
        fractions: Part -> public share in (0, 1); the remainder to 1 is the part "rest".

    Returns:
        Part -> mask of shape (U,); the masks, "rest" included, partition the units.

    Raises:
        InputError: If a share is not positive, or their sum is above 1.
    """
    shares = list(fractions.values())
    if any(s <= 0 for s in shares) or sum(shares) > 1 + 1e-9:
        raise InputError("fractions must be > 0 with a sum of at most 1, got {fractions}.", fractions=dict(fractions))
    place = np.searchsorted(np.cumsum(shares), keyed_uniform(unit_ids, key), side="right")
    return {part: place == i for i, part in enumerate([*fractions, "rest"])}


def complementary_pairs(unit_ids: Sequence[str], n_shadows: int, key: bytes) -> Bools:
    """Return the units that each shadow trains on.

    Every unit tosses its own keyed coin for each pair, so no unit's side depends on another unit.

    Args:
        unit_ids: Identities of the units, length U.
        n_shadows: Number of shadows K, even and >= 4.
        key: Secret key.

    Returns:
        Mask of shape (K, U); row 2j + 1 is the negation of row 2j.

    Raises:
        InputError: If n_shadows is odd or below 4.
    """
    if n_shadows < 4 or n_shadows % 2:
        raise InputError(
            "n_shadows even and >= 4 must hold, but got n_shadows={n_shadows}; shadows come in pairs.",
            n_shadows=n_shadows,
        )
    rows = [keyed_uniform(unit_ids, key + j.to_bytes(4)) < 0.5 for j in range(n_shadows // 2)]
    return np.stack([side for row in rows for side in (row, ~row)])
