"""Facts from probes: upper bounds, small classes, entropy, and what the accountant may claim."""

import math
from collections import Counter

import numpy as np
import pytest
from scipy.stats import poisson

from moo.core.errors import InputError
from moo.core.evidence import MaskingProbe, PrivacyEvidence, UtilityEvidence
from moo.objectives.compliance import evaluate, load_rules, masking_facts, privacy_facts, utility_facts
from moo.objectives.compliance.facts import entropy, entropy_kept, rate_ucb, small_group_share

N = 30_000
KINDS = ("mobile", "health", "city")
CITIES = ("杭州", "成都", "青岛", "大连")


def make_probe(level: int) -> MaskingProbe:
    """One mobile, one illness and one city a record; the ladder as it should be."""
    records = np.repeat(np.arange(N), 3)
    original = [v for i in range(N) for v in (f"138{i:08d}", f"病{i % 7}", f"{CITIES[i % 4]}{i // 8}")]
    covered_from = {"mobile": 1, "health": 4, "city": 3}
    types = KINDS * N
    shown = [o if level < covered_from[t] else f"<{t}>" for o, t in zip(original, types, strict=True)]
    missed = np.array([o == s for o, s in zip(original, shown, strict=True)])
    return MaskingProbe(
        level=level,
        n_records=N,
        records=records,
        users=records // 2,
        types=types,
        original=tuple(original),
        visible=tuple(shown),
        missed=missed,
    )


def test_zero_misses_in_thirty_thousand_records_score_zero() -> None:
    bound = 1000 * rate_ucb(0, 0, N)
    assert bound == pytest.approx(1000 * -math.log(0.05) / N)
    assert bound < 0.1
    rules = load_rules()
    assert rules["S01"].judge({"masking.direct_misses_ucb_per_1000": bound}) == (0.0, "pass")
    assert rules["S01"].judge({"masking.direct_misses_ucb_per_1000": 10 * bound})[0] == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("events", [0, 1, 5, 40])
def test_rate_ucb_is_the_exact_poisson_bound(events: int) -> None:
    bound = rate_ucb(events, events, 1000) * 1000
    assert poisson.cdf(events, bound) == pytest.approx(0.05)
    assert rate_ucb(3 * events, events, 1000) * 1000 == pytest.approx(bound * (3 if events else 1))


def test_rate_ucb_covers_the_true_rate_of_clustered_events() -> None:
    rng = np.random.default_rng(0)
    hits = []
    for _ in range(2000):
        sizes = rng.integers(1, 6, rng.poisson(20))
        hits.append(rate_ucb(int(sizes.sum()), len(sizes), 1000) >= 20 * 3 / 1000)
    assert np.mean(hits) >= 0.93


def test_levels_zero_to_five_move_the_scores_of_masking() -> None:
    facts = {level: masking_facts(make_probe(level)) for level in (0, 1, 3, 4, 5)}
    rules = load_rules()
    score = {
        (level, rule): rules[rule].judge(facts[level])[0] for level in facts for rule in ("S01", "S02", "S03", "S06")
    }
    assert [score[0, r] for r in ("S01", "S02", "S03", "S06")] == [1, 1, 1, 1]
    assert [score[5, r] for r in ("S01", "S02", "S03", "S06")] == [0, 0, 0, 0]
    assert (score[1, "S01"], score[1, "S03"], score[3, "S02"]) == (0, 1, 0)
    assert score[0, "S06"] > score[1, "S06"] > score[3, "S06"] > score[4, "S06"]
    penalties = [evaluate(facts[level]).penalty.value for level in facts]
    assert penalties == sorted(penalties, reverse=True)


def small_probe(rows: list[tuple[int, int, str, str, str]]) -> MaskingProbe:
    """From rows of (record, user, type, original, visible)."""
    records, users, types, original, visible = zip(*rows, strict=True)
    return MaskingProbe(
        level=3,
        n_records=len(set(records)),
        records=np.array(records),
        users=np.array(users),
        types=types,
        original=original,
        visible=visible,
        missed=np.array(original) == np.array(visible),
    )


def test_small_group_share_counts_users_of_small_classes() -> None:
    crowd = [(u, u, "city", "x", "浙江") for u in range(5)]
    pair = [(10 + u, 10 + u, "city", "x", "西藏") for u in range(2)]
    repeat = [(20 + r, 30, "age", "41", "40-49") for r in range(9)]  # nine records, one user: still a class of one
    hidden = [(40 + u, 40 + u, "mobile", "1", "1") for u in range(2)]
    assert small_group_share(small_probe(crowd + pair + repeat + hidden)) == pytest.approx(3 / 10)
    assert small_group_share(small_probe(hidden)) is None


