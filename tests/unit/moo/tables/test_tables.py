"""The one reader of tables.

Sixty awkward files say the same to training, check, watch and masking; ids, labels, encodings,
lines.
"""

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moo.cli.main import main
from moo.core.errors import InputError
from moo.data.catalogue import load_records
from moo.data.legal.gates import Terms
from moo.data.tables.check import check_table
from moo.masking.tables.columns import ColumnPlan
from moo.masking.tables.files import mask_file
from moo.studies.spec.study import StudySpec, load_spec
from moo.studies.workflows.monitor import Watched, watch
from moo.tables import Reading, open_table
from moo.tables.cells import texts_of
from moo.tables.clean import clean, is_seen
from moo.tables.delimited import DelimitedTable
from moo.tables.ids import user_id

TERMS = Terms(purpose="model_training", as_of=date(2026, 11, 1))
HEAD = "text,label,user\n"
ROWS = "good,yes,u1\nbad,no,u2\n"


@dataclass(frozen=True, kw_only=True)
class Case:
    """A file and what every reader must say of it.

    Attributes:
        name: File name.
        content: Bytes, or a table of Parquet.
        rows: Rows that are read; -1 where the file is refused.
        error: What the refusal says.
        study: Whether the refusal is of text, label and user, which masking does not know.
        users: Ids of the users, where they are looked at.
        classes: Names of the classes, where they are looked at.
        reading: How the file is declared.
    """

    name: str
    content: str | bytes | pa.Table
    rows: int = -1
    error: str = ""
    study: bool = False
    users: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    reading: Mapping[str, Any] = field(default_factory=dict)


def csv_(content: str | bytes, name: str = "t.csv", **more: Any) -> Case:
    return Case(name=name, content=content, **more)


def json_(*lines: str | dict[str, Any], **more: Any) -> Case:
    text = "\n".join(line if isinstance(line, str) else json.dumps(line, ensure_ascii=False) for line in lines)
    return Case(name="t.jsonl", content=text + "\n", **more)


