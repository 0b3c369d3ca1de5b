"""The annex.

What must stand in it, in both languages; what is signed; the difference to the one before; and how
it prints.
"""

import dataclasses
import json
import re
import shutil
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from moo.cli.main import main
from moo.core.errors import InputError
from moo.report.annex.content import annex_of, difference, verify, weight_shares
from moo.report.annex.html import render_annex, save_annex
from moo.report.annex.words import article_words, fact_words, words
from moo.report.pdf import print_pdf
from moo.report.sections.likeness import likeness
from moo.studies.results.audit_report import save_audit
from moo.studies.results.result import StudyResult, load_result
from tests.fixtures.audits import audit_report as audit
from tests.fixtures.dossiers import write_dossier
from tests.fixtures.pages import CHROMIUM, read_page

TODAY = date(2026, 11, 25)
MET = {
    f"declared.{k}_gap": 0.0
    for k in ("source", "notice", "transfer", "processor", "assessment", "encryption", "access", "option")
} | {"declared.audit_age_days": 100.0}


@pytest.fixture
def result(study: tuple[Path, Path]) -> StudyResult:
    return load_result(study[1])


@pytest.fixture
def annex(result: StudyResult) -> dict[str, Any]:
    return annex_of(result, today=TODAY)


def test_every_rule_stands_under_a_heading_with_verdict_and_digest(annex: dict[str, Any]) -> None:
    rows = {row["rule"]: row for row in annex["rules"]}
    assert {f"G{i:02}" for i in range(1, 17)} <= set(rows)
    assert {"S01", "S02", "S03", "S04", "S05", "S06", "S08", "S09"} <= set(rows)
    assert not {"G17", "G18", "S07", "S10"} & set(rows)  # they do not apply, or not yet
    assert all(re.fullmatch("[0-9a-f]{64}", row["digest"]) and row["pia"] in (1, 2, 3) for row in rows.values())
    assert {rows[f"G{i:02}"]["verdict"] for i in range(8, 17)} == {"not assessed"}  # no dossier
    total = sum(row["contribution"] for row in annex["domains"])
    assert total == pytest.approx(annex["point"]["objectives"]["compliance_penalty"]["value"])


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_the_page_says_what_an_officer_asks_and_fetches_nothing(
    annex: dict[str, Any], tmp_path: Path, lang: str
) -> None:
    t = words(lang)
    page = tmp_path / "annex.html"
    page.write_text(render_annex(annex, lang), encoding="utf-8")
    text, fetched = read_page(page)
    assert fetched == []
    assert "<script" not in page.read_text(encoding="utf-8")
    for key in (
        "h1",
        "q1",
        "h2",
        "q2",
        "h3",
        "q3",
        "missing_title",
        "no_previous",
        "officer",
        "sign_note",
        "why_title",
        "legal",
    ):
        assert t[key] in text, key
    assert annex["digest"] in text
    for row in annex["rules"]:
        assert row["digest"] in text
        assert row[f"title_{lang}"] in text
    assert f"{annex['point']['objectives']['accuracy']['value']:.3f}" in text
    assert annex["search"]["anchor"] in text
    assert text.count(t["not assessed"]) >= 9
    assert "None" not in text
    assert "nan" not in text.lower()


def test_no_promise_is_made_in_either_language(annex: dict[str, Any]) -> None:
    for lang in ("en", "zh"):
        assert not re.search("anonym|certif|匿名|认证|合格", render_annex(annex, lang), re.IGNORECASE)


def test_the_languages_say_the_same_things() -> None:
    english, chinese = words("en"), words("zh")
    assert english.keys() == chinese.keys()
    for key in english:
        shared = {"label", "guaranteed", "policy"} if key.startswith("policy_") else set()
        assert (
            set(re.findall(r"{(\w+)}", english[key])) - shared == set(re.findall(r"{(\w+)}", chinese[key])) - shared
        ), key
    with pytest.raises(InputError, match="lang in"):
        words("fr")


