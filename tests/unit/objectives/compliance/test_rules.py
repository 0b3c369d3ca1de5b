"""Every rule passes, fails and is not assessed; the penalty adds up, is monotone, and packs are checked by line."""

import itertools
import math
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moo.core.errors import InputError
from moo.objectives.compliance import evaluate, explain, load_rules
from moo.objectives.compliance.pack import BUILT_IN, read_pack
from moo.objectives.compliance.report import share_out
from moo.objectives.compliance.rule import lramp, ramp

BOOK = load_rules(BUILT_IN)
RULES = {r.id: r for r in BOOK.rules}

# rule -> (facts that pass, facts that fail)
EXAMPLES: dict[str, tuple[dict[str, float], dict[str, float]]] = {
    "G01": (
        {"data.no_lawful_basis": 0, "data.consent_after_use": 0},
        {"data.no_lawful_basis": 0, "data.consent_after_use": 0.01},
    ),
    "G02": ({"data.purpose_mismatch": 0}, {"data.purpose_mismatch": 0.2}),
    "G03": ({"data.withdrawn": 0}, {"data.withdrawn": 1e-5}),
    "G04": ({"data.storage_only": 0}, {"data.storage_only": 1}),
    "G05": ({"data.over_retention": 0}, {"data.over_retention": 0.5}),
    "G06": (
        {"data.sensitive_without_consent": 0.3, "masking.level": 4},
        {"data.sensitive_without_consent": 0.3, "masking.level": 3},
    ),
    "G07": ({"data.minors_without_guardian": 0}, {"data.minors_without_guardian": 0.001}),
    **{
        rule: ({f"declared.{key}": 0}, {f"declared.{key}": 0.5})
        for rule, key in {
            "G08": "source_gap",
            "G09": "notice_gap",
            "G10": "transfer_gap",
            "G11": "processor_gap",
            "G12": "assessment_gap",
            "G13": "encryption_gap",
            "G14": "access_gap",
            "G16": "option_gap",
        }.items()
    },
    "G15": ({"declared.audit_age_days": 730}, {"declared.audit_age_days": 731}),
    "G17": ({"data.illegal_tags": 0}, {"data.illegal_tags": 1e-6}),
    "G18": ({"privacy.over_budget": 0}, {"privacy.over_budget": 1}),
    "S07": ({"generation.canaries_emitted_ucb": 0.00994}, {"generation.canaries_emitted_ucb": 0.2}),
    "S09": ({"masking.wordless_share": 0.049}, {"masking.wordless_share": 0.05}),
    "S10": ({"release.withdrawn_share": 0.0}, {"release.withdrawn_share": 0.01}),
    "S01": ({"masking.direct_misses_ucb_per_1000": 0.0999}, {"masking.direct_misses_ucb_per_1000": 5.0}),
    "S02": ({"masking.small_group_share": 0.0}, {"masking.small_group_share": 0.15}),
    "S03": ({"masking.sensitive_misses_ucb_per_1000": 0.05}, {"masking.sensitive_misses_ucb_per_1000": 400.0}),
    "S04": ({"privacy.epsilon_user": 1.0}, {"privacy.epsilon_user": math.inf}),
    "S05": ({"privacy.delta_times_users": 0.05}, {"privacy.delta_times_users": 0.9}),
    "S06": ({"masking.entropy_kept": 0.1}, {"masking.entropy_kept": 0.9}),
    "S08": ({"utility.group_gap": 0.02}, {"utility.group_gap": 0.2}),
}


def facts_of(index: int) -> dict[str, float | None]:
    merged: dict[str, float | None] = {"masking.level": 4.0 if index == 0 else 0.0}
    for rule_id, both in EXAMPLES.items():
        if rule_id != "G06":
            merged.update(both[index])
    return merged | {"data.sensitive_without_consent": 0.3}


def test_every_rule_of_every_pack_has_examples() -> None:
    assert set(EXAMPLES) == set(RULES)