def parquet_(**columns: Any) -> pa.Table:
    n = len(next(iter(columns.values())))
    base = {"text": [f"t{i}" for i in range(n)], "label": ["yes", "no"] * (n // 2), "user": [f"u{i}" for i in range(n)]}
    return pa.table(base | columns)


def record(text: str = "good", label: Any = "yes", user: Any = "u1", **more: Any) -> dict[str, Any]:
    return {"text": text, "label": label, "user": user, **more}


OTHER = record("bad", "no", "u2")
GB = (HEAD + "好评,是,甲\n差评,否,乙\n").encode("gb18030")
CASES = {
    # plain files
    "plain": csv_(HEAD + ROWS, rows=2, users=("u1", "u2"), classes=("no", "yes")),
    "no line end at the end": csv_((HEAD + ROWS).rstrip("\n"), rows=2, users=("u1", "u2")),
    "CR LF": csv_((HEAD + ROWS).replace("\n", "\r\n"), rows=2, users=("u1", "u2"), classes=("no", "yes")),
    "blank lines": csv_("\n" + HEAD + "\n\n" + ROWS + "\r\n\n", rows=2),
    "quoted line ends": csv_(HEAD + '"a\nb\n\nc",yes,u1\n"d, ""e""",no,u2\n', rows=2, users=("u1", "u2")),
    "quoted header": csv_('"text","label","user"\n' + ROWS, rows=2),
    "header with a line end": csv_('text,label,user,"more\nof it"\na,yes,u1,\nb,no,u2,x\n', rows=2),
    "upper-case ending": csv_(HEAD + ROWS, name="T.CSV", rows=2, users=("u1", "u2")),
    "semicolons": csv_((HEAD + ROWS).replace(",", ";"), rows=2, users=("u1", "u2"), classes=("no", "yes")),
    "tabs": csv_((HEAD + ROWS).replace(",", "\t"), rows=2, users=("u1", "u2")),
    "tabs in .tsv": csv_((HEAD + ROWS).replace(",", "\t"), name="t.tsv", rows=2),
    "semicolons, commas in texts": csv_(
        "text;label;user\na, b;yes;u1\nc;no;u2\n", rows=2, users=("u1", "u2"), classes=("no", "yes")
    ),
    "declared separator": csv_(
        'text;label;user;"a,b"\nx;yes;u1;\ny;no;u2;\n', rows=2, reading={"separator": ";"}, users=("u1", "u2")
    ),
    "two separators": csv_("text,label;x,user\na,b,c\n", error=":1: one separator must be seen"),
    "a wrong separator": csv_(HEAD + ROWS, reading={"separator": "tab"}, error="column 'text' must be in", study=True),
    "a quote within a field": csv_(HEAD + '5" pipe,yes,u1\nb,no,u2\n', rows=2, users=("u1", "u2")),
    "a quote that is no field's end": csv_(HEAD + '"a"b,yes,u1\nb,no,u2\n', error=":2: a row must be CSV"),
    "an open quote": csv_(HEAD + 'a,yes,u1\n"b,no,u2\n', error=":3: a row must be CSV"),
    # fields
    "a field too many": csv_(
        HEAD + ROWS + "c,yes,u3,x\n", error=":4: a row must hold 3 fields, as the header does, but holds 4"
    ),
    "a field too few": csv_(
        HEAD + "a,yes,u1\nb,no\n", error=":3: a row must hold 3 fields, as the header does, but holds 2"
    ),
    "a comma at each end": csv_(HEAD + ROWS.replace("\n", ",\n"), error=":2: a row must hold 3 fields"),
    "a comma at each end and the header's": csv_((HEAD + ROWS).replace("\n", ",\n"), rows=2, users=("u1", "u2")),
    "a blank after a quoted line end": csv_(HEAD + '"a\nb",yes,u1\nc\n', error=":4: a row must hold 3 fields"),
    "a column twice": csv_(
        "text,label,label\na,b,c\n", error=":1: columns must have different names, got 'label' 2 times"
    ),
    "two columns without a name": csv_("text,label,user,,\na,b,c,,\n", error="got '' 2 times"),
    "an index column": csv_(",text,label,user\n0,a,yes,u1\n1,b,no,u2\n", rows=2, users=("u1", "u2")),
    "empty": csv_("", error="but is empty"),
    "a header alone": csv_(HEAD, error="at least one record", study=True),
    "no such column": csv_("body,label,user\na,b,c\n", error="column 'text' must be in", study=True),
    # bytes
    "bare CR": csv_((HEAD + ROWS).replace("\n", "\r"), error=":1: lines must end in LF or CR LF"),
    "one bare CR": csv_(HEAD + "a,yes,u1\nb,n\ro,u2\n", error=":3: lines must end in LF or CR LF"),
    "NUL": csv_(HEAD + "a,yes,u1\nb\x00,no,u2\n", error=":3: byte 2 must be text"),
    "a mark": csv_(b"\xef\xbb\xbf" + (HEAD + ROWS).encode(), rows=2, users=("u1", "u2"), classes=("no", "yes")),
    "UTF-16": csv_((HEAD + ROWS).encode("utf-16"), error=":1: the file must be UTF-8, but begins like UTF-16"),
    "GB18030": csv_(
        GB, error=":2: byte 1 must be UTF-8, but is 0xba; the line reads as GB18030; convert it or declare"
    ),
    "GB18030, declared": csv_(GB, rows=2, reading={"encoding": "gb18030"}, users=("甲", "乙"), classes=("否", "是")),
    "UTF-8 declared as GB18030": csv_(
        HEAD.encode() + "好,yes,u1\n".encode() + b"\xff\xff,no,u2\n",
        reading={"encoding": "GB18030"},
        error="as declared",
    ),
    "Latin-1": csv_(HEAD.encode() + "café,yes,u1\n".encode("latin-1"), error=":2: byte 4 must be UTF-8"),
    "mixed encodings": csv_((HEAD + "好,yes,u1\n").encode() + "差,no,u2\n".encode("gb18030"), error="mixes encodings"),
    # JSON Lines
    "objects": json_(record(), OTHER, rows=2, users=("u1", "u2"), classes=("no", "yes")),
    "objects with a mark": json_("\ufeff" + json.dumps(record()), OTHER, rows=2, users=("u1", "u2")),
    "objects and blank lines": json_("", record(), "", OTHER, "", rows=2),
    "a label in later lines": json_({"text": "a", "user": "u3"}, record(), OTHER, rows=3, users=("u1", "u2")),
    "a column in later lines": json_(record(), OTHER | {"city": "x"}, rows=2, users=("u1", "u2")),
    "no object": json_(record(), "[1]", error=":2: a line must be one JSON object, got list"),
    "a broken object": json_(record(), '{"text": ', error=":2: a line must be one JSON object, but at column"),
    "an array of objects": json_("[" + json.dumps(record()) + "]", error=":1: a line must be one JSON object"),
    "a key twice": json_(
        record(), '{"text": "a", "label": "b", "label": "c", "user": "u"}', error=":2: a line must be one JSON object"
    ),
    "half of a character": json_(
        '{"text": "\\ud800", "label": "a", "user": "u"}', error=":1: a line must hold whole characters"
    ),
    "bare CR between objects": json_(json.dumps(record()) + "\r" + json.dumps(OTHER), error=":1: lines must end in"),
    "a list of labels": json_(
        record(),
        record("bad", ["no", "so"]),
        error=":2: column 'label' must hold one value a row, got a list",
        study=True,
    ),
    "a mapping as user": json_(
        record(),
        record("bad", "no", {"id": 1}),
        error=":2: column 'user' must hold one value a row, got a mapping",
        study=True,
    ),
    "a list as text": json_(
        record() | {"text": ["a"]}, OTHER, error=":1: column 'text' must hold one value a row, got a list", study=True
    ),
    "numbers as users": json_(
        record(user=123), record("bad", "no", 123.0), record("c", "no", "123"), rows=3, users=("123",)
    ),
    "an exponent as user": json_(
        record(),
        '{"text": "b", "label": "no", "user": 1e5}',
        error=":2: a user in column 'user' must be an id",
        study=True,
    ),
    "a large float as user": json_(
        record(), '{"text": "b", "label": "no", "user": 9007199254740993.0}', error=":2: a user in column", study=True
    ),
    "a large number as user": json_(
        record(), record("b", "no", 9007199254740993), rows=2, users=("u1", "9007199254740993")
    ),
    "labels of every kind": json_(
        record("a", "1"), record("b", 1), record("c", True), record("d", None), rows=4, classes=("1", "true")
    ),
    # values
    "numbers as users in CSV": csv_(
        HEAD + "a,yes,123\nb,no,123.0\nc,no, 123\nd,no,0123\n", rows=4, users=("123", "0123")
    ),
    "an exponent as user in CSV": csv_(
        HEAD + "a,yes,u1\nb,no,1.2E+11\n", error=":3: a user in column 'user' must be an id", study=True
    ),
    "a large float as user in CSV": csv_(HEAD + "a,yes,u1\nb,no,9007199254740993.0\n", error=":3: a user", study=True),
    "no user": csv_(HEAD + "a,yes,u1\nb,no,\n", error=":3: every row must have a user in column 'user'", study=True),
    "null as user": csv_(
        HEAD + "a,yes,null\nb,no,u2\n", error=":2: every row must have a user in column 'user'", study=True
    ),
    "labels that look empty": csv_(
        HEAD + "a,NA,u1\nb,None,u2\nc,null,u3\nd,001,u4\n", rows=4, classes=("001", "NA", "None", "null")
    ),
    "declared empty labels": csv_(
        HEAD + "a,NA,u1\nb,None,u2\nc, null ,u3\nd,001,u4\n",
        rows=4,
        classes=("001", "None"),
        reading={"na_values": ("NA", "null")},
    ),
    "blanks around labels": csv_(
        HEAD + "a, yes,u1\nb,yes ,u2\nc,no,u3\nd,\u3000no,u4\n", rows=4, classes=("no", "yes")
    ),
    "one class": csv_(HEAD + "a,yes,u1\nb,yes,u2\n", error="at least two classes", study=True),
    "numbers to predict": csv_(
        HEAD + "".join(f"t{i},{i / 7},u{i}\n" for i in range(40)), error="look like a number to predict", study=True
    ),
    "prices, nearly one a row": csv_(
        HEAD + "".join(f"t{i},{i}.99,u{i}\n" for i in range(9)), error="look like a number to predict", study=True
    ),
    "texts as labels": csv_(
        HEAD + "".join(f"t{i},about {i},u{i}\n" for i in range(9)), error="nearly one a row", study=True
    ),
    "no text that is seen": csv_(
        HEAD + "\u200b,yes,u1\n  ,no,u2\n", error="at least one record with text and label", study=True
    ),
    # Parquet
    "columns": Case(name="t.parquet", content=parquet_(x=[1, 2]), rows=2, users=("u0", "u1"), classes=("no", "yes")),
    "typed columns": Case(
        name="T.PARQUET",
        content=parquet_(user=[7, 8], label=[True, False]),
        rows=2,
        users=("7", "8"),
        classes=("false", "true"),
    ),
    "floats as users": Case(name="t.parquet", content=parquet_(user=[7.0, 8.0]), rows=2, users=("7", "8")),
    "large floats as users": Case(
        name="t.parquet", content=parquet_(user=[7.0, 1e16]), error=", row 2: a user in column", study=True
    ),
    "dictionaries": Case(
        name="t.parquet",
        content=parquet_(label=pa.array(["yes", "no"]).dictionary_encode()),
        rows=2,
        classes=("no", "yes"),
    ),
    "days as labels": Case(
        name="t.parquet",
        content=parquet_(label=[date(2026, 1, 1), date(2026, 1, 2)]),
        rows=2,
        classes=("2026-01-01", "2026-01-02"),
    ),
    "no Parquet": Case(name="t.parquet", content="PAR1 no", error="must be a readable parquet table"),
}


def put(folder: Path, case: Case) -> Path:
    path = folder / case.name
    if isinstance(case.content, pa.Table):
        pq.write_table(case.content, path)
    else:
        path.write_bytes(case.content.encode() if isinstance(case.content, str) else case.content)
    return path


def told(action: Any) -> Any:
    """What a reader says: its answer, or the sentence with which it refuses."""
    try:
        return action()
    except InputError as error:
        return str(error)


def test_there_are_sixty_files() -> None:
    assert len(CASES) >= 60


@pytest.mark.parametrize("name", CASES)
def test_four_commands_read_the_same_rows_users_and_columns_or_refuse_in_the_same_words(
    name: str, tmp_path: Path
) -> None:
    case = CASES[name]
    path, reading = put(tmp_path, case), Reading(**case.reading)
    state, target = tmp_path / "state.json", tmp_path / f"masked{path.suffix}"
    run = told(lambda: load_records(str(path), user="user", as_of=TERMS.as_of, reading=reading))
    check = told(lambda: check_table(path, TERMS, text="text", label="label", user="user", reading=reading))
    look = told(
        lambda: watch(
            Watched(data=path, text="text", label="label", user="user", terms=TERMS, state=str(state), reading=reading)
        )
    )
    mask = told(lambda: mask_file(path, target, ColumnPlan(level=0), reading=reading))
    if case.error:
        refusal = check if isinstance(check, str) else check.problems[0]
        assert case.error in run
        assert "\n" not in run
        assert run == refusal == look
        assert case.study == (not isinstance(mask, str))
        assert case.study or mask == run
        return
    assert not isinstance(run, str), run
    assert not isinstance(mask, str), mask
    assert not isinstance(look, str), look
    assert (check.problems, check.rows, mask.rows) == ((), case.rows, case.rows)
    assert run.transformations[0].before == json.loads(state.read_text())["records"] == case.rows
    assert not case.users or set(run.unit_ids) == set(case.users)
    assert not case.classes or run.classes == case.classes
    before, after = open_table(path, reading), open_table(target)
    assert texts(before) == texts(after)
    assert before.columns == after.columns


def texts(table: Any) -> list[str]:
    return [cell for batch in table.batches(["text"]) for cell in batch.cells["text"].to_pylist()]


ODD = st.text(alphabet='ab,;"\n\r \x00é好', max_size=30)


@given(
    st.lists(
        st.lists(st.sampled_from(["a", "", '"', "b\n", "c,d", " ", "é好", '"e"', "f\r\n"]), min_size=2, max_size=2),
        max_size=6,
    ),
    ODD,
)
@settings(deadline=None, max_examples=80)
def test_blocks_read_what_the_strict_reader_reads_line_for_line(rows: list[list[str]], tail: str) -> None:
    import csv
    import tempfile

    whole = io.StringIO(newline="")
    csv.writer(whole, lineterminator="\n").writerows([["text", "label"], *rows])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t.csv"
        for content in (whole.getvalue(), whole.getvalue() + tail):
            path.write_bytes(content.encode())
            table = open_table(path)
            assert isinstance(table, DelimitedTable)
            strict = told(lambda t=table: by_row(t))
            assert told(lambda t=table: blocks(t)) == strict


def by_row(table: DelimitedTable) -> list[tuple[int, list[str]]]:
    with table.path.open("rb") as raw:
        raw.seek(table._offset)
        return list(table._body(raw, table._lines))


def blocks(table: DelimitedTable) -> list[tuple[int, list[str]]]:
    out: list[tuple[int, list[str]]] = []
    for batch in table.batches(["label", "text", "absent"]):
        assert batch.cells["absent"].null_count == len(batch.lines)
        texts, labels = batch.cells["text"].to_pylist(), batch.cells["label"].to_pylist()
        out += [(int(n), [t, y]) for n, t, y in zip(batch.lines, texts, labels, strict=True)]
    return out


def test_a_block_that_ends_within_a_row_is_read_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "t.csv"
    path.write_text("text,label\n" + "".join(f'"row {i}\nof {"x" * (i % 40)}, more",{i % 3}\n' for i in range(300)))
    table = open_table(path)
    assert isinstance(table, DelimitedTable)
    whole = blocks(table)
    monkeypatch.setattr("moo.tables.delimited.BLOCK", 256)
    assert blocks(table) == whole
    assert (len(whole), whole[-1][0]) == (300, 600)
    with path.open("a") as file:
        file.write("one,two,three\n")
    assert f"{path}:602: a row must hold 2 fields" in told(lambda: blocks(table))


@given(st.text())
def test_a_text_is_seen_where_cleaning_leaves_something(text: str) -> None:
    assert is_seen(texts_of([text])).to_pylist() == [clean(text) != ""]


@pytest.mark.parametrize(
    ("cell", "user"),
    [
        ("123", "123"),
        ("123.0", "123"),
        ("123.", "123"),
        (" 123.00\u200b", "123"),
        ("-5.0", "-5"),
        ("007", "007"),
        ("1.5", "1.5"),
        ("NaN", ""),
        ("<NA>", ""),
        (None, ""),
        ("9007199254740993", "9007199254740993"),
        ("12e45678", "12e45678"),
        ("e\u0301", "é"),
        ("1e5", None),
        ("1.2E+11", None),
        (".5e3", None),
        ("9007199254740992.0", None),
        ("9" * 5000 + ".0", None),
    ],
)
def test_one_person_has_one_id_and_lost_digits_are_refused(cell: str | None, user: str | None) -> None:
    if user is not None:
        assert user_id(cell) == user
        return
    with pytest.raises(ValueError, match="has lost digits"):
        user_id(cell)


def test_one_row_more_changes_no_other_record(tmp_path: Path) -> None:
    rows = [("a", "1", "7"), ("b", "02", "8"), ("c", "1", "9")]
    frames = {"one": rows, "more": [*rows, ("d", "x", "y"), ("e", "", "1.5")]}
    for suffix in (".csv", ".jsonl", ".parquet"):
        found = {}
        for name, data in frames.items():
            frame = pd.DataFrame(data, columns=["text", "label", "user"])
            path = tmp_path / f"{name}{suffix}"
            if suffix == ".csv":
                frame.to_csv(path, index=False)
            elif suffix == ".jsonl":
                frame.to_json(path, orient="records", lines=True)
            else:
                frame.to_parquet(path)
            r = load_records(str(path), user="user")
            found[name] = [(t, r.classes[y], r.unit_ids[u]) for t, y, u in zip(r.texts, r.labels, r.units, strict=True)]
        assert found["more"][:3] == found["one"] == rows


def test_rows_without_a_label_and_blanks_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "t.csv"
    path.write_text(HEAD + "a, yes,u1\nb,,u2\nc,no,u3\nd, ,u4\n")
    step = load_records(str(path)).transformations[0]
    assert (step.name, step.before, step.after) == ("complete", 4, 2)
    assert step.detail == "rows with a text and a label; 2 had no label, blanks around 1 labels taken away"
    found = check_table(path, TERMS, text="text", label="label")
    assert (found.unlabelled, found.stripped) == (2, 1)
    assert main(["compliance", "check", "--data", str(path)]) == 4
    shown = capsys.readouterr().out
    assert "Rows without a label, which a study drops: 2." in shown
    assert "Labels with blanks around them, which a study takes away: 1." in shown


def test_a_withdrawal_that_matches_nobody_is_an_error_everywhere_unless_allowed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, listed = tmp_path / "t.csv", tmp_path / "left.txt"
    path.write_text(HEAD + "a,yes,1\nb,no,2\nc,no,3\n")
    listed.write_text("1.0\nnobody\n")
    refusal = told(lambda: load_records(str(path), user="user", withdrawals=str(listed)))
    assert "1 of 2 listed are not (first: 'nobody')" in refusal
    options = ["--data", str(path), "--user", "user", "--withdrawals", str(listed), "--as-of", "2026-11-01"]
    for command in ("check", "watch"):
        assert main(["compliance", command, *options]) == 2
        assert refusal in capsys.readouterr().err
        assert main(["compliance", command, *options, "--allow-unmatched"]) == 4
    records = load_records(str(path), user="user", withdrawals=str(listed), allow_unmatched=True)
    assert records.columns["withdrawn"].tolist() == [True, False, False]
    for line in ("1e5", "null"):
        listed.write_text(f"2\n{line}\n")
        assert "left.txt:2: a user must be an id" in told(
            lambda: load_records(str(path), user="user", withdrawals=str(listed))
        )


def test_paths_of_a_study_start_at_its_own_folder_and_marks_and_home_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "t.csv").write_text(HEAD + ROWS)
    toml = tmp_path / "study.toml"
    toml.write_text('\ufeffdata = "data/t.csv"\nna_values = ["NA"]\nseparator = "tab"\nencoding = "GBK"\n')
    spec = load_spec(toml)
    assert spec.data == str(tmp_path / "data" / "t.csv")
    assert spec.reading == Reading(encoding="gbk", separator="\t", na_values=("NA",))
    monkeypatch.chdir(tmp_path / "data")
    assert load_spec("../study.toml").data == "../data/t.csv"
    (tmp_path / "study.toml").write_text('data = "t.csv"\n')
    assert load_spec(toml).data == "t.csv"  # not beside the study: where the command runs
    monkeypatch.setenv("HOME", str(tmp_path))
    assert StudySpec(data="~/data/t.csv").data == str(tmp_path / "data" / "t.csv")
    assert len(load_records("~/data/t.csv")) == 2
    assert check_table("~/data/t.csv", TERMS).rows == 2


@pytest.mark.parametrize(("name", "value"), [("encoding", "klingon"), ("encoding", "utf-16"), ("separator", "||")])
def test_a_declaration_that_cannot_be_read_is_refused_by_name(name: str, value: str) -> None:
    with pytest.raises(InputError, match=name):
        StudySpec.from_mapping({name: value})


def test_a_declared_table_is_planned_and_checked_from_its_study_in_one_way(
    tmp_path: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = "".join(f"好{i};{'NA' if i == 7 else ' 是' if i % 2 else '否'};{i}.0\n" for i in range(60))
    (tmp_path / "t.CSV").write_bytes(("text;label;user\n" + rows).encode("gb18030"))
    toml = tmp_path / "study.toml"
    declared = (
        f'data = "t.CSV"\nuser = "user"\nmodel = "{tiny_folder}"\nconsent_filter = false\ngates = '
        f'false\nna_values = ["NA"]\n'
    )
    toml.write_text("\ufeff" + declared + "pool = 0.5\ntest = 0.3\n[training]\ntarget_delta = 1e-3\nmax_length = 16\n")
    commands = (["run", str(toml), "--plan", "--trials", "1"], ["compliance", "check", "--data", str(toml)])
    for command in commands:
        assert main(command) == 2
        assert 'declare encoding = "gb18030"' in capsys.readouterr().err
    toml.write_text('encoding = "GB18030"\n' + declared + toml.read_text().split("\n", 6)[6])
    assert main(commands[0]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert (
        "complete: 59 of 60 records (rows with a text and a label; 1 had no label, blanks around 29 labels taken"
        in shown
    )
    assert main(commands[1]) == 4
    shown = " ".join(capsys.readouterr().out.split())
    assert "60 rows of 60 units" in shown
    assert "Rows without a label, which a study drops: 1." in shown


def test_a_missing_or_nested_attribute_is_refused_alike_before_training(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    for more, message in (
        ({}, "column 'sex' must be in"),
        ({"sex": ["f"]}, ":2: column 'sex' must hold one value a row"),
    ):
        path.write_text(json.dumps(record()) + "\n" + json.dumps(OTHER | more) + "\n")
        refusal = told(lambda: load_records(str(path), user="user", groups=["sex"]))
        assert message in refusal
        assert refusal == told(lambda: check_table(path, TERMS, user="user", groups=["sex"]))
