"""An attribute in a study of one's own table: from a column to table, terminal and report, and what is refused."""

import dataclasses
import json
import math
from datetime import date
from html import unescape
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from moo.cli.main import main
from moo.cli.risk_lines import print_confirmation
from moo.core.errors import InputError
from moo.core.measurement import Measurement
from moo.data.catalogue import load_records
from moo.objectives.attribute.risk import attribute_risk
from moo.report import save_report
from moo.report.annex.content import annex_of
from moo.report.annex.html import render_annex
from moo.report.annex.rows import number
from moo.report.annex.words import words
from moo.report.sections.texts import EN, ZH, sentence
from moo.studies.results.result import StudyResult, load_result
from moo.studies.search.run_study import run_study
from moo.studies.spec.study import StudySpec, load_spec
from moo.studies.trial.evidence import columns_of
from moo.studies.trial.evidence_files import load_attributes
from tests.fixtures.letters import letters_spec
from tests.fixtures.pages import read_page


@pytest.fixture(scope="module")
def spec(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> StudySpec:
    """Every user is of one of two groups and of one of three cities; some do not say."""
    made = letters_spec(tmp_path_factory.mktemp("attribute"), tiny_folder)
    frame = pd.read_csv(made.data)
    user = frame["user"].to_numpy()
    frame["group"] = np.where(user % 2, "b", "a")
    frame["city"] = np.select([user % 5 == 0, user % 3 == 0], ["", "x"], "y")
    frame.to_csv(made.data, index=False)
    return dataclasses.replace(made, attribute="group", attribute_auxiliary=("city",))


@pytest.fixture(scope="module")
def ran(spec: StudySpec, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ran")
    run_study(spec, n_trials=2, folder=folder).save(folder)
    return folder


@pytest.fixture(scope="module")
def result(ran: Path) -> StudyResult:
    return load_result(ran)


def test_columns_of_a_table_become_groups(spec: StudySpec) -> None:
    records = load_records(spec.data, user="user", groups=("group", "city", "birth_year"))
    frame = pd.read_csv(spec.data)
    assert records.groups["group"].tolist() == (frame["group"] == "b").astype(int).tolist()
    assert records.groups["city"].tolist() == [{"x": 0, "y": 1}.get(c, -1) for c in frame["city"]]
    assert set(records.groups["birth_year"]) == {0}
    assert records.digest != load_records(spec.data, user="user").digest
    for groups, message in (
        (("text",), "other columns than the text"),
        (("user",), "other columns than the text"),
        (("age",), "'age'"),
    ):
        with pytest.raises(InputError, match=message):
            load_records(spec.data, user="user", groups=groups)


def test_two_values_of_one_user_are_refused_before_anything_is_spent(spec: StudySpec, tmp_path: Path) -> None:
    frame = pd.read_csv(spec.data)
    frame["label"] = np.arange(len(frame)) % 2
    frame.to_csv(tmp_path / "two.csv", index=False)
    torn = dataclasses.replace(spec, data=str(tmp_path / "two.csv"), attribute="label")
    with pytest.raises(InputError, match="Attribute 'label' must have one value per user"):
        run_study(torn, n_trials=2, folder=tmp_path / "run")
    assert not (tmp_path / "run" / "study.db").exists()


def test_the_trials_tell_it_with_its_error_in_every_output(
    result: StudyResult, spec: StudySpec, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert result.reference is not None
    blind, *others = sorted(result.complete, key=lambda record: -record.params.masking_level)
    assert blind.params.masking_level == 5  # leaves these texts no letter: there is nothing that an attacker could ask
    assert blind.extras["attribute_leakage"].note == "not assessed: every record has the same outputs"
    assert math.isnan(blind.extras["attribute_leakage"].value)
    assert blind.objectives["membership_risk"].value == blind.extras["advantage"].value
    for record in (result.reference, *others):
        leakage, advantage = record.extras["attribute_leakage"], record.extras["advantage"]
        assert leakage.stderr > 0
        assert record.objectives["membership_risk"].value == max(leakage.value, advantage.value)
    row = result.table.iloc[0]
    assert row["attribute_leakage"] == result.reference.extras["attribute_leakage"].value
    assert row["attribute_leakage_stderr"] == result.reference.extras["attribute_leakage"].stderr
    result.save(tmp_path)
    kept = json.loads((tmp_path / "front.json").read_text(encoding="utf-8"))
    assert kept[0]["extras"]["attribute_training"]["stderr"] > 0
    assert main(["front", "--out", str(tmp_path)]) == 0
    assert f"What the answers reveal of {spec.attribute}, beyond imputing it from city" in capsys.readouterr().out


def test_every_attribute_of_a_trial_side_by_side(
    result: StudyResult, ran: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert result.reference is not None
    kept = load_attributes(ran, -1)
    assert list(kept) == ["city", "group"]
    known = dataclasses.replace(
        kept["group"], auxiliary=columns_of({n: e.attribute for n, e in kept.items()}, ("city",))
    )
    assert attribute_risk(known).leakage == result.reference.extras["attribute_leakage"]
    assert main(["attributes", "--out", str(ran), "--permutations", "9"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    leakage = result.reference.extras["attribute_leakage"]
    assert f"{leakage.value:.3f} ± {leakage.stderr:.3f}" in told
    assert main(["attributes", "--out", str(ran), "--trial", "7"]) == 2
    assert "no such trial" in capsys.readouterr().err


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_the_report_tells_it_or_that_it_was_not_assessed(
    result: StudyResult, tmp_path: Path, lang: str, capsys: pytest.CaptureFixture[str]
) -> None:
    t = EN if lang == "en" else ZH
    assert result.reference is not None
    leakage = result.reference.extras["attribute_leakage"]
    text, _ = read_page(save_report(result, tmp_path, lang=lang))
    assert t["attribute"].format(attribute="group") in text
    assert f"{leakage.value:+.3f} ± {leakage.stderr:.3f}" in text
    missing = Measurement(value=math.nan, note="not assessed: attribute group is constant or unknown over all users")
    blind = dataclasses.replace(
        result.reference,
        extras={
            **result.reference.extras,
            **dict.fromkeys(("attribute_leakage", "attribute_p", "attribute_training"), missing),
        },
    )
    text, _ = read_page(save_report(dataclasses.replace(result, reference=blind), tmp_path, lang=lang))
    assert sentence(missing.note, t) in text
    chosen = result.recommend().trial
    assert chosen is not None
    larger = {"attribute_leakage": Measurement(value=0.3, stderr=0.1), "advantage": Measurement(value=0.1, stderr=0.1)}
    leaking = tuple(dataclasses.replace(r, extras={**r.extras, **larger}) for r in result.trials)
    smaller = tuple(
        dataclasses.replace(r, extras={**r.extras, "attribute_leakage": Measurement(value=-1.0)}) for r in result.trials
    )
    for trials, named in ((leaking, True), (smaller, False)):
        text, _ = read_page(save_report(dataclasses.replace(result, trials=trials), tmp_path, lang=lang))
        assert (t["risk_is_attribute"].format(attribute="group") in text) == named
    confirmed = dataclasses.replace(result, confirmed=leaking[chosen.number])
    assert t["risk_is_attribute"].format(attribute="group") in read_page(save_report(confirmed, tmp_path, lang=lang))[0]
    print_confirmation(Console(), confirmed)
    assert "Its risk is the leakage of group" in capsys.readouterr().out
    plain = dataclasses.replace(result, trials=(), reference=None)
    assert t["attribute"].format(attribute="group") not in read_page(save_report(plain, tmp_path, lang=lang))[0]


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_the_annex_tells_membership_and_the_attribute_apart(result: StudyResult, lang: str) -> None:
    leakage, advantage = Measurement(value=0.312, stderr=0.05), Measurement(value=0.045, stderr=0.02)
    larger = {"attribute_leakage": leakage, "advantage": advantage, "attribute_p": Measurement(value=0.05)}
    told = [
        dataclasses.replace(
            r,
            objectives={**r.objectives, "membership_risk": leakage},
            extras={**r.extras, **larger},
            constraints=dict.fromkeys(r.constraints, 0.0),
        )
        for r in result.complete
    ]
    page = unescape(
        render_annex(annex_of(dataclasses.replace(result, trials=tuple(told)), today=date(2026, 11, 25)), lang)
    )
    t = words(lang)
    limit = number(result.limits["max_risk"])
    assert t["risk_line"].format(value="0.045", low="0.006", high="0.084", upper="0.078", limit=limit) in page
    line = t["attribute_line"].format(
        attribute="group", known="city", value="0.312", low="0.214", high="0.410", p="0.05"
    )
    assert line in page
    blind = Measurement(value=math.nan, note="not assessed: attribute group is constant")
    dark = [dataclasses.replace(r, extras={**r.extras, "attribute_leakage": blind}) for r in told]
    page = render_annex(annex_of(dataclasses.replace(result, trials=tuple(dark)), today=date(2026, 11, 25)), lang)
    assert "attribute group is constant" in page


def test_the_shipped_study_asks_for_gender_with_the_age_band_known() -> None:
    shipped = load_spec("attribute")
    assert (shipped.attribute, shipped.attribute_auxiliary, shipped.attack_level) == ("gender", ("age_band",), "user")