@pytest.mark.parametrize("rule_id", sorted(EXAMPLES))
def test_rule_passes_fails_and_is_not_assessed(rule_id: str) -> None:
    rule = RULES[rule_id]
    good, bad = EXAMPLES[rule_id]
    assert rule.judge(good)[1] == "pass"
    assert rule.judge(bad)[1] == "fail"
    assert rule.judge(bad)[0] > rule.judge(good)[0]
    assert rule.judge({}) == (1.0, "not assessed")
    assert rule.judge(dict.fromkeys(rule.evidence, math.nan)) == (1.0, "not assessed")
    assert rule.judge(dict.fromkeys(rule.evidence)) == (1.0, "not assessed")


GRADED = [r.evidence[0] for r in BOOK.at() if r.kind == "graded"]


def test_ramps_by_hand() -> None:
    assert [ramp(x, 0, 0.2) for x in (-1, 0, 0.05, 0.2, math.inf)] == [0, 0, 0.25, 1, 1]
    assert lramp(math.sqrt(10), 1, 10) == pytest.approx(0.5)
    assert [lramp(x, 0.1, 10) for x in (0, 0.1, 10, math.inf)] == [0, 0, 1, 1]


def test_no_rule_reads_the_risk_objectives_evidence() -> None:
    spaces = {key.split(".")[0] for rule in RULES.values() for key in rule.evidence}
    assert spaces == {"data", "masking", "privacy", "utility", "declared", "generation", "release"}
    graded = {key.split(".")[0] for rule in RULES.values() if rule.kind == "graded" for key in rule.read({})}
    assert graded == {"masking", "privacy", "utility", "generation"}


@pytest.mark.parametrize("space", ["membership", "attribute"])
def test_a_pack_that_reads_the_risk_objectives_evidence_is_refused(space: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"own\.toml:10: Evidence '.*' belongs to the risk objective"):
        load_rules([write(tmp_path, OWN.replace("masking.entropy_kept", f"{space}.advantage"))])


def test_penalty_is_the_weighted_maximum_of_each_domain() -> None:
    facts = facts_of(0) | {"masking.direct_misses_ucb_per_1000": 1.0, "masking.small_group_share": 0.05}
    report = evaluate(facts)  # S01 scores .5, S02 .25; S06 .1; the rest 0
    assert report.penalty.value == pytest.approx(0.30 * 0.5 + 0.10 * 0.1)
    assert explain(report)[0].startswith("identifiability: 0.150 = 0.30 x 0.50, S01 Residual direct identifiers (PIPL")


def test_all_failing_and_all_unknown_score_one() -> None:
    assert evaluate(facts_of(1) | dict.fromkeys(GRADED, math.inf)).penalty.value == pytest.approx(1.0)
    nothing = evaluate({})
    assert nothing.penalty.value == 1.0
    assert nothing.penalty.note == "not assessed: S01, S02, S03, S04, S05, S06, S08"
    assert set(nothing.gates.values()) == {1.0}
    assert len(nothing.not_assessed) == len(nothing.contributions) == 15  # S09 is watched, and enters nothing
    assert set(nothing.gates) == {f"G0{i}" for i in range(1, 8)}


def test_gates_are_shortfalls_and_stay_out_of_the_penalty() -> None:
    good, bad = evaluate(facts_of(0)), evaluate(facts_of(0) | {"data.withdrawn": 0.25})
    assert set(good.gates.values()) == {0.0}
    assert bad.gates["G03"] == 0.25
    assert bad.penalty == good.penalty


@pytest.mark.parametrize(
    "change",
    [
        {"masking.direct_misses_ucb_per_1000": 3.0},
        {"masking.entropy_kept": 0.6},
        {"privacy.epsilon_user": 5.0},
        {"utility.group_gap": 0.1},
    ],
)
def test_penalty_varies_with_masking_with_epsilon_and_with_the_models_behaviour(change: dict[str, float]) -> None:
    assert evaluate(facts_of(0) | change).penalty.value > evaluate(facts_of(0)).penalty.value + 0.02