def test_articles_are_cited_as_their_readers_do() -> None:
    assert article_words("PIPL 51(3); GB/T 35273 6.2", "zh") == "个人信息保护法第51条第3项；GB/T 35273 6.2"
    assert article_words("PIPL 24 para 2; ECL 18", "zh") == "个人信息保护法第24条第2款；电子商务法第18条"
    assert article_words("GDPR 5(1)(b); House policy", "zh") == "欧盟 GDPR 第5条(1)(b)；内部政策"
    assert article_words("PIPL 13", "en") == "PIPL 13"
    assert fact_words("own.key", "zh") == ("own.key", "number")


def test_the_digest_is_of_the_content_and_not_of_the_day(annex: dict[str, Any], result: StudyResult) -> None:
    later = annex_of(result, today=date(2027, 1, 1))
    assert later["digest"] == annex["digest"]
    assert verify(annex)
    assert verify(json.loads(json.dumps(annex)))
    assert not verify(annex | {"study": annex["study"] | {"purpose": "marketing"}})
    assert annex_of(result, declared={"facts": MET})["digest"] != annex["digest"]


def test_the_difference_names_what_changed_and_nothing_else(annex: dict[str, Any], result: StudyResult) -> None:
    assert annex["difference"] is None
    same = annex_of(result, previous=annex)["difference"]
    assert (same["rules"], same["objectives"], same["added"], same["removed"], same["intact"]) == ([], {}, [], [], True)
    declared = annex_of(result, declared={"facts": MET}, previous=annex)["difference"]
    assert {row["rule"] for row in declared["rules"]} == {f"G{i:02}" for i in range(8, 17)}
    assert all(row["verdict"] == ["not assessed", "pass"] for row in declared["rules"])
    other = next(t.number for t in result.complete if t.number != annex["point"]["number"])
    moved = annex_of(result, trial=other, previous=annex)
    assert moved["difference"]["point"] == [annex["point"]["number"], other]
    assert moved["difference"]["objectives"]
    text = render_annex(moved, "zh")
    if not moved["point"]["feasible"]:
        assert words("zh")["breaks"].split("：")[0] in text
    assert annex["digest"][:16] in text
    edited = annex_of(result, previous=annex | {"versions": {}})
    assert words("en")["edited"] in render_annex(edited, "en")
    with pytest.raises(InputError, match="previous annex"):
        difference({"format": "other"}, annex)


def test_weights_and_likeness_are_told(annex: dict[str, Any], result: StudyResult) -> None:
    shares = weight_shares(result)
    assert [row["kept"] for row in annex["front"]] == shares
    assert all(0 <= s <= 1 for s in shares)
    assert likeness(result) != likeness(result)  # four trials say nothing
    assert annex["checks"]["penalty_risk_correlation"] is None
    alike = annex | {"checks": annex["checks"] | {"too_alike": True, "penalty_risk_correlation": 0.97}}
    assert "0.97" in render_annex(alike, "en")


def test_hostile_texts_are_escaped(result: StudyResult) -> None:
    about = {
        **result.about,
        "declared": {"collection": [{"what": "<b>x", "how_often": "<i>", "why": "&"}], "facts": {}},
    }
    evil = dataclasses.replace(result, spec={**result.spec, "title": "<script>alert(1)</script>"}, about=about)
    page = render_annex(annex_of(evil), "en")
    assert "<script" not in page
    assert "&lt;b&gt;x" in page


def test_a_point_that_is_not_there_is_refused(result: StudyResult) -> None:
    with pytest.raises(InputError, match="trial among"):
        annex_of(result, trial=99)
    nothing = dataclasses.replace(result, trials=())
    with pytest.raises(InputError, match="must recommend a point"):
        annex_of(nothing)


