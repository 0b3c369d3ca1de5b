"""A table before training.

Every gate by its rows, bad cells by file and line, and the same answer as a study's filter.
"""

import itertools
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moo.cli.main import main
from moo.core.errors import InputError
from moo.data.catalogue import load_records
from moo.data.legal.gates import RULES, Terms, consent_filter
from moo.data.tables.check import check_records, check_table
from moo.data.tables.columns import DATES, LAW_COLUMNS, typed
from moo.data.tables.load import load_table, load_withdrawals
from moo.studies.search.run_study import run_study
from moo.tables.clean import clean, normalise
from tests.fixtures.dossiers import write_dossier
from tests.fixtures.letters import letters_spec, save_table
from tests.fixtures.tables import good_table

TERMS = Terms(purpose="model_training", as_of=date(2026, 11, 1))
WRITERS: dict[str, Callable[[pd.DataFrame, Path], None]] = {
    ".csv": lambda f, p: f.to_csv(p, index=False),
    ".parquet": lambda f, p: f.to_parquet(p),
    ".jsonl": lambda f, p: f.to_json(p, orient="records", lines=True, force_ascii=False),
}


def spoilt(**cells: Any) -> pd.DataFrame:
    """Row 2 (from 0) with other cells."""
    frame = good_table().astype(object)
    columns = {name: [value if i == 2 else old for i, old in enumerate(frame[name])] for name, value in cells.items()}
    return frame.assign(**columns).astype(object)


@pytest.fixture(params=sorted(WRITERS))
def save(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[pd.DataFrame], Path]:
    def write(frame: pd.DataFrame) -> Path:
        path = tmp_path / f"t{request.param}"
        WRITERS[request.param](frame.astype(str) if request.param == ".parquet" else frame, path)
        return path

    return write


LINE = {".csv": ":4", ".jsonl": ":3", ".parquet": ", row 3"}
FAULTS: dict[str, dict[str, Any]] = {
    "no_lawful_basis": {"basis": ""},
    "purpose_mismatch": {"purposes": "service"},
    "withdrawn": {"withdrawn": True},
    "storage_only": {"storage_only": True},
    "over_retention": {"collected": "2024-01-01"},
    "sensitive_without_consent": {"sensitive": True},
    "minors_without_guardian": {"birth_year": 2014},
}


@pytest.mark.parametrize("rule", sorted(FAULTS))
def test_each_gate_names_the_row_that_breaks_it_in_every_format(
    save: Callable[[pd.DataFrame], Path], rule: str
) -> None:
    path = save(spoilt(**FAULTS[rule]))
    found = check_table(path, TERMS, user="user")
    assert (found.rows, found.units, found.dropped, found.problems, found.missing) == (6, 3, 1, (), ())
    assert found.facts == {f"data.{k}": 1 / 6 if k == rule else 0.0 for k in RULES if k != "illegal_tags"} | {
        "data.illegal_tags": None
    }
    assert {k: (b.rows, b.places) for k, b in found.breaches.items()} == {rule: (1, (f"{path}{LINE[path.suffix]}",))}


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ({"consented": "2024-07-01"}, "consented must not be after used_from"),
        ({"collected": "2026-11-02"}, "collected must not be after 2026-11-01, got 2026-11-02, which is in the future"),
        ({"consented": "2027-01-01", "used_from": "2027-02-01"}, "consented must not be after 2026-11-01"),
        ({"birth_year": 2030}, "birth_year must not be after 2026-11-01, got 2030, which is in the future"),
        ({"collected": "yesterday"}, "collected must be a date as 2026-11-01, got 'yesterday'"),
        ({"withdrawn": "perhaps"}, "withdrawn must be true or false, got 'perhaps'"),
        ({"retention_days": "two years"}, "retention_days must be a whole number, got 'two years'"),
    ],
)
def test_what_cannot_be_true_is_told_with_file_and_line(
    save: Callable[[pd.DataFrame], Path], cells: dict[str, Any], message: str
) -> None:
    path = save(spoilt(**cells))
    found = check_table(path, TERMS)
    assert any(p.startswith(f"{path}{LINE[path.suffix]}: {message}") for p in found.problems), found.problems
    if "used_from" not in message:  # a study refuses it too; consent after use its filter drops
        with pytest.raises(InputError, match=message.replace("(", r"\(")):
            load_table(path, as_of=TERMS.as_of)


