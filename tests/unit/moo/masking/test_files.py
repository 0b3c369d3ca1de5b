"""Files, columns and operators: what a user gives, what comes out, and what an error says; nothing half-written."""

import csv
import json
import os
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from moo.cli.main import main
from moo.core.errors import InputError
from moo.masking import Operators, mask
from moo.masking.replacements import KEY_VARIABLE
from moo.masking.tables.columns import ColumnPlan, mask_record
from moo.masking.tables.files import mask_file

KEY = "0123456789abcdef0123456789abcdef"
ROWS = [
    {"姓名": "阿布都", "手机": "13812345678", "留言": "阿布都说好, 打13900001111\n第二行", "年龄": "34"},
    {"姓名": "", "手机": "", "留言": "没什么", "年龄": "8"},
]


def write_csv(path: Path) -> Path:
    with open(path, "w", encoding="utf-8-sig", newline="") as out:
        writer = csv.DictWriter(out, list(ROWS[0]))
        writer.writeheader()
        writer.writerows(ROWS)
    return path


def test_a_csv_is_masked_by_column_names_and_its_own_fields(tmp_path: Path) -> None:
    source, target = write_csv(tmp_path / "a.csv"), tmp_path / "b.csv"
    told: list[tuple[int, int]] = []
    done = mask_file(source, target, ColumnPlan(level=2), progress=lambda a, b: told.append((a, b)))
    with open(target, encoding="utf-8", newline="") as opened:
        rows = list(csv.DictReader(opened))
    assert rows[0] == {"姓名": "[NAME]", "手机": "[MOBILE]", "留言": "[NAME]说好, 打[MOBILE]\n第二行", "年龄": "34"}
    assert rows[1] == ROWS[1]
    assert (done.rows, done.columns["手机"], done.columns["留言"]) == (2, "mobile", "text")
    assert done.counts["留言", "name", "the record's own value"] == 1
    assert told[-1] == (source.stat().st_size, source.stat().st_size)
    again = tmp_path / "c.csv"
    mask_file(target, again, ColumnPlan(level=2))
    assert again.read_bytes() == target.read_bytes()


def test_json_lines_are_masked_inside_lists_and_mappings(tmp_path: Path) -> None:
    source, target = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    record = {
        "t": "打13812345678",
        "n": {"k": ["a@b.cn", 3]},
        "p": 13812345678,
        "x": None,
        "b": True,
        "year": 2024,
        "f": 1.5,
    }
    source.write_text(json.dumps(record) + "\n\n", encoding="utf-8")
    mask_file(source, target, ColumnPlan(level=1))
    assert json.loads(target.read_text(encoding="utf-8")) == {
        "t": "打[MOBILE]",
        "n": {"k": ["[EMAIL]", 3]},
        "p": "[MOBILE]",
        "x": None,
        "b": True,
        "year": 2024,
        "f": 1.5,
    }


def test_parquet_keeps_numbers_and_nulls_and_masks_typed_columns(tmp_path: Path) -> None:
    source, target = tmp_path / "a.parquet", tmp_path / "b.parquet"
    table = pa.table(
        {"text": ["打13812345678", None], "mobile": [13812345678, None], "age": [34, 8], "score": [1.5, 2.0]}
    )
    pq.write_table(table, source)
    mask_file(source, target, ColumnPlan(level=2))
    assert pq.read_table(target).to_pylist() == [
        {"text": "打[MOBILE]", "mobile": "[MOBILE]", "age": 34, "score": 1.5},
        {"text": None, "mobile": None, "age": 8, "score": 2.0},
    ]
    nested = tmp_path / "n.parquet"
    pq.write_table(pa.table({"l": [["打13812345678"]]}), nested)
    with pytest.raises(InputError, match="l=keep"):
        mask_file(nested, target, ColumnPlan(level=2))
    mask_file(nested, target, ColumnPlan(level=2, roles={"l": "keep"}))
    assert pq.read_table(target).to_pylist() == [{"l": ["打13812345678"]}]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_numbers_of_seven_digits_are_looked_at_in_every_type_and_format(tmp_path: Path, suffix: str) -> None:
    frame = pd.DataFrame(
        {
            "a": [13812345678, 5],
            "b": [13812345678.0, 0.5],
            "c": ["1.3812345678e10", "x"],
            "d": [2024, 2025],
            "e": [0.25, 1.5],
            "f": [1381234, 7],
        }
    )
    source, target = tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
    if suffix == ".parquet":
        frame.to_parquet(source)
    elif suffix == ".jsonl":
        frame.to_json(source, orient="records", lines=True)
    else:
        frame.to_csv(source, index=False)
    mask_file(source, target, ColumnPlan(level=1))
    written = pq.read_table(target).to_pandas() if suffix == ".parquet" else None
    rows = (
        written.to_dict("records")
        if written is not None
        else [json.loads(line) for line in target.read_text().splitlines()]
        if suffix == ".jsonl"
        else list(csv.DictReader(target.read_text().splitlines()))
    )
    assert [str(rows[0][c]) for c in "abcdef"] == ["[MOBILE]", "[MOBILE]", "[MOBILE]", "2024", "0.25", "1381234"]
    assert [str(rows[1][c]) for c in "acdf"] == ["5", "x", "2025", "7"]
    if written is not None:
        assert (written["d"].dtype, written["e"].dtype, written["f"].dtype) == ("int64", "float64", "int64")