def test_sensitive_data_gate_varies_with_masking() -> None:
    for level, shortfall in [(0, 0.3), (3, 0.3), (4, 0.0), (5, 0.0)]:
        facts = {"data.sensitive_without_consent": 0.3, "masking.level": float(level)}
        assert evaluate(facts).gates["G06"] == shortfall
    assert evaluate({"data.sensitive_without_consent": 0.3}).gates["G06"] == 0.3


def test_rules_are_judged_at_their_stage_and_where_they_apply() -> None:
    everything = evaluate(
        {}, BOOK, applies=("profiling", "budgeted", "generative"), stages=("trial", "release", "watch")
    )
    assert {row["rule"] for row in everything.contributions} == set(RULES)
    assert set(everything.gates) == {f"G{i:02}" for i in range(1, 19)}
    release = evaluate({}, BOOK, stages=("release",))
    assert set(release.gates) == {f"G{i:02}" for i in range(8, 17)}
    assert release.penalty.value == 0.0
    assert "G17 does not apply: the study is not profiling" in evaluate({}, BOOK).notes


def test_watched_rules_are_shown_and_enter_neither_penalty_nor_gates() -> None:
    good, bad = evaluate(facts_of(0), BOOK), evaluate(facts_of(0) | {"masking.wordless_share": 1.0}, BOOK)
    assert (good.penalty, good.gates) == (bad.penalty, bad.gates)
    row = next(r for r in bad.contributions if r["rule"] == "S09")
    assert (row["score"], row["verdict"], row["contribution"]) == (1.0, "fail", 0.0)


def test_a_digest_stands_for_the_rule_and_what_it_read_and_for_nothing_else() -> None:
    rule = RULES["G06"]
    facts = {"data.sensitive_without_consent": 0.3, "masking.level": 4.0}
    assert rule.read(facts) == facts
    assert rule.digest(facts) == rule.digest(facts | {"data.withdrawn": 1.0})
    assert rule.digest(facts) != rule.digest(facts | {"masking.level": 5.0})
    assert rule.digest(facts) != RULES["G05"].digest(facts)
    assert RULES["S04"].read({"privacy.epsilon_user": math.inf}) == {"privacy.epsilon_user": "inf"}
    assert len({r.digest({}) for r in RULES.values()}) == len(RULES)


def test_every_rule_stands_under_a_heading_of_article_56() -> None:
    assert {r.pia for r in RULES.values()} == {1, 2, 3}
    for heading in (1, 2, 3):
        assert [r.id for r in BOOK.at((), "trial", "release") if r.pia == heading]


numbers = st.one_of(st.none(), st.floats(0, 100), st.just(math.inf))


@given(st.fixed_dictionaries(dict.fromkeys(GRADED, numbers)), st.sampled_from(GRADED), st.floats(0, 50))
@settings(deadline=None)
def test_penalty_is_in_range_additive_and_monotone(facts: dict[str, float | None], key: str, more: float) -> None:
    report = evaluate(facts, BOOK)
    assert 0 <= report.penalty.value <= 1
    assert math.fsum(row["contribution"] for row in report.contributions) == pytest.approx(report.penalty.value)
    value = facts[key]
    worse = evaluate(facts | {key: None if value is None else value + more}, BOOK)
    assert worse.penalty.value >= report.penalty.value - 1e-12
    assert evaluate(facts | {key: None}, BOOK).penalty.value >= report.penalty.value - 1e-12


def test_weight_of_a_domain_that_does_not_apply_is_shared_out(tmp_path: Path) -> None:
    pack = write(
        tmp_path, OWN.replace('domain = "minimisation"', 'domain = "extra"\napplies_if = "generative"') + EXTRA
    )
    facts = {"masking.entropy_kept": 0.5, "utility.group_gap": 0.0}
    both = evaluate(facts, [pack], applies=("generative",))
    assert both.penalty.value == pytest.approx(0.25 * 0.5)
    one = evaluate(facts, [pack])
    assert [row["rule"] for row in one.contributions] == ["X02"]
    assert one.contributions[0]["weight"] == 1.0
    assert one.notes[0] == "X01 does not apply: the study is not generative"
    assert "weight of extra is shared out" in one.notes[1]