EMPTY = {"basis": "no_lawful_basis", "consented": "consent_after_use", "used_from": "consent_after_use"}
EMPTY |= {"purposes": "purpose_mismatch", "withdrawn": "withdrawn", "storage_only": "storage_only"}
EMPTY |= {"collected": "over_retention", "retention_days": "over_retention", "birth_year": "minors_without_guardian"}


@pytest.mark.parametrize("column", sorted(EMPTY))
def test_an_empty_cell_counts_against_its_record(save: Callable[[pd.DataFrame], Path], column: str) -> None:
    found = check_table(save(spoilt(**{column: ""})), TERMS)
    assert set(found.breaches) == {EMPTY[column]}
    assert found.breaches[EMPTY[column]].rows == 1
    assert found.problems == ()


def test_empty_consents_do_not_cover_what_is_sensitive(save: Callable[[pd.DataFrame], Path]) -> None:
    found = check_table(save(spoilt(sensitive=True, sensitive_consent="")), TERMS)
    assert set(found.breaches) == {"sensitive_without_consent"}
    kept = check_table(found.path, TERMS, sensitive_rows="keep")
    assert (found.dropped, kept.dropped) == (1, 0)


def test_lines_are_those_of_the_file_where_texts_hold_line_breaks(tmp_path: Path) -> None:
    frame = spoilt(withdrawn=True)
    frame.loc[0, "text"] = 'first\nsecond, "quoted"\nthird'
    frame.loc[2, "text"] = "a\nb"
    path = tmp_path / "t.csv"
    frame.to_csv(path, index=False)
    (place,) = check_table(path, TERMS).breaches["withdrawn"].places
    assert place == f"{path}:6"
    assert path.read_text().splitlines()[5].startswith('"a')


def test_a_missing_column_is_named_and_its_gate_not_assessed(save: Callable[[pd.DataFrame], Path]) -> None:
    found = check_table(save(good_table().drop(columns=["withdrawn", "birth_year"])), TERMS)
    assert found.missing == ("birth_year", "withdrawn")
    assert found.facts["data.withdrawn"] is None
    assert found.facts["data.minors_without_guardian"] is None


def test_listed_users_are_withdrawn_in_check_and_study(tmp_path: Path) -> None:
    table, listed = tmp_path / "t.csv", tmp_path / "left.txt"
    good_table().to_csv(table, index=False)
    listed.write_text("# who left\nu1,2026-10-01\n\nsomebody else\n")
    assert load_withdrawals(listed) == {"u1": date(2026, 10, 1), "somebody else": None}
    found = check_table(table, TERMS, user="user", withdrawals=load_withdrawals(listed), allow_unmatched=True)
    assert (found.breaches["withdrawn"].rows, found.problems) == (2, ())
    records = load_table(table, user="user", withdrawals=str(listed), allow_unmatched=True)
    assert consent_filter(records, TERMS)[0].unit_ids == ("u0", "u2")
    for text, message in (
        ("u1,soon", "left.txt:1: a line must be USER or USER,2026"),
        ("\nu1,2027-01-01", "left.txt:2: the day must not be after"),
    ):
        listed.write_text(text)
        with pytest.raises(InputError, match=message):
            load_withdrawals(listed, as_of=TERMS.as_of)
    with pytest.raises(InputError, match="must name the column of the user"):
        check_table(table, TERMS, withdrawals=["u1"])