def test_a_float_of_a_typed_column_is_hashed_and_searched_for_as_its_digits() -> None:
    own = Operators(chosen={"mobile": "hmac"}, key=KEY.encode())
    columns = ColumnPlan(level=1, operators=own)
    whole, rounded = (mask_record({"mobile": n, "t": "打13812345678"}, columns) for n in (13812345678, 13812345678.0))
    assert whole == rounded
    assert whole["mobile"] in whole["t"]


def test_keys_that_are_left_are_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, target = tmp_path / "a.csv", tmp_path / "b.csv"
    rows = "".join(f"C{i:04d},R-{i},{i % 3},好{i},1381234{i:04d}\n" for i in range(40))
    source.write_text("customer_id,ticket,stars,text,mobile\n" + rows, encoding="utf-8")
    assert mask_file(source, target, ColumnPlan(level=1)).keys == ("customer_id", "ticket")
    assert main(["mask", str(source), "--level", "1", "--out", str(target)]) == 0
    assert "customer_id, ticket. Whoever holds" in " ".join(capsys.readouterr().out.split())
    pq.write_table(pa.table({"order_id": [f"A{i}" for i in range(30)], "paid": [1] * 30}), tmp_path / "a.parquet")
    assert mask_file(tmp_path / "a.parquet", tmp_path / "b.parquet", ColumnPlan(level=0)).keys == ("order_id",)


def test_what_the_user_says_of_a_column_wins() -> None:
    columns = ColumnPlan(level=2, roles={"name": "keep", "who": "name"})
    assert mask_record({"name": "刘婷", "who": "刘婷", "t": "刘婷说好"}, columns) == {
        "name": "刘婷",
        "who": "[NAME]",
        "t": "[NAME]说好",
    }
    with pytest.raises(InputError, match="who=phone"):
        ColumnPlan(level=2, roles={"who": "phone"})


@pytest.mark.parametrize(
    ("name", "content", "place"),
    [
        ("a.csv", "a\n你好\n".encode() + "你好\n".encode("gb18030"), r"a\.csv:3: byte 1 .*GB18030.*mixes encodings"),
        ("a.csv", b"a\n" + "你好\n".encode("gb18030"), r"a\.csv:2: byte 1 .*encoding = \"gb18030\".*iconv -f GB18030"),
        ("a.csv", "a\n你好\n".encode("utf-16"), "UTF-16"),
        ("a.csv", b"a\n1\n2\x003\n", r"a\.csv:3: byte 2 .*NUL"),
        ("a.csv", b"a\n1\n" + b"x" * 50_000_000 + b"\n", r"a\.csv:3: a line must hold at most"),
        ("a.csv", b"a,b\n1,2\n3\n", r"a\.csv:3: a row must hold 2 fields.*holds 1"),
        ("a.csv", b'a\n"1\n2\n', r"a\.csv:2: .*read to line 3: unexpected end of data"),
        ("a.csv", b"a,a\n1,2\n", "different names"),
        ("a.csv", b"", "is empty"),
        ("a.jsonl", b'{"a": 1}\n{"a": \n', r"a\.jsonl:2: a line must be one JSON object, but at column"),
        ("a.jsonl", b'{"a": 1}\n[1]\n', r"a\.jsonl:2: a line must be one JSON object, got list"),
        ("a.jsonl", b'{"a": "\\ud800"}\n', r"a\.jsonl:1: a line must hold whole characters"),
        ("a.parquet", b"PAR1 not", "must be a readable parquet table"),
    ],
)
def test_bad_input_is_refused_with_its_place_and_nothing_is_left(
    tmp_path: Path, name: str, content: bytes, place: str
) -> None:
    source, target = tmp_path / name, tmp_path / f"out{Path(name).suffix}"
    source.write_bytes(content)
    target.write_text("before")
    with pytest.raises(InputError, match=place):
        mask_file(source, target, ColumnPlan(level=2))
    assert sorted(os.listdir(tmp_path)) == sorted([name, target.name])
    assert target.read_text() == "before"