def test_weights_are_checked() -> None:
    assert share_out({"a": 1, "b": 3, "c": 9}, ["b", "a", "a"]) == {"a": 0.25, "b": 0.75}
    for weights, message in [({"a": 1.0}, "weights"), ({"a": 1, "b": -1}, "weights"), ({"a": 0, "b": 0}, "above 0")]:
        with pytest.raises(InputError, match=message):
            share_out(weights, ["a", "b"])


def test_packs_join_their_articles_and_the_weaker_status() -> None:
    assert RULES["G01"].basis == ("PIPL 13", "ECL 23", "GDPR 6", "Generative AI Measures 7")
    assert (RULES["G01"].status, RULES["G01"].pack) == ("recalled", "pipl")
    assert load_rules(["pipl"])["G01"].status == "read"


def test_an_extending_pack_alone_judges_by_its_own_articles() -> None:
    alone = load_rules(["gdpr"])
    assert [r.id for r in alone.rules] == ["G01", "G02", "G03", "G12", "G13", "S04"]
    assert alone["S04"].basis == ("GDPR 25",)
    assert evaluate({"privacy.epsilon_user": 10.0}, alone).penalty.value == 1.0


def test_the_order_of_packs_changes_no_judgement() -> None:
    reports = [evaluate(facts_of(1), list(order)) for order in itertools.permutations(["pipl", "gdpr", "house"])]
    assert len({(r.penalty.value, tuple(sorted(r.gates.items()))) for r in reports}) == 1
    assert {row["pack"] for row in reports[-1].contributions} == {"pipl", "house"}


@pytest.mark.parametrize("name", BUILT_IN)
def test_built_in_packs_speak_both_languages_and_never_overclaim(name: str) -> None:
    text = read_pack(name).text
    assert not re.search("anonymous|certified|匿名", text, re.IGNORECASE)
    for rule in load_rules([name]).rules:
        assert re.search("[\u4e00-\u9fff]", rule.title_zh)
        assert rule.title_en.isascii()
        assert rule.status == "policy" or not rule.basis[0].startswith("House")


OWN = """pack = "own"
[[rule]]
id = "X01"
kind = "graded"
domain = "minimisation"
title_zh = "甲"
title_en = "A"
basis = ["House policy"]
status = "policy"
evidence = ["masking.entropy_kept"]
score = "share"
varies = ["masking"]
source = "own"
as_of = 2026-01-01
"""
EXTRA = """
[[rule]]
id = "X02"
kind = "graded"
domain = "behaviour"
title_zh = "乙"
title_en = "B"
basis = ["House policy"]
status = "policy"
evidence = ["utility.group_gap"]
score = "ramp"
parameters = { low = 0.0, high = 0.1 }
varies = ["model"]
source = "own"
as_of = 2026-01-01
[weights]
extra = 1
behaviour = 3
"""


