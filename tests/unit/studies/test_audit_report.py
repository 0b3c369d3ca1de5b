"""Audits that are kept: JSON both ways, none replaced by a later one, and told in the report beside the claim."""

import dataclasses
import json
import math
from pathlib import Path

import pytest

from moo.core.errors import StorageError
from moo.report import save_report
from moo.report.sections.texts import EN, ZH
from moo.studies.results.audit_report import load_audits, save_audit
from moo.studies.results.result import load_result
from tests.fixtures.audits import audit_report
from tests.fixtures.pages import as_read, read_page


def test_a_report_comes_back_from_its_file_as_it_was(tmp_path: Path) -> None:
    bare = dataclasses.replace(audit_report(trial=None, entry=12), claimed_epsilon=math.inf)
    for report in (audit_report(), bare):
        path = save_audit(report, tmp_path)
        assert "Infinity" not in path.read_text(encoding="utf-8")
    assert load_audits(tmp_path) == (audit_report(), bare)
    assert load_audits(tmp_path / "none") == ()


def test_a_later_audit_takes_no_earlier_ones_place(tmp_path: Path) -> None:
    bad, good = audit_report(low=2.5), audit_report(entry=9)
    save_audit(good, tmp_path)
    save_audit(bad, tmp_path)
    assert load_audits(tmp_path) == (bad, good)
    assert json.loads((tmp_path / bad.file).read_text(encoding="utf-8"))["alarms"] == list(bad.alarms) != []
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="must be kept"):
        save_audit(good, tmp_path / "file")


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_the_report_sets_the_last_audit_and_every_alarm_beside_the_claim(
    study: tuple[Path, Path],
    tmp_path: Path,
    lang: str,
) -> None:
    t, result = EN if lang == "en" else ZH, load_result(study[1])
    chosen = result.recommend().trial
    assert chosen is not None
    assert (
        as_read(t["audit_none"].format(trial=chosen.number)) in read_page(save_report(result, tmp_path, lang=lang))[0]
    )
    other = audit_report(trial=99, entry=1)
    save_audit(other, tmp_path)
    told = read_page(save_report(result, tmp_path, lang=lang))[0]
    assert other.file in told
    assert (
        f"moo audit --out DIR --trial {chosen.number}" in told
    )  # the other's audit says nothing of the recommended one
    older, newer, text = (
        dataclasses.replace(a, trial=chosen.number)
        for a in (audit_report(entry=3, low=0.77), audit_report(entry=8), audit_report(kind="text", entry=5, low=0.0))
    )
    for report in (older, newer, text):
        save_audit(report, tmp_path)
    told, fetched = read_page(save_report(result, tmp_path, lang=lang))
    assert fetched == []
    assert t["audit_fits"] in told
    assert t["audit_alarm"] not in told
    assert newer.file in told
    assert text.file in told
    assert older.file not in told
    assert "moo audit --out DIR" not in told
    assert "0.19" in told
    save_audit(audit_report(entry=2, low=2.5), tmp_path)
    told = read_page(save_report(result, tmp_path, lang=lang))[0]
    assert t["audit_alarm"] in told
    assert "2.50" in told
