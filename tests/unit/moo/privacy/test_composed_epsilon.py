"""Composed epsilon: unbounded as soon as a training without DP is in it, on every page, in every file."""

import dataclasses
import io
import json
import math
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from moo.cli import ledger_table, tables
from moo.dashboard.serve import study_note
from moo.privacy.composed_epsilon import ComposedEpsilon, compose
from moo.privacy.composition import compose_epsilon
from moo.privacy.events import PrivateAnswer
from moo.privacy.ledger import Ledger, read_entries
from moo.privacy.renyi_filter import RenyiFilter
from moo.report import save_report
from moo.report.annex.content import annex_of, difference
from moo.report.annex.html import render_annex
from moo.studies.accounting.account import ledger_of, ledger_path
from moo.studies.results.result import StudyResult, load_result
from moo.studies.results.search_cost import SearchCost
from tests.fixtures.letters import known
from tests.fixtures.monitored import findings, monitored_table
from tests.fixtures.pages import read_page
from tests.fixtures.runs import RUN

BARE = dataclasses.replace(RUN, noise_multiplier=0.0)
ANSWER = PrivateAnswer(name="accuracy", sensitivity=0.1, noise_multiplier=5.0)


@pytest.fixture
def result(study: tuple[Path, Path]) -> StudyResult:
    return load_result(study[1])


def test_a_training_without_dp_leaves_no_bound_and_the_private_part_is_told_apart() -> None:
    private, mixed = (compose(events, delta=1e-5) for events in ([RUN, ANSWER], [RUN, ANSWER, BARE]))
    assert private.value == private.private_part == compose_epsilon([RUN, ANSWER], delta=1e-5)
    assert (mixed.value, mixed.private_part) == (math.inf, private.private_part)
    assert str(private) == f"{private.value:.1f}" or str(private) == f"{private.value:.2f}"
    assert "unbounded" in str(mixed)
    assert compose([BARE], delta=1e-5).value == math.inf
    assert compose([], delta=1e-5) == ComposedEpsilon(private_part=0.0, delta=1e-5, includes_non_private=False)


def test_a_training_that_took_no_step_cost_nothing() -> None:
    idle = dataclasses.replace(BARE, steps=0)
    assert compose([RUN, idle], delta=1e-5) == compose([RUN], delta=1e-5)


def test_parts_add_up_where_they_may_overlap_and_an_order_fixed_before_is_kept() -> None:
    elsewhere = dataclasses.replace(RUN, part="release")
    apart, together = (compose([RUN, elsewhere], delta=1e-5, disjoint=d).value for d in (True, False))
    assert apart == compose([RUN], delta=1e-5).value
    assert together == compose([RUN, RUN], delta=1e-5).value > apart
    limit = RenyiFilter.tuned(epsilon=10.0, delta=1e-5, typical=[RUN])
    assert compose([RUN], delta=1e-5, order=limit.order).value >= apart
    assert compose([RUN, BARE], delta=1e-5, order=limit.order).value == math.inf


def test_it_travels_through_json_and_a_bare_number_of_before_bounds_nothing() -> None:
    mixed = compose([RUN, BARE], delta=1e-5)
    there = json.loads(json.dumps(mixed.to_json()))
    assert there["value"] == "inf"
    assert ComposedEpsilon.from_json(there, delta=0.5) == mixed
    assert ComposedEpsilon.from_json(10.1, delta=1e-5).value == math.inf


def test_every_page_of_a_study_with_a_status_quo_says_that_no_bound_holds(
    result: StudyResult,
    study: tuple[Path, Path],
    tmp_path: Path,
) -> None:
    cost = result.cost
    assert known(cost.composed_epsilon).value == known(cost.data_epsilon).value == math.inf
    kept = json.loads((study[1] / "result.json").read_text())["cost"]
    assert kept["composed_epsilon"]["value"] == kept["data_epsilon"]["value"] == "inf"
    for lang, word in (("en", "unbounded"), ("zh", "无有限上界")):
        assert read_page(save_report(result, tmp_path, lang=lang))[0].count(word) == 2
        page = tmp_path / "annex.html"
        page.write_text(render_annex(annex_of(result, trial=0), lang), encoding="utf-8")
        assert read_page(page)[0].count(word) == 2
    assert study_note(result).count("unbounded") == 2
    for show in (
        lambda console: tables.print_result(console, result),
        lambda console: ledger_table.print_ledger(
            console, read_entries(ledger_path(str(study[0].with_name("letters.csv"))))
        ),
    ):
        out = io.StringIO()
        show(Console(file=out, width=120))
        assert "unbounded" in out.getvalue()
        assert f"{known(cost.composed_epsilon).private_part:.1f}"[:4] in out.getvalue()


def test_an_annex_of_before_is_compared_without_its_bare_number_being_believed(result: StudyResult) -> None:
    now = annex_of(result, trial=0)
    before = {**now, "search": {**now["search"], "composed_epsilon": 10.1, "data_epsilon": 10.1}}
    page = render_annex({**now, "difference": difference(before, now)}, "en")
    assert "those with DP alone: 10.1" in page


def test_a_result_of_before_is_read_and_claims_nothing(result: StudyResult) -> None:
    old: dict[str, Any] = {**result.cost.to_json(), "composed_epsilon": 10.1, "data_epsilon": 10.1}
    assert known(SearchCost.from_json(old).data_epsilon).value == math.inf


def test_the_watch_spends_a_budget_whole_where_a_training_without_dp_is_in_it(tmp_path: Path) -> None:
    path = monitored_table(tmp_path)
    ledger: Ledger = ledger_of(str(path))
    ledger.reserve("one", 0, RUN)
    assert findings(path, budget=100.0)["budget of the house"].status == "ok"
    ledger.reserve("one", -1, BARE)
    house = findings(path, budget=100.0)["budget of the house"]
    assert (house.status, house.numbers["spent"], house.numbers["left"]) == ("attention", "inf", 0.0)
    assert house.numbers["private_part"] == compose([RUN], delta=1e-5).value
    assert "unbounded" in house.text
    json.dumps(house.numbers, allow_nan=False)