def write(folder: Path, text: str, name: str = "own") -> Path:
    path = folder / f"{name}.toml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('kind = "graded"', 'kind = "graded"\nkolour = 1', r"own\.toml:5: Unknown key 'kolour'"),
        ('pack = "own"', 'pack = "own"\nowner = 1', r"own\.toml:2: Unknown key 'owner'"),
        ('pack = "own"', "", r"own\.toml:1: A pack needs its name"),
        ('basis = ["House policy"]', "basis = []", r"own\.toml:8: Rule X01 needs an article"),
        ('basis = ["House policy"]', "", r"own\.toml:2: Rule X01 misses 'basis'"),
        ('status = "policy"', 'status = "sure"', r"own\.toml:9: status must be one of"),
        ('score = "share"', 'score = "magic"', r"own\.toml:11: score must be one of"),
        ('score = "share"', 'score = "ramp"', r"own\.toml:2: parameters"),
        (
            'score = "share"',
            'score = "lramp"\nparameters = { low = 0.0, high = 1.0 }',
            r"own\.toml:12: parameters must have low < high \(0 < low",
        ),
        ('kind = "graded"', 'kind = "gate"', r"own\.toml:5: A graded rule needs a domain"),
        ('domain = "minimisation"', 'domain = "unknown"', r"own\.toml:2: domain 'unknown' of X01 has no weight"),
        ("as_of = 2026-01-01", 'as_of = "soon"', r"own\.toml:14: as_of must be a date"),
        (
            'kind = "graded"',
            'kind = "graded"\nstage = "release"',
            r"own\.toml:5: stage must be one of .* trial if graded",
        ),
        (
            'kind = "graded"',
            'kind = "graded"\npia = 4',
            r"own\.toml:5: pia must be 1, 2 or 3, a heading of PIPL article 56",
        ),
        (
            'kind = "graded"',
            'kind = "graded"\napplies_if = "rule:X09"',
            r"own\.toml:5: X01 applies where X09 does, which no chosen pack has",
        ),
        ("masking.entropy_kept", "weather.rain", r"own\.toml:10: evidence must be SPACE\.NAME"),
        ('title_en = "A"', 'title_en = "A', r"own\.toml must be TOML in UTF-8, but .*line 7"),
        ('pack = "own"', 'pack = "own"\nweights = { minimisation = -1 }', r"weight must be >= 0"),
    ],
)
def test_a_broken_pack_is_refused_with_file_and_line(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_rules([write(tmp_path, OWN.replace(old, new))])


EXTENSION = """pack = "{0}"
[[rule]]
id = "X01"
extends = "{1}"
basis = ["Law {0}"]
status = "read"
source = "own"
as_of = 2026-01-01
"""


def test_extensions_are_checked_for_cycles_and_parents(tmp_path: Path) -> None:
    a, b = write(tmp_path, EXTENSION.format("a", "b"), "a"), write(tmp_path, EXTENSION.format("b", "a"), "b")
    with pytest.raises(InputError, match=r"a\.toml:4|b\.toml:4: X01 extends itself in a cycle: a -> b -> a"):
        load_rules([a, b])
    with pytest.raises(InputError, match=r"a\.toml:4: X01 extends pack 'b', which is neither built in nor chosen"):
        load_rules([a])
    orphan = write(tmp_path, EXTENSION.format("a", "pipl"), "a")
    with pytest.raises(InputError, match=r"a\.toml:3: X01 extends pack 'pipl', which has no rule of that id"):
        load_rules([orphan])


def test_conditions_follow_other_rules_and_never_in_a_circle(tmp_path: Path) -> None:
    chained = (OWN + EXTRA).replace('domain = "minimisation"', 'domain = "extra"\napplies_if = "rule:X02"')
    chained = chained.replace('domain = "behaviour"', 'domain = "behaviour"\napplies_if = "generative"')
    book = load_rules([write(tmp_path, chained)])
    assert [r.id for r in book.at(("generative",))] == ["X01", "X02"]
    assert book.at() == ()
    assert evaluate({}, book).notes[:2] == (
        "X01 does not apply: nor does X02",
        "X02 does not apply: the study is not generative",
    )
    circle = chained.replace('applies_if = "generative"', 'applies_if = "rule:X01"')
    with pytest.raises(
        InputError, match=r"own\.toml:6: X01 applies where rules apply that end in a cycle: X01 -> X02 -> X01"
    ):
        load_rules([write(tmp_path, circle)])


def test_two_packs_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"pipl\.toml:1: Pack pipl is in .* as well; choose another name"):
        load_rules(["pipl", write(tmp_path, OWN.replace('"own"', '"pipl"', 1), "pipl")])


def test_a_company_pack_extends_another_by_path(tmp_path: Path) -> None:
    own, more = write(tmp_path, OWN), write(tmp_path, EXTENSION.format("more", "own"), "more")
    assert load_rules([more, own])["X01"].basis == ("Law more", "House policy")
    with pytest.raises(InputError, match=r"two\.toml:3: Rule X01 is in pack own as well"):
        load_rules([own, write(tmp_path, OWN.replace('"own"\n', '"two"\n', 1), "two")])


def test_unknown_packs_and_rules_are_refused() -> None:
    with pytest.raises(InputError, match="or paths of TOML files, got 'nowhere'"):
        load_rules(["nowhere"])
    with pytest.raises(InputError, match="rule must be one of"):
        BOOK["Z99"]
