"""How far shadows that share one pool raise the advantage over references from fresh populations."""

import pytest

from benchmarks.privacy.population import SETTINGS, biases


@pytest.mark.slow
def test_shared_pool_raises_attacks_with_references_within_stated_bounds() -> None:
    found = biases(SETTINGS["strong"], k=4, studies=60, share=0.05)
    assert all(b.halves[0] > 0.1 for b in found.values())
    plain = found["loss"]
    assert plain.over_unseen == pytest.approx((0.0, 0.0), abs=1e-9)
    assert abs(plain.over_added[0]) < 4 * plain.over_added[1]
    # full run: +.096 and +.066 for the pair reference, +.044 and +.048 for LiRA
    for attack, low, high in (("pair_reference", 0.04, 0.12), ("lira_offline", 0.02, 0.08)):
        b = found[attack]
        assert max(b.over_unseen[1], b.over_added[1]) < 0.01
        assert low < b.over_unseen[0] < high
        assert low - 0.01 < b.over_added[0] < high
        # a linear model: the variance of target less reference is a third with one shared pool, half for LiRA
        assert b.halves[0] < 3**0.5 * b.unseen[0]