def numbered(ids: list[Any]) -> pd.DataFrame:
    n = 2 * len(ids)
    return good_table(n).assign(user=[ids[i // 2] for i in range(n)])


@pytest.mark.parametrize("ids", [["000007", "7", "07", "12"], [7, 8, 9, 12], ["u7", " 7", "u9", "u12"]], ids=str)
@pytest.mark.parametrize("form", sorted(WRITERS))
def test_check_and_study_find_the_same_listed_users_whatever_their_ids_look_like(
    form: str, ids: list[Any], tmp_path: Path
) -> None:
    table, listed = tmp_path / f"t{form}", tmp_path / "left.txt"
    WRITERS[form](numbered(ids), table)
    written = [str(i).strip() for i in ids]
    for name in written:
        listed.write_text(f"{name}\n0{name}0\nnobody\n")
        withdrawn = load_withdrawals(listed)
        found = check_table(table, TERMS, user="user", withdrawals=withdrawn, allow_unmatched=True)
        records = load_table(table, user="user", withdrawals=str(listed), allow_unmatched=True)
        assert sorted(records.unit_ids) == sorted(written)  # "000007", "07" and "7" are three users
        kept, report = consent_filter(records, TERMS)
        assert report.dropped["withdrawn"] == found.dropped == found.breaches["withdrawn"].rows == 2
        assert set(kept.unit_ids) == set(written) - {name}
        (step,) = (t for t in records.transformations if t.name == "withdrawals")
        assert step.detail == "2 of 3 listed users were not found in the data"
        assert step.scope == "user"
        assert found.not_found == 2
        assert found.withdrawn_units == 1


@pytest.mark.parametrize(("form", "empty"), [*itertools.product(sorted(WRITERS), [None, "", " "]), (".csv", "NA")])
def test_a_row_without_a_user_is_refused_with_its_line_and_the_way_out(
    form: str, empty: str | None, tmp_path: Path
) -> None:
    table = tmp_path / f"t{form}"
    users: list[Any] = ["u0", "u0", empty, "u1", "u1", empty]
    WRITERS[form](good_table().assign(user=users), table)
    place = f"{table}{LINE[form]}: "
    with pytest.raises(InputError) as caught:
        load_table(table, user="user")
    said = str(caught.value)
    assert said.startswith(f"{place}every row must have a user in column 'user' (")
    assert "2 such rows" in said
    assert "leave user empty" in said
    assert "\n" not in said
    found = check_table(table, TERMS, user="user")
    assert found.problems == (said,)
    assert found.units == 2
    assert load_table(table).n_units == 6  # each row its own unit


@pytest.mark.parametrize("form", sorted(WRITERS))
def test_types_of_other_columns_do_not_hang_on_the_user(form: str, tmp_path: Path) -> None:
    table = tmp_path / f"t{form}"
    WRITERS[form](numbered(["007", "7", "x"]).assign(age=[30, 31, 32, 33, 34, 35]), table)
    with_users, bare = load_table(table, user="user", groups=["age"]), load_table(table, groups=["age"])
    assert with_users.classes == bare.classes == ("0", "1")
    assert with_users.texts == bare.texts
    for name in bare.columns:
        assert with_users.columns[name].tolist() == bare.columns[name].tolist()
    assert with_users.groups["age"].tolist() == bare.groups["age"].tolist()


def test_rows_of_a_parquet_whose_index_repeats_keep_their_users(tmp_path: Path) -> None:
    half = numbered(["007", "7"])
    pd.concat([half, half.assign(text=half.text + " more")]).to_parquet(tmp_path / "t.parquet")
    records = load_table(tmp_path / "t.parquet", user="user")
    assert len(records) == 8
    assert [records.unit_ids[u] for u in records.units] == ["007", "007", "7", "7"] * 2


def test_consent_holds_for_the_purposes_of_its_notice_and_tags_for_the_legal_set(
    save: Callable[[pd.DataFrame], Path],
) -> None:
    path = save(
        good_table().assign(notice_version=["1", "2", "2", "3", "2", "2"], tags=["a", "a b", "", "c", "a", "a"])
    )
    notices = {"1": frozenset({"service"}), "2": frozenset({"service", "model_training"})}
    terms = Terms(purpose="model_training", as_of=TERMS.as_of, notices=notices, legal_tags=frozenset("ab"))
    found = check_table(path, terms)
    assert found.breaches["purpose_mismatch"].rows == 2  # version 1 did not name the purpose, 3 is unknown
    assert found.breaches["illegal_tags"].rows == 1
    assert check_table(path, TERMS).breaches == {}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", "", "must be a readable csv table"),
        ("t.csv", "text,label\n", "got none in"),
        ("t.csv", "basis,withdrawn\nconsent,false,3\n", r"t\.csv:2: a row must hold 2 fields"),
        ("t.jsonl", '{"basis": "consent"}\n{"basis": \n', r"t\.jsonl:2: a line must be one JSON object"),
        ("t.jsonl", '{"basis": "consent"}\n[1]\n', r"t\.jsonl:2: a line must be one JSON object"),
        ("t.parquet", "no parquet", "must be a readable parquet table"),
        ("t.xlsx", "", r"ending in \.csv"),
    ],
)
def test_what_is_no_table_is_refused_in_one_line(tmp_path: Path, name: str, content: str, message: str) -> None:
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(InputError, match=message) as caught:
        check_table(path, TERMS)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="no such file"):
        check_table(tmp_path / f"absent{path.suffix if path.suffix != '.xlsx' else '.csv'}", TERMS)


