"""The Chinese report and annex are Chinese throughout: no English word is left but names, ids and units."""

import ast
import dataclasses
import json
import math
import re
import string
import tomllib
from collections.abc import Iterator
from datetime import date
from importlib import import_module, resources
from pathlib import Path
from typing import Any

import pytest

from moo.core.measurement import Measurement
from moo.report import figures, save_report
from moo.report.annex.content import annex_of
from moo.report.annex.html import render_annex
from moo.report.i18n.chinese import said
from moo.report.sections.texts import ZH
from moo.studies.results.audit_report import load_audits, save_audit
from moo.studies.results.result import StudyResult, load_result
from moo.studies.search.run_study import run_study
from moo.studies.spec.study import load_spec
from tests.fixtures.audits import audit_report
from tests.fixtures.pages import read_page

ROOMS = {room: Path(import_module(f"moo.{room}").__path__[0]) for room in
         ("data", "pareto", "privacy", "search", "objectives", "models", "studies")}  # fmt: skip
SOURCES = [p for room in ROOMS.values() for p in sorted(room.rglob("*.py"))]
NAMES = (  # of things that have no other name in Chinese
    "moo confirm audit out DIR trial torch optuna opacus lightning transformers scikit-learn cpu cu PEFT Opacus LoRA AUC TPR FPR GiB "
    "SHA MIT Unicode NFC MovieLens-100K GroupLens Harper and Konstan Papernot Steinke Rényi GDPR GB/T internal H P M p k b "
    "letters letters.csv reviews e5-small validity"
)
ALLOWED = re.compile(
    r"[GS]\d\d|L\d|[a-z]+(?:_[a-z]+)+|e-?\d*|[A-Z]{3}-\d|" + "|".join(map(re.escape, NAMES.split()))
)  # fmt: skip


def left(text: str) -> set[str]:
    """English words of a Chinese text that no allow-list knows; what stands in a path is one word."""
    words = re.findall(
        r"[A-Za-zé][A-Za-zé\d_./-]*[A-Za-zé\d]|[A-Za-z]",
        re.sub(r"(/[\w.-]+){2,}|audits/[\w.-]+|\b[0-9a-f]{16,}\b|(?<![A-Za-z\d])\d[\d.]*(?:\+\w+)?", " ", text),
    )
    return {w for w in words if not ALLOWED.fullmatch(w)}


def test_the_walk_finds_english() -> None:
    assert left("原因：it was trained，ε 为 8.00，G01，max_risk，`moo confirm`") == {"it", "was", "trained"}


NOT_FINITE = "7 gradients of units were not finite and contributed zero"


@pytest.fixture
def result(study: tuple[Path, Path]) -> StudyResult:
    return load_result(study[1])


def troubled(result: StudyResult) -> StudyResult:
    """The same study with what a real one may hold: alarms, notices, failures, a withdrawn claim, an attribute, real declarations."""
    broken, *others = result.trials
    chosen = result.recommend().trial
    assert chosen is not None
    nothing = Measurement(value=math.nan, note="not assessed: a guess that is never right has no min-entropy")
    known = {n: Measurement(value=0.1, stderr=0.02) for n in ("attribute_leakage", "advantage", "attribute_training")}
    asked = {**known, "attribute_p": Measurement(value=0.05), "attribute_min_entropy": nothing}
    alarm = Measurement(value=0.1, note="alarm: the attack is above what the claimed epsilon allows (0.312 > 0.101)")
    trials = [
        dataclasses.replace(
            t,
            extras={**t.extras, **asked, "risk_ceiling": alarm},
            claim="withdrawn because delta=0.001 is not below 1/300; the step 'near_duplicates' read other units' records without a "
            "ledger event",
            notices=(f"{12 + t.number} of 99 texts were longer than 24 tokens and were cut there", NOT_FINITE),
        )
        for t in others
    ]
    failed = dataclasses.replace(broken, state="failed", objectives={}, cause="non-finite parameters")
    label = "guarantee per customer: epsilon 20 for front, curves and models together, by a Renyi filter of order 7 fixed before; " \
        "trainings and noised answers are both in it; 3 of 9 trials were refused, since they would have passed the budget"  # fmt: skip
    spec = {**result.spec, "attribute": "gender", "attribute_auxiliary": ["age_band"]}
    cost = dataclasses.replace(result.cost, label=label, policy="publish_all(20)", guaranteed_epsilon=20.0)
    return dataclasses.replace(result, trials=(failed, *trials), spec=spec, cost=cost)


