"""Legal gates: closed lists, facts that are declared, and what stops a study before anything is spent."""

import dataclasses
import json
import re
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from moo.cli.main import main
from moo.core.errors import InputError
from moo.data.legal.declared import declaration
from moo.data.legal.gates import Terms
from moo.data.tables.check import check_table
from moo.data.tables.columns import BASES, typed
from moo.masking.ladder import find_spans
from moo.objectives.compliance import evaluate
from moo.report import save_report
from moo.report.annex.content import annex_of
from moo.report.annex.html import save_annex
from moo.studies.accounting.account import ledger_of
from moo.studies.results.result import StudyResult, load_result
from moo.studies.search.estimate import plan_study
from moo.studies.search.run_study import run_study
from moo.studies.setup.legal_gates import NO_GATE, WANTED, notes_of, without_gates
from moo.studies.setup.trunk_features import _has_words
from moo.studies.spec.study import StudySpec
from tests.fixtures.letters import letters_spec, save_table

TERMS = Terms(purpose="model_training", as_of=date(2026, 11, 1))
ROOT = Path(__file__).resolve().parents[3]
DECLARED: dict[str, Any] = {
    "signer": "Li Na",
    "date": date(2026, 11, 1),
    "basis": "contract",
    "purpose": ["model_training"],
    "withdrawn": False,
    "storage_only": False,
    "collected": "2026-01-01",
    "retention": 900,
    "sensitive": False,
    "birth_year": 2000,
}


@pytest.mark.parametrize(
    ("basis", "lawful"),
    [
        ("consent", True),
        ("Consent", True),
        (" CONTRACT ", True),
        ("legal obligation", True),
        ("同意", True),
        ("Legitimate-Interests", True),
        ("vibes", False),
        ("none", False),
        ("false", False),
        ("0", False),
        ("no consent", False),
        ("consent?", False),
        ("n/a", False),
        ("", False),
    ],
)
def test_the_lawful_basis_is_of_a_closed_list_and_anything_else_is_not_met(
    tmp_path: Path, basis: str, lawful: bool
) -> None:
    path = save_table(tmp_path / "t.csv", n=4)
    pd.read_csv(path).assign(basis=basis).to_csv(path, index=False)
    found = check_table(path, TERMS)
    assert found.facts["data.no_lawful_basis"] == (0.0 if lawful else 1.0)
    assert found.unlisted == ({} if lawful or not basis else {basis: 4})
    assert found.problems == ()


def test_consent_in_capitals_still_needs_its_dates(tmp_path: Path) -> None:
    path = save_table(tmp_path / "t.csv", n=4)
    pd.read_csv(path).assign(basis="CONSENT", consented="").to_csv(path, index=False)
    assert check_table(path, TERMS).facts["data.consent_after_use"] == 1.0


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("withdrawn", ["true", "No", "1", "是"], ["maybe", "2", "-1", "yess", "t rue"]),
        (
            "collected",
            ["2026-01-02", "2026-01-02 10:00:00", "2026-01-02T10:00:00Z"],
            ["2026-01-02garbage", "20260102", "2026-W01-1", "1/2/2026", "2026-02-30"],
        ),
        ("retention_days", ["30", "30.0"], ["1e3", "inf", "1_000", "30.5", "-1", "thirty"]),
    ],
)
def test_truth_values_dates_and_counts_are_closed(name: str, good: list[str], bad: list[str]) -> None:
    assert typed(name, pd.Series(good))[1] == []
    for cell in bad:
        assert len(typed(name, pd.Series([cell]))[1]) == 1, cell