def test_the_command_writes_json_pages_and_history(
    study: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    command = ["compliance", "annex", str(study[1]), "--to", str(tmp_path / "annex"), "--no-pdf"]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert re.search(r"Not assessed: .*G08, G09", printed)
    assert "identifiability: " in printed
    dossier = write_dossier(tmp_path)
    assert main([*command, "--dossier", str(dossier)]) == 0
    assert "G08" not in capsys.readouterr().out.partition("Not assessed: ")[2]
    names = sorted(p.name for p in (tmp_path / "annex").iterdir())
    assert names == ["annex.en.html", "annex.json", "annex.zh.html", "history"]
    kept = sorted((tmp_path / "annex" / "history").iterdir())
    assert len(kept) == 2
    newest = json.loads((tmp_path / "annex" / "annex.json").read_text())
    assert {row["rule"] for row in newest["difference"]["rules"]} == {f"G{i:02}" for i in range(8, 17)}
    assert newest["collection"][0]["what"] == "order note"
    assert newest["roles"][0]["name"] == "engineer"
    assert main([*command, "--trial", "99"]) == 2
    assert main([*command, "--previous", str(study[0])]) == 2
    assert main(["compliance", "annex", str(tmp_path)]) == 2


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_audits_of_the_point_and_every_alarm_stand_beside_the_claim(result: StudyResult, lang: str) -> None:
    t, chosen = words(lang), result.recommend().trial
    assert chosen is not None
    own, other = chosen.number, next(r.number for r in result.complete if r.number != chosen.number)
    older, newer = (audit(trial=own, entry=e, low=low) for e, low in ((3, 0.77), (8, 0.19)))
    broken, fine = audit(trial=other, entry=4, low=2.5), audit(trial=other, entry=6)
    annex = annex_of(result, audits=(older, broken, fine, newer), today=TODAY)
    told = [(a["trial"], a["epsilon_low"], a["claimed_epsilon"], bool(a["alarms"])) for a in annex["audits"]]
    assert told == [(other, 2.5, 1.0, True), (own, 0.19, 1.0, False)]
    assert verify(annex)
    page = render_annex(annex, lang)
    assert t["audit_low"].format(low="0.19", confidence="95 %") in page
    assert newer.file in page
    assert broken.file in page
    assert older.file not in page
    assert t["audit_fits"] in page
    bare = annex_of(result, previous=annex, audits=(fine, broken), today=TODAY)
    assert re.search(rf"<b>{t['trial']} {own}</b>.*{t['unknown']}.*{t['unknown']}", render_annex(bare, lang))
    assert bare["difference"]["sections"] == ["audits"]
    old = {k: v for k, v in annex.items() if k != "audits"}  # as annexes were before they held audits
    assert annex_of(result, previous=old, today=TODAY)["difference"]["sections"] == []
    assert f"<b>{t['trial']} {own}</b>" in render_annex(old, lang)


def test_the_command_finds_the_audits_that_the_folder_keeps(
    study: tuple[Path, Path],
    result: StudyResult,
    tmp_path: Path,
) -> None:
    chosen = result.recommend().trial
    assert chosen is not None
    folder = tmp_path / "run"
    folder.mkdir()
    for name in ("front.json", "result.json"):
        shutil.copy(study[1] / name, folder)
    save_audit(audit(trial=chosen.number), folder)
    assert main(["compliance", "annex", str(folder), "--no-pdf"]) == 0
    told = json.loads((folder / "annex" / "annex.json").read_text(encoding="utf-8"))["audits"]
    assert [(a["trial"], a["epsilon_low"]) for a in told] == [(chosen.number, 0.19)]
    assert "0.19" in (folder / "annex" / "annex.zh.html").read_text(encoding="utf-8")


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_a_browser_prints_the_annex(annex: dict[str, Any], tmp_path: Path) -> None:
    save_annex(annex, tmp_path, pdf=False)
    printed = print_pdf(tmp_path / "annex.zh.html", str(CHROMIUM))
    assert printed.read_bytes()[:5] == b"%PDF-"
    assert printed.stat().st_size > 20_000