def test_small_group_share_equals_a_naive_loop() -> None:
    rng = np.random.default_rng(1)
    rows = [
        (r, r // 3, kind, "x", str(rng.integers(0, size)))
        for r in range(120)
        for kind, size in (("age", 6), ("city", 4))
        if rng.random() < 0.7
    ]
    views = {r: sorted((k, v) for s, _, k, _, v in rows if s == r) for r, *_ in rows}
    users_of = [(str(view), r // 3) for r, view in views.items()]
    sizes = Counter(view for view, _ in set(users_of))
    naive = {u for view, u in users_of if sizes[view] < 5}
    assert small_group_share(small_probe(rows)) == pytest.approx(len(naive) / len({u for _, u, *_ in rows}))


def test_entropy_kept_weighs_types_by_their_bits() -> None:
    assert entropy(["a", "b", "c", "d"]) == 2.0
    rows = [(i, i, "age", str(i), str(i // 2)) for i in range(4)] + [
        (i, i, "city", "ab"[i % 2], "ab"[i % 2]) for i in range(4)
    ]
    # ages: 4 x 2 bits to 4 x 1; cities: 4 x 1 bit kept
    assert entropy_kept(small_probe(rows)) == pytest.approx((4 * 1 + 4 * 1) / (4 * 2 + 4 * 1))
    assert entropy_kept(small_probe([(0, 0, "rare", "a", "a")])) is None


def test_facts_without_mentions_are_unknown_and_fail() -> None:
    facts = masking_facts(small_probe([(0, 0, "rare", "a", "a")]))
    assert facts.pop("masking.level") == 3.0
    assert set(facts.values()) == {None}
    assert evaluate(facts).penalty.value == 1.0


def test_a_probe_of_uneven_columns_is_refused() -> None:
    good = make_probe(0)
    for change, message in [
        ({"types": ("mobile",)}, "Columns must have one length"),
        ({"n_records": 0}, "n_records must be > 0"),
    ]:
        with pytest.raises(InputError, match=message):
            masking_facts(MaskingProbe(**{**vars(good), **change}))


def spent(epsilon: float, claim: str = "holds", *, records_per_user: int | None = 1) -> PrivacyEvidence:
    return PrivacyEvidence(
        epsilon_spent=epsilon,
        delta=1e-5,
        n_units=2000,
        noise_multiplier=1.0,
        sample_rate=0.1,
        steps=10,
        claim=claim,
        records_per_user=records_per_user,
    )


def test_privacy_facts_claim_nothing_without_dp_or_with_a_withdrawn_claim() -> None:
    assert privacy_facts(spent(3.0)) == {
        "privacy.epsilon_user": 3.0,
        "privacy.delta_times_users": pytest.approx(0.02),
    }
    for nothing in (spent(math.inf), spent(3.0, "withdrawn because near-duplicates were removed")):
        facts = privacy_facts(nothing)
        assert facts["privacy.epsilon_user"] == math.inf
        assert [load_rules()[r].judge(facts)[0] for r in ("S04", "S05")] == [1.0, 1.0]


def test_a_user_with_many_records_has_the_guarantee_of_the_group() -> None:
    facts = privacy_facts(spent(1.0, records_per_user=20))
    assert facts["privacy.epsilon_user"] == 20.0
    assert facts["privacy.delta_times_users"] == pytest.approx(2000 * min(1.0, 20 * math.exp(19.0) * 1e-5))
    two = privacy_facts(spent(0.5, records_per_user=2))
    assert two["privacy.delta_times_users"] == pytest.approx(2000 * 2 * math.exp(0.5) * 1e-5)


def test_rules_about_users_are_not_assessed_where_nothing_says_how_many_records_they_have() -> None:
    facts = privacy_facts(spent(0.1, records_per_user=None))
    assert [load_rules()[r].judge(facts) for r in ("S04", "S05")] == [(1.0, "not assessed")] * 2
    bare = privacy_facts(spent(math.inf, records_per_user=None))
    assert [load_rules()[r].judge(bare) for r in ("S04", "S05")] == [(1.0, "fail")] * 2


def test_utility_facts_take_the_widest_assessable_gap() -> None:
    right = np.arange(400) % 4 > 0
    log_probs = np.log(np.where(right[:, None] == np.array([False, True]), 0.9, 0.1))[None].repeat(4, axis=0)
    groups = {"even": np.arange(400) % 2, "tiny": (np.arange(400) < 3).astype(int)}
    e = UtilityEvidence(log_probs=log_probs, labels=np.ones(400, dtype=int), units=np.arange(400), groups=groups)
    assert utility_facts(e) == {"utility.group_gap": pytest.approx(0.5)}
    alone = UtilityEvidence(log_probs=log_probs, labels=e.labels, units=e.units)
    assert utility_facts(alone) == {"utility.group_gap": None}