def test_check_names_the_basis_that_is_none_and_every_missing_column(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "t.csv"
    path.write_text("text,label,basis\nab,0,vibes\ncd,1,consent\n")
    assert main(["compliance", "check", "--data", str(path)]) == 4
    shown = capsys.readouterr().out
    assert "basis 'vibes' is no lawful basis (1 rows); choose consent, contract" in shown
    for column in ("consented", "purposes", "withdrawn", "storage_only", "collected", "retention_days", "birth_year"):
        assert f"  {column}: {WANTED[column]}" in shown
    assert main(["compliance", "check", "--data", str(path), "--format", "json"]) == 4
    assert json.loads(capsys.readouterr().out)["unlisted_basis"] == {"vibes": 1}


@pytest.mark.parametrize(
    ("text", "emptied"),
    [("13812345678", False), ("王芳", True), ("12 34", False), ("ok 13812345678", False), ("!?", False)],
)
def test_validity_counts_texts_that_masking_emptied_and_not_those_without_a_word(text: str, emptied: bool) -> None:
    spans = tuple(find_spans(text, 2, fields={"name": "王芳"}))
    assert (_has_words(text, ()) and not _has_words(text, spans)) is emptied


def bare(tmp_path: Path, tiny_folder: Path, **more: Any) -> StudySpec:
    """A study of a table without a legal column."""
    spec = letters_spec(tmp_path, tiny_folder)
    pd.read_csv(spec.data)[["text", "label", "user"]].to_csv(spec.data, index=False)
    return dataclasses.replace(spec, **more)


def test_an_unknown_gate_stops_plan_and_run_before_anything_is_reserved_and_lists_every_missing_column(
    tmp_path: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = bare(tmp_path, tiny_folder)
    with pytest.raises(InputError) as planned:
        plan_study(spec, n_trials=1)
    with pytest.raises(InputError) as ran:
        run_study(spec, n_trials=1, folder=tmp_path / "run")
    assert str(planned.value) == str(ran.value)
    for column, wanted in WANTED.items():
        if column != "tags":  # asked of profiles alone
            assert f"{column} ({wanted})" in str(ran.value)
    assert "\n" not in str(ran.value)
    assert {entry.kind for entry in ledger_of(spec.data).entries()} <= {"genesis"}
    assert not (tmp_path / "run" / "study.db").exists()
    toml = tmp_path / "letters.toml"
    toml.write_text(f'data = "{spec.data}"\nuser = "user"\nmodel = "{spec.model}"\n')
    assert main(["run", str(toml), "--plan"]) == 2
    assert "[declare]" in capsys.readouterr().err


def test_a_gate_that_masking_cannot_reach_within_the_space_stops_too(tmp_path: Path, tiny_folder: Path) -> None:
    spec = bare(tmp_path, tiny_folder, declare={k: v for k, v in DECLARED.items() if k != "sensitive"})
    low = dataclasses.replace(spec, space=dataclasses.replace(spec.space, masking_level=(0, 3)))
    with pytest.raises(InputError, match=r"G06 .* is unknown.*sensitive \("):
        plan_study(low, n_trials=1)


def test_a_declaration_answers_every_gate_is_signed_and_never_overrules_a_column(
    tmp_path: Path, tiny_folder: Path
) -> None:
    spec = bare(tmp_path, tiny_folder, declare=DECLARED)
    planned = plan_study(spec, n_trials=1)
    assert planned.notes == tuple(notes_of(spec.to_json()))
    assert planned.notes[0].startswith(
        "Declared by Li Na on 2026-11-01, not measured: basis contract, purposes model_training"
    )
    assert StudySpec.from_mapping(json.loads(json.dumps(spec.to_json()))) == spec
    full = letters_spec(tmp_path, tiny_folder)
    with pytest.raises(InputError, match="but the table has 'basis'"):
        plan_study(dataclasses.replace(full, declare=DECLARED), n_trials=1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"signer": ""}, "must have a signer"),
        ({"date": "soon"}, "date must be"),
        ({"basis": "vibes"}, f"basis must be one of {BASES[0]}"),
        ({"basis": "contrct"}, "Did you mean 'contract'"),
        ({"withdrawn": "maybe"}, "withdrawn must be"),
        ({"purposes": "service"}, "state purposes once"),
        ({"bassis": "contract"}, "Did you mean 'basis'"),
    ],
)
def test_an_unfit_declaration_is_refused_by_its_key(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        declaration({**DECLARED, **change})
    with pytest.raises(InputError, match="must have a date"):
        declaration({"basis": "contract", "signer": "Li Na"})


def test_withdrawn_declared_true_fails_its_gate(tmp_path: Path, tiny_folder: Path) -> None:
    spec = bare(tmp_path, tiny_folder, declare={**DECLARED, "withdrawn": True}, consent_filter=False)
    with pytest.raises(InputError, match=r"G03 .* fails for 100.0% of the records"):
        plan_study(spec, n_trials=1)


def test_without_gates_the_penalty_stays(tmp_path: Path, tiny_folder: Path) -> None:
    spec = bare(tmp_path, tiny_folder, gates=False)
    assert plan_study(spec, n_trials=1).notes == tuple(notes_of({"gates": False}))
    whole = evaluate({"privacy.epsilon_user": 8.0}, spec.packs)
    less = without_gates(whole, spec)
    assert less.penalty == whole.penalty
    assert less.gates == {}
    assert "gate" not in {row["kind"] for row in less.contributions}


def snippet(page: str) -> str:
    """The first TOML of the README's section on one's own data."""
    found = re.search(r"\n## (?:Your own data|自己的数据).*?```toml\n(.*?)```", (ROOT / page).read_text("utf-8"), re.S)
    assert found is not None
    return found[1]


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> tuple[StudyResult, Path]:
    """The README's study, word for word, on a small table and a small model."""
    home = tmp_path_factory.mktemp("own")
    frame = pd.read_csv(save_table(home / "letters.csv", n=960))
    topics = np.where(frame["label"], "praise", "complaint")
    table = pd.DataFrame({"message": frame["text"], "topic": topics, "customer_id": frame["user"]})
    table.to_csv(home / "tickets.csv", index=False)
    here = f'model = "{tiny_folder}"\nas_of = "2026-11-30"\nprobe_records = 5000\n'
    (home / "tickets.toml").write_text(f"{here}{snippet('README.md')}\n[training]\nmax_length = 24\n", encoding="utf-8")
    run_study(home / "tickets.toml", n_trials=2, folder=home / "run").save(home / "run")
    return load_result(home / "run"), home / "run"


def test_the_readme_example_of_own_data_ends_in_a_recommendation(own: tuple[StudyResult, Path]) -> None:
    result, _ = own
    choice = result.recommend()
    assert choice.trial is not None, choice.reason
    assert choice.trial.feasible
    assert result.spec["declare"]["basis"] == "contract"
    assert snippet("README.md") == snippet("README.zh-CN.md")


@pytest.mark.parametrize("gates", [True, False])
def test_what_is_declared_and_gates_that_were_not_judged_are_shown_everywhere(
    own: tuple[StudyResult, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], gates: bool
) -> None:
    result, _ = own
    result = dataclasses.replace(
        result,
        spec={**result.spec, "gates": gates},
        about={**result.about, "gates": "judged" if gates else NO_GATE},
    )
    result.save(tmp_path)
    assert json.loads((tmp_path / "result.json").read_text())["about"]["declare"]["signer"].startswith("Li Na")
    assert main(["front", "--out", str(tmp_path)]) == 0
    texts = {"terminal": capsys.readouterr().out}
    for lang in ("en", "zh"):
        texts[f"report {lang}"] = save_report(result, tmp_path, lang=lang).read_text(encoding="utf-8")
    annex = annex_of(result)
    texts |= {
        p.name: p.read_text("utf-8") for p in save_annex(annex, tmp_path / "annex", langs=["en", "zh"], pdf=False)
    }
    for where, text in texts.items():
        assert "Li Na" in text, where
        assert "basis contract" in text or '"basis": "contract"' in text, where
        told = "o gate judged" in text or "未判断任何门槛" in text
        assert told is not gates, where
