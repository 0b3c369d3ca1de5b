"""The Chinese report and annex are Chinese throughout: no English word is left but names, ids and units."""

import ast
import dataclasses
import json
import re
import tomllib
from collections.abc import Iterator
from datetime import date
from importlib import import_module, resources
from pathlib import Path
from typing import Any

import pytest

from moo.core.measurement import Measurement, not_assessed
from moo.core.messages import Message, catalogue, entries, fields, joined, render
from moo.objectives.compliance import load_rules
from moo.privacy.claims import withdrawn
from moo.report import figures, save_report
from moo.report.annex.content import annex_of
from moo.report.annex.html import render_annex
from moo.report.sections.texts import ZH
from moo.studies.results.audit_report import load_audits, save_audit
from moo.studies.results.result import StudyResult, load_result
from moo.studies.search.run_study import run_study
from moo.studies.spec.study import load_spec
from tests.fixtures.audits import audit_report
from tests.fixtures.pages import read_page

ROOMS = {
    room: Path(import_module(f"moo.{room}").__path__[0])
    for room in ("data", "pareto", "privacy", "search", "objectives", "models", "studies", "dashboard")
}
SOURCES = [p for room in ROOMS.values() for p in sorted(room.rglob("*.py"))]
MORE = [p for room in ("core", "report") for p in sorted(Path(import_module(f"moo.{room}").__path__[0]).rglob("*.py"))]
NAMES = (  # of things that have no other name in Chinese
    "moo confirm audit out DIR trial torch optuna opacus lightning transformers scikit-learn cpu cu PEFT Opacus LoRA "
    "AUC TPR FPR GiB "
    "SHA MIT Unicode NFC MovieLens-100K GroupLens Harper and Konstan Papernot Steinke Rényi GDPR GB/T internal H P M "
    "p k b "
    "letters letters.csv reviews e5-small validity"
)
ALLOWED = re.compile(r"[GS]\d\d|L\d|[a-z]+(?:_[a-z]+)+|e-?\d*|[A-Z]{3}-\d|" + "|".join(map(re.escape, NAMES.split())))


def left(text: str) -> set[str]:
    """English words of a Chinese text that no allow-list knows; what stands in a path is one word."""
    words = re.findall(
        r"[A-Za-zé][A-Za-zé\d_./-]*[A-Za-zé\d]|[A-Za-z]",
        re.sub(r"(/[\w.-]+){2,}|audits/[\w.-]+|\b[0-9a-f]{16,}\b|(?<![A-Za-z\d])\d[\d.]*(?:\+\w+)?", " ", text),
    )
    return {w for w in words if not ALLOWED.fullmatch(w)}


def test_the_walk_finds_english() -> None:
    assert left("原因：it was trained，ε 为 8.00，G01，max_risk，`moo confirm`") == {"it", "was", "trained"}


NOT_FINITE = Message("{n} gradients of units were not finite and contributed zero", n=7)
CUT = "{n} of {total} texts were longer than {tokens} tokens and were cut there"
ABOVE = "alarm: the attack is above what the claimed epsilon allows ({measured:.3f} > {ceiling:.3f})"
BUDGET = (
    "guarantee per {unit}: epsilon {epsilon:g} for front, curves and models together, by a Renyi filter of order "
    "{order:g} fixed "
    "before; trainings and noised answers are both in it"
)


@pytest.fixture
def result(study: tuple[Path, Path]) -> StudyResult:
    return load_result(study[1])


def troubled(result: StudyResult) -> StudyResult:
    """The same study with what a real one may hold.

    Alarms, notices, failures, a withdrawn claim, an attribute, real declarations.
    """
    broken, *others = result.trials
    chosen = result.recommend().trial
    assert chosen is not None
    nothing = not_assessed("a guess that is never right has no min-entropy")
    known = {n: Measurement(value=0.1, stderr=0.02) for n in ("attribute_leakage", "advantage", "attribute_training")}
    asked = {**known, "attribute_p": Measurement(value=0.05), "attribute_min_entropy": nothing}
    alarm = Measurement(value=0.1, note=Message(ABOVE, measured=0.312, ceiling=0.101))
    broken_claim = withdrawn(
        joined(
            "; ",
            [
                Message("delta={delta:g} is not below 1/{n_units}", delta=0.001, n_units=300),
                Message("the step '{step}' read other units' records without a ledger event", step="near_duplicates"),
            ],
        )
    )
    trials = [
        dataclasses.replace(
            t,
            extras={**t.extras, **asked, "risk_ceiling": alarm},
            claim=broken_claim,
            notices=(Message(CUT, n=12 + t.number, total=99, tokens=24), NOT_FINITE),
        )
        for t in others
    ]
    failed = dataclasses.replace(broken, state="failed", objectives={}, cause="non-finite parameters")
    label = joined(
        "; ",
        [
            Message(BUDGET, unit="customer", epsilon=20.0, order=7.0),
            Message("{n} of {total} trials were refused, since they would have passed the budget", n=3, total=9),
        ],
    )
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


FILES = ("notes", "reasons", "report")
MAKERS = {
    "Transformation": ("detail", "why"),
    "Recommendation": ("reason", "name"),
    "Choice": ("reason",),
    "Measurement": ("note",),
    "TrialError": ("cause",),
    "Outcome": ("cause",),
    "Finding": ("name", "status", "text"),
    "Records": ("licence", "declaration"),
}
SPOKEN = ("tells_nothing", "sampler", "_why_not")  # functions that return a reason