cells = st.fixed_dictionaries(
    {
        "basis": st.sampled_from(["consent", "contract", ""]),
        "consented": st.sampled_from(["2024-01-01", "2025-01-01", ""]),
        "used_from": st.sampled_from(["2024-06-01", ""]),
        "purposes": st.sampled_from(["model_training", "service", "", "model_training service"]),
        "withdrawn": st.sampled_from(["true", "False", "", "是", "否"]),
        "storage_only": st.sampled_from(["0", "1"]),
        "collected": st.sampled_from(["2024-01-01", "2026-10-01", ""]),
        "retention_days": st.sampled_from(["30", "730", ""]),
        "sensitive": st.sampled_from(["yes", "no", ""]),
        "sensitive_consent": st.sampled_from(["yes", "no", ""]),
        "birth_year": st.sampled_from(["1990", "2012", "2011", ""]),
        "guardian_consent": st.sampled_from(["yes", "no", ""]),
    }
)


def by_hand(row: dict[str, str]) -> bool:
    """Whether a record may be trained on, as a person would read the row."""
    yes = ("true", "1", "yes", "是")
    consent = row["basis"] == "consent"
    age = (TERMS.as_of - date.fromisoformat(row["collected"])).days if row["collected"] else None
    return (
        row["basis"] != ""
        and (not consent or ("" < row["consented"] <= row["used_from"]))
        and "model_training" in row["purposes"].split()
        and row["withdrawn"].lower() not in (*yes, "")
        and row["storage_only"] not in (*yes, "")
        and age is not None
        and row["retention_days"] != ""
        and age <= int(row["retention_days"])
        and (row["sensitive"] == "no" or row["sensitive_consent"] == "yes")
        and ((row["birth_year"] != "" and 2026 - int(row["birth_year"]) > 14) or row["guardian_consent"] == "yes")
    )


@given(st.lists(cells, min_size=2, max_size=12))
@settings(deadline=None, max_examples=60)
def test_columns_filter_and_check_agree_with_a_reader_of_single_rows(rows: list[dict[str, str]]) -> None:
    import tempfile

    frame = pd.DataFrame(rows).assign(text=[f"t{i}" for i in range(len(rows))], label=[i % 2 for i in range(len(rows))])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t.csv"
        frame.to_csv(path, index=False)
        expected = [f"t{i}" for i, row in enumerate(rows) if by_hand(row)]
        assert check_table(path, TERMS).dropped == len(rows) - len(expected)
        records = load_table(path)
        assert check_records(records, TERMS).dropped == len(rows) - len(expected)
        if len(set(expected)) > 1 and len({int(t[1:]) % 2 for t in expected}) == 2:
            assert list(consent_filter(records, TERMS)[0].texts) == expected


@pytest.mark.parametrize("name", LAW_COLUMNS)
def test_typed_columns_read_each_value_like_a_single_one(name: str) -> None:
    values = {"retention_days": ["30", "", "730"], "birth_year": ["1990", "", "2001.0"]}.get(name, ["true", "", "no"])
    values = ["2026-01-01", "", "2025-02-03T10:00:00"] if name in DATES else values
    rng = np.random.default_rng(0)
    order = rng.integers(3, size=50)
    column, problems = typed(name, pd.Series([values[i] for i in order]))
    assert problems == []
    single = [typed(name, pd.Series([v]))[0][0] for v in values]
    assert [str(v) for v in column] == [str(single[i]) for i in order]


def test_a_table_is_cleaned_and_normalised_and_every_step_says_what_it_did(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {
            "text": ["a\u200bb  c", "e\u0301te\u0301", "same", " same", None, "\u200b", "other"],
            "label": [0, 1, 0, 0, 1, 1, 1],
            "user": list("uvwwxyz"),
        }
    )
    path = tmp_path / "t.csv"
    frame.to_csv(path, index=False)
    records = load_table(path, user="user")
    assert records.texts == ("ab c", "été", "same", "other")
    steps = {t.name: (t.before, t.after, t.changed, t.scope) for t in records.transformations}
    assert steps == {
        "complete": (7, 6, 0, "record"),
        "cleaned": (6, 5, 3, "record"),
        "normalised": (5, 5, 1, "record"),
        "duplicates_within_unit": (5, 4, 0, "user"),
    }
    assert all(t.why for t in records.transformations)