@pytest.mark.parametrize("change", ["as it ran", "troubled", "nothing feasible"])
def test_no_english_is_left_in_the_chinese_report_and_annex(result: StudyResult, tmp_path: Path, change: str) -> None:
    if change == "troubled":
        result = troubled(result)
        save_audit(audit_report(), tmp_path)
        save_audit(audit_report(kind="text", low=3.0), tmp_path)
        save_audit(dataclasses.replace(audit_report(trial=None, low=3.0), sampler_p_value=0.0), tmp_path)
    elif change == "nothing feasible":
        blocked = [dataclasses.replace(r, constraints=dict.fromkeys(r.constraints, 1.0)) for r in result.trials]
        result = dataclasses.replace(result, trials=tuple(blocked))
    text, _ = read_page(save_report(result, tmp_path, lang="zh"))
    assert left(text) == set()
    assert len(re.findall("[\u4e00-\u9fff]", text)) > 1000
    drawn = [draw(result, ZH) for draw in (figures.front_2d, figures.front_3d, figures.hypervolume, figures.domains)]
    assert left(" ".join(shown for figure in drawn for shown in labels(json.loads(str(figure.to_json()))))) == set()
    number = next(t.number for t in result.complete)
    page = tmp_path / "annex.html"
    page.write_text(
        render_annex(annex_of(result, trial=number, audits=load_audits(tmp_path), today=date(2026, 11, 25)), "zh"),
        encoding="utf-8",
    )
    assert left(read_page(page)[0]) == set()


@pytest.mark.slow
def test_no_english_is_left_of_a_study_of_real_reviews(tmp_path: Path) -> None:
    result = run_study(load_spec("reviews").quick(), n_trials=3, folder=tmp_path)
    assert left(read_page(save_report(result, tmp_path, lang="zh"))[0]) == set()
    page = tmp_path / "annex.html"
    page.write_text(render_annex(annex_of(result, trial=0), "zh"), encoding="utf-8")
    assert left(read_page(page)[0]) == set()


def labels(figure: Any) -> Iterator[str]:
    """Texts of a figure that a reader sees."""
    if isinstance(figure, dict):
        for key, value in figure.items():
            if key in ("text", "name", "hovertext", "hovertemplate", "y") and not isinstance(value, dict):
                for line in value if isinstance(value, list) else [value]:
                    yield (
                        re.sub(r"<[^>]+>|%\{[^}]*\}", " ", str(line))
                        if isinstance(line, str) and line != "paper"
                        else ""
                    )
            elif key != "template":
                yield from labels(value)
    elif isinstance(figure, list):
        for item in figure:
            yield from labels(item)


def written(node: ast.AST) -> Iterator[str]:
    """The texts that an expression can become, {} for each value."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.JoinedStr):
        yield "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
    elif isinstance(node, ast.Call) and node.args and getattr(node.func, "id", "").endswith("Error"):
        for text in written(node.args[0]):
            yield re.sub(r"\{\w+(![ras])?(:[^}]*)?\}", "{}", text)
        for keyword in node.keywords:
            yield from written(keyword.value)
    else:
        for child in ast.iter_child_nodes(node):
            yield from written(child)


def test_what_is_translated_is_what_the_code_says() -> None:
    file = tomllib.loads((resources.files("moo.report") / "templates" / "chinese.toml").read_text(encoding="utf-8"))
    said_in_code = [text for path in SOURCES for text in written(ast.parse(path.read_text(encoding="utf-8")))]
    presets = (ROOMS["studies"] / "spec" / "presets").glob("*.toml")
    said_in_code += [str(v) for p in presets for v in tomllib.loads(p.read_text(encoding="utf-8")).values()]
    for english, chinese in file["sentences"].items():
        assert any(english in text for text in said_in_code) or english in BUILT, f"nothing says {english!r} any more"
        fields = [name for _, name, _, _ in string.Formatter().parse(chinese) if name is not None]
        assert all(int(name) < english.count("{}") for name in fields), english


# put together of two texts, or of a text and a list
BUILT = (
    "attribute not assessed: {}",
    "not assessed: {}",
    "withdrawn because {}",
    "with the non-private reference: no guarantee for the users searched on",
)


@pytest.mark.parametrize(
    "keyword", ["detail", "why", "reason", "note", "cause", "licence", "declaration", "threat_model"]
)
def test_whatever_the_code_says_by_this_keyword_is_translated(keyword: str) -> None:
    calls = [c for p in SOURCES for c in ast.walk(ast.parse(p.read_text(encoding="utf-8"))) if isinstance(c, ast.Call)]
    makers = ("Transformation", "Recommendation", "Choice", "Measurement", "TrialError", "Records")
    values = [k.value for c in calls if getattr(c.func, "id", "") in makers for k in c.keywords if k.arg == keyword]
    for text in (t for value in values for t in written(value) if " " in t):
        shown = said(text.replace("{}", "7"), "zh")
        assert left(shown) == set(), text


def test_english_stays_as_it_is() -> None:
    assert (
        said("withdrawn because it was trained without noise", "en") == "withdrawn because it was trained without noise"
    )
    assert said("a title of mine, and more; even this", "zh-CN") == "a title of mine, and more; even this"