def constants(node: ast.AST, named: dict[str, str]) -> Iterator[str]:
    """Texts that an expression can become; a name becomes the constant that it is bound to."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.Name) and node.id in named:
        yield named[node.id]
    elif isinstance(node, ast.IfExp):
        yield from constants(node.body, named)
        yield from constants(node.orelse, named)


def bound(tree: ast.AST) -> dict[str, str]:
    """Name -> constant text that it is bound to."""
    return {
        target.id: node.value.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        for target in node.targets
        if isinstance(target, ast.Name)
    }


def spoken() -> set[str]:
    """Every template and constant text that the code can form and a person reads later."""
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in SOURCES]
    everywhere = {name: text for tree in trees for name, text in bound(tree).items() if name.strip("_").isupper()}
    return {text for tree in trees for text in spoken_in(tree, everywhere) if text}


def spoken_in(tree: ast.AST, everywhere: dict[str, str]) -> Iterator[str]:
    for function in [tree, *(n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef))]:
        named = everywhere | bound(function)
        for node in ast.walk(function):
            if isinstance(node, ast.Return) and node.value and getattr(function, "name", "") in SPOKEN:
                yield from constants(node.value, named)
            if not isinstance(node, ast.Call):
                continue
            name = getattr(node.func, "id", "")
            if name in ("Message", "not_assessed") and node.args:
                yield from constants(node.args[0], named)
            for keyword in node.keywords:
                if keyword.arg in MAKERS.get(name, ()):
                    yield from constants(keyword.value, named)


def test_the_walk_finds_templates_constants_and_names() -> None:
    code = """
LIMIT = "no cap"
def sampler():
    template = "{n} shadows"
    x = Message(template, n=1), Message("a" if x else "b"), not_assessed("why"), Measurement(value=1, note="told")
    return "shuffled"
def other():
    return Message(LIMIT), "not a reason"
"""
    tree = ast.parse(code)
    assert set(spoken_in(tree, bound(tree))) == {"no cap", "{n} shadows", "a", "b", "why", "told", "shuffled"}


def test_every_text_that_code_can_form_has_its_chinese() -> None:
    known = catalogue("zh")
    same = {"poisson", ""}  # of no text that is shown
    missing = {text for text in spoken() - same if text not in known and text.replace("_", " ") not in known}
    assert missing == set()
    assert len(spoken()) > 120


def entries_of(name: str) -> dict[str, str]:
    file = resources.files("moo.core") / "languages" / "zh" / f"{name}.toml"
    return entries(file.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", FILES)
def test_every_entry_is_said_by_the_code_and_has_the_same_values(name: str) -> None:
    presets = (ROOMS["studies"] / "spec" / "presets").glob("*.toml")
    texts = {str(v) for p in presets for v in tomllib.loads(p.read_text(encoding="utf-8")).values()}
    for path in (*SOURCES, *MORE):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts |= {node.value, node.value.replace("_", " ").removeprefix("data.")}
    texts |= {rule.domain.replace("_", " ") for rule in load_rules().rules}
    for english, chinese in entries_of(name).items():
        assert english in texts, f"nothing says {english!r} any more"
        assert fields(english) == fields(chinese), english
        assert left(re.sub(r"L?\{[^}]*\}|`[^`]*`|MovieLens-100K", " ", chinese)) == set(), english


def test_english_stays_as_it_is_and_so_does_what_no_catalogue_knows() -> None:
    plain = "withdrawn because it was trained without noise"
    assert withdrawn("it was trained without noise") == plain
    assert render(withdrawn("it was trained without noise"), "en") == plain
    assert render("a title of mine, and more; even this", "zh") == "a title of mine, and more; even this"


def test_a_result_is_rendered_in_chinese_after_it_is_read_again(result: StudyResult, tmp_path: Path) -> None:
    loaded = load_result(troubled(result).save(tmp_path))
    assert json.dumps(loaded.rows()) == json.dumps(troubled(result).rows())
    assert left(read_page(save_report(loaded, tmp_path, lang="zh"))[0]) == set()
    rows = json.loads((tmp_path / "front.json").read_text(encoding="utf-8"))
    assert rows[-1]["claim"].startswith(
        "withdrawn because delta=0.001 is not below 1/300; the step 'near_duplicates' read"
    )


def test_a_result_of_an_earlier_version_is_shown_in_english(result: StudyResult, tmp_path: Path) -> None:
    troubled(result).save(tmp_path)
    path = tmp_path / "result.json"
    path.write_text(json.dumps(plain_texts(json.loads(path.read_text(encoding="utf-8")))), encoding="utf-8")
    text, _ = read_page(save_report(load_result(tmp_path), tmp_path, lang="zh"))
    assert "withdrawn because delta=0.001 is not below 1/300" in text
    assert "Guarantee per customer: epsilon 20" in text


def plain_texts(content: Any) -> Any:
    """The content of result.json as it was before there were messages."""
    if isinstance(content, dict):
        if content.keys() == {"text", "template", "values"}:
            return content["text"]
        return {key: plain_texts(value) for key, value in content.items() if key != "messages"}
    return [plain_texts(value) for value in content] if isinstance(content, list) else content