@given(st.text())
def test_cleaning_is_idempotent_and_leaves_no_unseen_character(text: str) -> None:
    once = normalise(clean(text))
    assert clean(once) == once
    assert normalise(once) == once
    assert not set(once) & set("\x00\u200b\ufeff\n\t")


def test_a_study_and_a_check_of_one_table_find_the_same_shares(tmp_path: Path) -> None:
    path = save_table(tmp_path / "letters.csv", 40)
    frame = pd.read_csv(path)
    frame.loc[3, "withdrawn"] = True
    frame.to_csv(path, index=False)
    records = load_records(str(path), user="user", as_of=TERMS.as_of)
    one, other = check_table(path, TERMS, user="user"), check_records(records, TERMS)
    assert one.facts == other.facts
    assert one.breaches["withdrawn"].places == (f"{path}:5",)
    assert other.breaches["withdrawn"].places == ("letters.csv, record 4",)


def test_the_command_tells_gates_rows_and_statuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "t.csv"
    command = ["compliance", "check", "--user", "user", "--as-of", "2026-11-01", "--data", str(path)]
    good_table().to_csv(path, index=False)
    assert main(command) == 0
    assert "G08 to G16" in capsys.readouterr().out
    spoilt(withdrawn=True).to_csv(path, index=False)
    assert main([*command, "--format", "json"]) == 4
    told = json.loads(capsys.readouterr().out)
    assert told["breaches"] == {"withdrawn": {"rows": 1, "first": [f"{path}:4"]}}
    assert {row["rule"]: row["verdict"] for row in told["gates"]}["G03"] == "fail"
    (tmp_path / "left.txt").write_text("u1\nU1\n")
    assert main([*command, "--withdrawals", str(tmp_path / "left.txt")]) == 2
    assert "1 of 2 listed are not (first: 'U1')" in capsys.readouterr().err
    assert main([*command, "--withdrawals", str(tmp_path / "left.txt"), "--allow-unmatched"]) == 4
    assert "Listed users who were not found in the data: 1." in capsys.readouterr().out
    spoilt(consented="2024-07-01").to_csv(path, index=False)
    assert main(command) == 2
    assert f"{path}:4: consented must not be after used_from" in capsys.readouterr().err
    for more in (["--as-of", "soon"], ["--packs", "nowhere"], ["--dossier", "absent.toml"], ["--user", "nobody"]):
        assert main([*command, *more]) == 2
        assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_a_studys_own_file_is_checked_with_its_dossier(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good_table().to_csv(tmp_path / "t.csv", index=False)
    dossier = write_dossier(tmp_path)
    toml = tmp_path / "study.toml"
    toml.write_text(f'data = "{tmp_path / "t.csv"}"\nuser = "user"\ndossier = "{dossier}"\n')
    assert main(["compliance", "check", "--data", str(toml)]) == 0
    assert "G16" in capsys.readouterr().out
    dossier.write_text(dossier.read_text().replace("non_personal = true", "non_personal = false"))
    assert main(["compliance", "check", "--data", str(toml)]) == 4


def test_a_study_refuses_a_dossier_that_breaks_a_gate_before_anything_is_spent(
    tmp_path: Path, tiny_folder: Path
) -> None:
    dossier = write_dossier(tmp_path)
    dossier.write_text(dossier.read_text().replace("[0.1, 64]", "[0.1, 8]"))
    spec = replace(letters_spec(tmp_path, tiny_folder), dossier=str(dossier))
    with pytest.raises(InputError, match=r"does not meet G12, Impact assessment .* declared.assessment_gap is 0.25"):
        run_study(spec, n_trials=1, folder=tmp_path / "run")
    assert not (tmp_path / "run" / "study.db").exists()


def test_a_table_without_any_column_of_the_law_loses_no_row(tmp_path: Path) -> None:
    path = tmp_path / "bare.csv"
    path.write_text("text,label,user\na,1,u\nb,2,v\nc,1,w\n", encoding="utf-8")
    found = check_table(path, TERMS, user="user")
    kept, _ = consent_filter(load_records(str(path), user="user"), TERMS)
    assert (found.rows, found.dropped, len(kept)) == (3, 0, 3)
