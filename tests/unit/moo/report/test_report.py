"""The report and the dashboard: self-contained, in two languages, with what a reader must find in them."""

import dataclasses
import json
import re
import shutil
import subprocess
from pathlib import Path
from wsgiref.util import setup_testing_defaults

import optuna
import pytest

from moo.core.errors import InputError
from moo.core.measurement import Measurement
from moo.core.messages import render as rendered
from moo.dashboard import publish
from moo.report import figures, save_report
from moo.report.sections.texts import EN, ZH
from moo.studies.results.result import StudyResult, load_result
from tests.fixtures.letters import known
from tests.fixtures.pages import CHROMIUM, as_read, read_page


@pytest.fixture
def result(study: tuple[Path, Path]) -> StudyResult:
    return load_result(study[1])


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_a_study_without_a_feasible_trial_has_a_report_that_says_so(
    result: StudyResult, tmp_path: Path, lang: str
) -> None:
    blocked = [dataclasses.replace(r, constraints=dict.fromkeys(r.constraints, 1.0)) for r in result.trials]
    text, _ = read_page(save_report(dataclasses.replace(result, trials=tuple(blocked)), tmp_path, lang=lang))
    assert (EN if lang == "en" else ZH)["none"] in text


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_the_number_that_was_confirmed_stands_under_the_recommendation(
    result: StudyResult, tmp_path: Path, lang: str
) -> None:
    t = EN if lang == "en" else ZH
    assert as_read(t["unconfirmed"]) in read_page(save_report(result, tmp_path, lang=lang))[0]
    chosen = result.recommend().trial
    assert chosen is not None
    risk = Measurement(value=0.0421, stderr=0.0113)
    record = dataclasses.replace(
        chosen,
        objectives={**chosen.objectives, "membership_risk": risk},
        extras={**chosen.extras, "permutation_p": Measurement(value=0.026), "worst_decile": Measurement(value=0.123)},
    )
    text, _ = read_page(save_report(dataclasses.replace(result, confirmed=record), tmp_path, lang=lang))
    for told in ("0.042 ± 0.011", t["permutation"].format(p="0.026"), t["worst_tenth"].format(risk="0.123")):
        assert told in text
    assert as_read(t["unconfirmed"]) not in text
    broken = dataclasses.replace(record, constraints={**record.constraints, "max_risk": 0.2})
    text, _ = read_page(save_report(dataclasses.replace(result, confirmed=broken), tmp_path, lang=lang))
    assert "max_risk" in text
    assert t["not_confirmed"].split("{")[0].strip() in text


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_a_report_fetches_nothing_and_says_what_must_be_said(result: StudyResult, tmp_path: Path, lang: str) -> None:
    t = EN if lang == "en" else ZH
    text, fetched = read_page(save_report(result, tmp_path, lang=lang))
    assert fetched == []
    choice = result.recommend().trial
    assert choice is not None
    assert f"{choice.objectives['accuracy'].value:.3f}" in text
    assert f"{known(result.cost.composed_epsilon).private_part:.1f}"[:4] in text
    assert rendered(result.cost.label, lang)[1:] in text
    assert t["status_quo"] in text
    assert t["legal"] in text
    for row in choice.contributions:
        assert row["rule"] in text
        assert row[f"title_{lang}"].split()[0] in text
    assert (
        len(
            re.findall(
                r'class="plotly-graph-div"', (tmp_path / f"report{'' if lang == 'en' else '.zh'}.html").read_text()
            )
        )
        == 4
    )


def test_the_languages_say_the_same_things() -> None:
    assert EN.keys() == ZH.keys()
    for key in EN:
        assert set(re.findall(r"{(\w+)}", EN[key])) == set(re.findall(r"{(\w+)}", ZH[key])), key


def test_another_language_is_refused(result: StudyResult, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="lang in"):
        save_report(result, tmp_path, lang="fr")


def test_hostile_text_is_escaped(result: StudyResult, tmp_path: Path) -> None:
    import dataclasses

    evil = dataclasses.replace(result, spec={**result.spec, "title": "<script>alert(1)</script>"})
    assert "<script>alert(1)" not in save_report(evil, tmp_path).read_text()


def test_no_legal_promise_is_made(result: StudyResult, tmp_path: Path) -> None:
    text, _ = read_page(save_report(result, tmp_path))
    assert "certified" not in text.lower()
    assert "anonymous" not in text.lower()


def test_the_dashboard_shows_figures_and_notes_and_publishing_twice_changes_nothing(
    study: tuple[Path, Path],
    result: StudyResult,
    tmp_path: Path,
) -> None:
    from optuna_dashboard import wsgi

    shutil.copy(study[1] / "study.db", tmp_path / "study.db")
    storage = optuna.storages.get_storage(f"sqlite:///{tmp_path / 'study.db'}")
    publish(result, storage)
    publish(result, storage)
    environ: dict[str, object] = {"PATH_INFO": "/api/studies/1", "QUERY_STRING": "after=0"}
    setup_testing_defaults(environ)

    def start(*_: object) -> object:
        return None

    shown = json.loads(b"".join(wsgi(storage)(environ, start)))  # type: ignore[arg-type]
    assert {p["id"] for p in shown["plotly_graph_objects"]} == {"front-3d", "front-2d", "parallel"}
    assert "Recommended" in shown["note"]["body"]
    assert all("accuracy" in trial["note"]["body"] for trial in shown["trials"])


def test_no_tick_lies_off_its_axis_and_ranks_and_rates_are_told_as_they_are(result: StudyResult) -> None:
    axes = {d.label: d for d in figures.parallel(result, EN).data[0].dimensions}
    for name in ("epsilon", "adapted layers", "LoRA rank", "learning rate"):
        values, ticks = axes[name]["values"], axes[name].tickvals
        assert all(min(values) <= tick <= max(values) for tick in ticks), name
        assert len(axes[name].ticktext or ticks) == len(ticks)
    assert set(axes["LoRA rank"].ticktext) == {str(r.params.lora_rank) for r in result.complete}


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
@pytest.mark.parametrize("width", [1440, 500])
def test_a_browser_draws_every_figure_without_a_sideways_scroll(
    result: StudyResult, tmp_path: Path, width: int
) -> None:
    page = save_report(result, tmp_path)
    measure = "document.title = 'wide=' + (document.documentElement.scrollWidth - innerWidth)"
    probe = f"<script>addEventListener('load', () => setTimeout(() => {{ {measure} }}, 1500))</script>"
    page.write_text(page.read_text(encoding="utf-8").replace("</body>", probe + "</body>"), encoding="utf-8")
    command = [
        str(CHROMIUM),
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--enable-unsafe-swiftshader",
        f"--user-data-dir={tmp_path / 'profile'}",
        f"--window-size={width},2000",
        "--virtual-time-budget=8000",
        "--dump-dom",
        page.as_uri(),
    ]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=180, check=True).stdout
    assert dom.count('class="main-svg"') >= 4
    assert "gl-container" in dom
    wide = re.search(r"<title>wide=(-?\d+)</title>", dom)
    assert wide is not None
    assert int(wide.group(1)) <= 0