def test_a_target_that_is_the_source_or_of_another_format_is_refused(tmp_path: Path) -> None:
    source = write_csv(tmp_path / "a.csv")
    for target in (source, tmp_path / "b.jsonl"):
        with pytest.raises(InputError, match="target"):
            mask_file(source, target, ColumnPlan(level=2))
    with pytest.raises(InputError, match="no such file"):
        mask_file(tmp_path / "none.csv", tmp_path / "b.csv", ColumnPlan(level=2))
    with pytest.raises(InputError, match="Column '电' must be in"):
        mask_file(source, tmp_path / "b.csv", ColumnPlan(level=2, roles={"电": "mobile"}))


def test_the_keyed_hash_joins_one_value_however_it_is_written_and_needs_its_key(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    with pytest.raises(InputError, match=KEY_VARIABLE):
        Operators.from_environment({"mobile": "hmac"})
    monkeypatch.setenv(KEY_VARIABLE, "short")
    with pytest.raises(InputError, match="32 characters"):
        Operators.from_environment({"mobile": "hmac"})
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    own = Operators.from_environment({"mobile": "hmac"})
    first, second, third = (mask(f"打{n}", 1, operators=own) for n in ("13812345678", "138 1234 5678", "13812345679"))
    assert first == second != third
    assert all(mask(first, level, operators=own) == first for level in (1, 4))
    assert not set("0123456789aeiou") & set(first)
    assert KEY not in repr(own) + first
    monkeypatch.setenv(KEY_VARIABLE, KEY[::-1])
    assert mask("打13812345678", 1, operators=Operators.from_environment({"mobile": "hmac"})) != first


def test_operators_by_type() -> None:
    own = Operators(chosen={"age": "token", "name": "redact", "address": "token"})
    assert mask("刘婷今年34岁", 3, operators=own) == "[REDACTED]今年[AGE]"
    assert mask("寄到杭州市西湖区文三路12号", 2, operators=own) == "寄到[ADDRESS]"
    assert mask_record({"age": 13812345678}, ColumnPlan(level=3)) == {"age": "[AGE]"}
    for wrong in ({"age": "hide"}, {"phone": "token"}):
        with pytest.raises(InputError, match="TYPE=OPERATOR"):
            Operators(chosen=wrong)


def test_the_command_masks_a_text_a_table_and_says_what_it_did(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["mask", "找刘婷，打13812345678", "--explain"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("找[NAME]，打[MOBILE]\n")
    assert "form of a Chinese mobile" in shown
    source, target = write_csv(tmp_path / "a.csv"), tmp_path / "b.csv"
    assert main(["mask", str(source), "--level", "1", "--out", str(target), "--explain", "--columns", "年龄=keep"]) == 0
    assert "2 records at L1" in capsys.readouterr().out
    assert "[MOBILE]" in target.read_text(encoding="utf-8")
    assert main(["mask", str(source)]) == 2
    assert "give --out FILE" in capsys.readouterr().err


@pytest.mark.slow
def test_the_command_measures_itself_and_writes_the_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["mask", "--evaluate", "40", "--out", str(tmp_path / "figures.json")]) == 0
    assert "zh held out" in capsys.readouterr().out
    figures = json.loads((tmp_path / "figures.json").read_text())
    real = next(s for s in figures["sets"] if s["set"] == "zh real reviews")
    assert real["characters_masked"] < 0.01
    assert real["without_own_fields"]["direct"]["recall"] >= 0.9
    assert set(figures["hard_cases"]) == {"obfuscated", "joined", "scripts", "lookalikes"}


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_two_processes_write_what_one_does_in_the_same_order(tmp_path: Path, suffix: str) -> None:
    records = [{"id": i, "留言": f"第{i}条，打1381234{i:04d}", "手机": f"1390000{i:04d}"} for i in range(2500)]
    source = tmp_path / f"a{suffix}"
    if suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(records), source)
    elif suffix == ".jsonl":
        source.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records), encoding="utf-8")
    else:
        with open(source, "w", encoding="utf-8", newline="") as out:
            writer = csv.DictWriter(out, list(records[0]))
            writer.writeheader()
            writer.writerows(records)
    one, two = (mask_file(source, tmp_path / f"{n}{suffix}", ColumnPlan(level=2), workers=n) for n in (1, 2))
    assert (tmp_path / f"1{suffix}").read_bytes() == (tmp_path / f"2{suffix}").read_bytes()
    assert one == two
    assert (one.rows, sum(one.counts.values())) == (2500, 5000)


def test_a_broken_line_is_told_and_nothing_is_left_with_two_processes(tmp_path: Path) -> None:
    source = tmp_path / "a.jsonl"
    source.write_text('{"a": "x"}\n' * 1500 + "{\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"a\.jsonl:1501: a line must be one JSON object"):
        mask_file(source, tmp_path / "b.jsonl", ColumnPlan(level=1), workers=2)
    assert [p.name for p in tmp_path.iterdir()] == ["a.jsonl"]
