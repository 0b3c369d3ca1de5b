"""Attacks by name.

What each needs, the quantile regression, the choice on one half, exposure by decile, the
permutation test.
"""

import dataclasses
import math
from typing import Literal

import numpy as np
import pytest
from sklearn.linear_model import QuantileRegressor

from moo.core.errors import InputError
from moo.core.evidence import MembershipEvidence, Population
from moo.objectives.membership import choice, deciles, permutation, risk, uncertainty
from moo.objectives.membership.attacks.quantile import QUARTILES, fit_quantile, quantile_regression
from moo.objectives.membership.attacks.registry import ATTACKS, attack_scores, check_attack
from moo.objectives.membership.metrics import placements
from tests.fixtures.evidence import whole_evidence

Level = Literal["record", "user"]


@pytest.mark.parametrize("level", ["record", "user"])
@pytest.mark.parametrize("name", sorted(ATTACKS))
def test_every_attack_finds_a_leak_and_none_where_there_is_none(name: str, level: Level) -> None:
    k = max(4, ATTACKS[name].min_shadows)
    leaking = risk.auc(whole_evidence(1, k=k, users=600, per_user=2, leak=1.0), attack=name, level=level)
    assert leaking.low > 0.55
    null = [risk.auc(whole_evidence(s, k=k, per_user=2), attack=name, level=level).value for s in range(40)]
    assert abs(np.mean(null) - 0.5) < 3.5 * np.std(null) / math.sqrt(len(null))


@pytest.mark.parametrize("name", sorted(ATTACKS))
def test_an_attack_without_what_it_needs_says_what_is_missing(name: str) -> None:
    bare = dataclasses.replace(whole_evidence(2), base_losses=None, population=None)
    if ATTACKS[name].min_shadows > 4:
        with pytest.raises(InputError, match="n_shadows must be >= 8"):
            attack_scores(bare, name)
    elif name in choice.possible(bare):
        assert attack_scores(bare, name).shape == bare.losses.shape
    else:
        with pytest.raises(InputError, match=r"(base_losses|population) must be given"):
            attack_scores(bare, name)


def test_a_study_is_refused_an_attack_that_its_shadows_do_not_suffice_for() -> None:
    check_attack("lira_online_per_text", n_shadows=8)
    with pytest.raises(InputError, match=r"n_shadows must be >= .*got 4"):
        check_attack("lira_online_per_text", n_shadows=4)
    with pytest.raises(InputError, match="chosen"):
        check_attack("magic", n_shadows=8)


def test_quantiles_are_those_of_the_linear_programme() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=300)
    basis = np.stack([np.ones_like(x), x, x**2], axis=1)
    values = np.stack([1 + 2 * x + (1 + abs(x)) * rng.gamma(1.0, 1.0, 300), rng.standard_t(3, 300)])
    for q in QUARTILES:
        found = fit_quantile(basis, values, q)
        for row, mine in zip(values, found, strict=True):
            exact = QuantileRegressor(quantile=q, alpha=0.0, fit_intercept=False).fit(basis, row).coef_
            ours, best = ((lambda r: np.maximum(q * r, (q - 1) * r).mean())(row - basis @ c) for c in (mine, exact))
            assert best <= ours <= best * 1.0001
            assert np.abs(mine - exact).max() < 0.02


