"""Attack scores against naive loops, and the evidence that they refuse."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moo.core.errors import InputError
from moo.core.evidence import Floats, MembershipEvidence
from moo.objectives.membership import risk
from moo.objectives.membership.attacks import scores
from tests.fixtures.evidence import make_evidence


def naive_pair_reference(losses: Floats) -> Floats:
    k, n = losses.shape
    out = np.zeros((k, n))
    for i in range(k):
        for x in range(n):
            others = [-losses[j, x] for j in range(k) if j // 2 != i // 2]
            out[i, x] = -losses[i, x] - sum(others) / len(others)
    return out


@given(st.integers(0, 10_000), st.sampled_from([4, 6, 8, 16]))
@settings(max_examples=25, deadline=None)
def test_pair_reference_equals_a_naive_loop(seed: int, k: int) -> None:
    e = make_evidence(seed, k=k, n=20)
    np.testing.assert_allclose(scores.pair_reference(e.losses, e.members), naive_pair_reference(e.losses), atol=1e-9)


def test_pair_reference_never_refers_to_its_own_complement() -> None:
    e = make_evidence(1, k=6)
    moved = e.losses.copy()
    moved[3] += 100.0
    before, after = scores.pair_reference(e.losses, e.members), scores.pair_reference(moved, e.members)
    np.testing.assert_allclose(before[2], after[2], atol=1e-12)
    assert (np.abs(before - after)[[0, 1, 4, 5]] > 1).all()


def test_pair_reference_does_not_read_the_membership() -> None:
    e = make_evidence(2)
    other = make_evidence(3)
    np.testing.assert_array_equal(
        scores.pair_reference(e.losses, e.members), scores.pair_reference(e.losses, other.members)
    )


def test_out_references_are_as_many_for_members_as_for_nonmembers() -> None:
    e = make_evidence(4, k=8)
    assert (scores.out_references(e.members).sum(axis=1) == 3).all()


def test_base_difference_is_base_minus_loss() -> None:
    e = make_evidence(5)
    base = np.arange(60.0)
    np.testing.assert_array_equal(scores.base_difference(e.losses, base)[2], base - e.losses[2])
    with pytest.raises(InputError, match="base_losses must have no NaN"):
        scores.base_difference(e.losses, np.full(60, np.nan))


def broken(e: MembershipEvidence, **change: np.ndarray) -> MembershipEvidence:
    return MembershipEvidence(**{"losses": e.losses, "members": e.members, "units": e.units, **change})


def test_unfit_evidence_is_refused_with_the_argument_named() -> None:
    e = make_evidence(6, k=6)
    nan = e.losses.copy()
    nan[1, 5] = np.nan
    agree = e.members.copy()
    agree[3, 0] = agree[2, 0]
    empty = e.members.copy()
    empty[0], empty[1] = True, False
    cases = [
        (broken(e, losses=nan), "losses must have no NaN"),
        (broken(e, losses=e.losses[:4]), "losses must have shape"),
        (broken(e, members=e.members[:5]), "K must be even and >= 4"),
        (broken(e, members=e.members[:2], losses=e.losses[:2]), "K must be even and >= 4"),
        (broken(e, members=agree), "rows 2 and 3 agree"),
        (broken(e, members=empty), "row 0 has 0 of 60 members"),
        (broken(e, members=e.members.astype(int)), "members must be a boolean matrix"),
        (broken(e, units=e.units[1:]), "units must be whole numbers of shape"),
    ]
    for evidence, message in cases:
        with pytest.raises(InputError, match=message):
            risk.membership_risk(evidence)