def test_a_record_at_the_median_of_its_hardness_scores_nothing() -> None:
    e = whole_evidence(3, m=400)
    assert e.base_losses is not None
    assert e.population is not None
    assert e.population.base_losses is not None
    own = quantile_regression(e.population.losses, e.population.base_losses, e.population)
    assert np.abs((own > 0).mean(axis=1) - 0.5).max() < 0.02


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"base_losses": np.full(300, np.nan)}, "base_losses must have no NaN"),
        ({"population": Population(losses=np.ones((4, 300)))}, "population.base_losses must be given"),
        ({"population": Population(losses=np.ones((4, 5)), base_losses=np.ones(5))}, "20 records"),
        (
            {"population": Population(losses=np.full((4, 30), np.nan), base_losses=np.ones(30))},
            "population.losses must have no NaN",
        ),
        (
            {"population": Population(losses=np.ones((3, 30)), base_losses=np.ones(30))},
            "population.losses must have shape",
        ),
    ],
)
def test_quantile_regression_refuses_unfit_arrays_by_name(change: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        attack_scores(dataclasses.replace(whole_evidence(4), **change), "quantile")  # type: ignore[arg-type]


def test_a_population_without_spread_still_gives_numbers() -> None:
    e = whole_evidence(5)
    flat = dataclasses.replace(e, population=Population(losses=np.ones((4, 30)), base_losses=np.ones(30)))
    assert np.isfinite(attack_scores(flat, "quantile")).all()


def test_taken_records_keep_their_scores() -> None:
    e = whole_evidence(6, leak=1.0)
    some = np.arange(300) % 3 == 0
    for name in ("pair_reference", "base", "base_difference", "quantile", "rmia_offline"):
        np.testing.assert_allclose(attack_scores(e.take(some), name), attack_scores(e, name)[:, some], atol=1e-12)


def test_the_chosen_attack_is_reported_on_units_that_did_not_choose_it() -> None:
    e = whole_evidence(7, users=600, per_user=2, leak=1.0)
    found = choice.choose(e)
    assert found.attack == "base_difference"  # by far the strongest where texts differ this much
    assert set(found.evidence.units) < set(e.units)
    assert len(set(found.evidence.units)) == 300
    assert choice.choose(e, ("loss", "pair_reference")).attack == "pair_reference"
    with pytest.raises(InputError, match="4 units"):
        choice.choose(e.take(e.units < 3))


def test_the_largest_attack_on_the_same_units_is_biased_upward_and_the_chosen_one_is_not() -> None:
    def area(evidence: MembershipEvidence, attack: str) -> float:
        """The AUC without its standard error."""
        return float(uncertainty.shadow_aucs(attack_scores(evidence, attack), evidence.members).mean())

    largest, chosen = [], []
    for seed in range(120):
        e = whole_evidence(seed)
        largest.append(max(area(e, name) for name in choice.possible(e)))
        c = choice.choose(e)
        chosen.append(area(c.evidence, c.attack))
    assert np.mean(largest) > 0.5 + 5 * np.std(largest) / math.sqrt(120)
    assert abs(np.mean(chosen) - 0.5) < 3.5 * np.std(chosen) / math.sqrt(120)


def test_balanced_accuracy_is_the_plain_one_and_agrees_with_the_bootstrap() -> None:
    e = whole_evidence(8, users=500, leak=0.8)
    s = attack_scores(e)
    above = s > np.median(s, axis=1, keepdims=True)
    naive = np.mean([(r[m].mean() + (~r[~m]).mean()) / 2 for r, m in zip(above, e.members, strict=True)])
    found = risk.balanced_accuracy(e)
    assert found.value == pytest.approx(naive, abs=1e-12)

    def of(weights: np.ndarray) -> float:
        rows = np.repeat(np.arange(500), weights)
        return uncertainty.balanced_with_stderr(s[:, rows], e.members[:, rows], e.units[rows])[0]

    draws = uncertainty.bootstrap(of, e.units, np.random.default_rng(0), 300)
    assert 0.85 * draws.std() < found.stderr < 1.6 * draws.std()  # above it by what training adds


def test_deciles_average_to_the_advantage_by_user_and_rise_where_some_leak_more() -> None:
    e = whole_evidence(9, k=8, users=900, per_user=2)
    prone = (e.units % 9 == 0)[None] & e.members
    e = dataclasses.replace(e, losses=np.maximum(e.losses - 2.0 * prone, 1e-3))
    groups = deciles.exposure_deciles(e)
    mean = np.mean([g.value for g in groups])
    assert mean == pytest.approx(risk.membership_risk(e, level="user").value, abs=0.01)
    assert groups[-1].low > mean + 0.2
    assert deciles.worst_decile(e) == groups[-1]


def test_the_worst_decile_is_not_biased_upward_where_nothing_leaks() -> None:
    """Ranked and measured on the same shadows it would look exposed by far."""
    honest, naive = [], []
    for seed in range(80):
        e = whole_evidence(seed)
        honest.append(deciles.worst_decile(e).value)
        s = attack_scores(e)
        own = np.mean([placements(r, m) for r, m in zip(s, e.members, strict=True)], axis=0)
        naive.append(2 * np.sort(own)[-30:].mean() - 1)
    assert np.mean(naive) > 0.3
    assert abs(np.mean(honest)) < 3.5 * np.std(honest) / math.sqrt(80)


def test_a_groups_influence_agrees_with_leaving_one_user_out() -> None:
    rng = np.random.default_rng(10)
    scores, members, inside = rng.normal(size=60), rng.random(60) < 0.5, rng.random(60) < 0.3

    def mean_of(keep: np.ndarray) -> float:
        placed = placements(scores[keep], members[keep])
        return float(placed[inside[keep]].mean())

    whole = np.ones(60, dtype=bool)
    found = deciles._influence(placements(scores, members), scores, members, inside)
    for i in range(60):
        one = whole.copy()
        one[i] = False
        assert found[i] == pytest.approx(mean_of(whole) - mean_of(one), abs=0.12 * np.abs(found).max())


def test_too_few_users_leave_the_deciles_unassessed() -> None:
    found = deciles.worst_decile(whole_evidence(11, users=299))
    assert math.isnan(found.value)
    assert found.note.startswith("not assessed: 10 groups of 30 users need 300, there are 299")


def test_the_permutations_are_all_there_are_and_the_smallest_p_value_is_theirs() -> None:
    rng = np.random.default_rng(0)
    assert len({tuple(r) for r in permutation.row_permutations(2, 999, rng)}) == 8
    assert len({tuple(r) for r in permutation.row_permutations(4, 999, rng)}) == 384
    assert sum(1 for _ in permutation.row_permutations(8, 20, rng)) == 20
    leak = whole_evidence(12, k=8, leak=1.0)
    assert permutation.permutation_p_value(leak, ATTACKS["pair_reference"]) == pytest.approx(1 / 384)
    assert permutation.permutation_p_value(leak, ATTACKS["base_difference"], n_draws=19) == pytest.approx(1 / 20)
    with pytest.raises(InputError, match="n_draws"):
        permutation.permutation_p_value(leak, ATTACKS["loss"], n_draws=0)


def test_p_values_are_uniform_where_nothing_leaks() -> None:
    found = np.array(
        [permutation.permutation_p_value(whole_evidence(s, users=80), ATTACKS["pair_reference"]) for s in range(300)]
    )
    for share in (1 / 8, 1 / 4, 1 / 2):
        reached = (found <= share + 1e-9).mean()
        assert abs(reached - share) < 3.5 * math.sqrt(share * (1 - share) / 300)


@pytest.mark.slow
@pytest.mark.parametrize(("users", "per_user"), [(300, 1), (150, 3), (400, 2)])
@pytest.mark.parametrize("k", [4, 8])
@pytest.mark.parametrize("leak", [0.0, 1.0])
def test_intervals_cover_the_truth_in_19_of_20_studies(leak: float, k: int, users: int, per_user: int) -> None:
    """1,000 whole K x n matrices with skewed noise of each text's own; at the null the truth is one half."""
    names = ("pair_reference", "loss", "lira_offline")
    found = {name: np.empty((1000, 2)) for name in names}
    for seed in range(1000):
        e = whole_evidence(seed, k=k, users=users, per_user=per_user, leak=leak, m=20)
        for name in names:
            area = risk.auc(e, attack=name)
            found[name][seed] = area.value, area.half
    for name, rows in found.items():
        truth = rows[:, 0].mean() if leak else 0.5
        covered = (np.abs(rows[:, 0] - truth) <= rows[:, 1]).mean()
        assert abs(rows[:, 0].mean() - truth) <= 3.5 * rows[:, 0].std() / math.sqrt(1000), name
        assert 0.93 <= covered <= 0.97, (name, covered)
