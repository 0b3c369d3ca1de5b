"""Audits that are kept: JSON both ways, none replaced by a later one, and told in the report beside the claim."""

import dataclasses
import json
import math
from pathlib import Path

import pytest

from moo.core.errors import StorageError
from moo.core.trial_record import TrialParams
from moo.objectives.auditing.one_run import Guessed
from moo.report import save_report
from moo.report.sections.texts import EN, ZH
from moo.studies.results.audit_report import AuditReport, load_audits, save_audit
from moo.studies.results.result import load_result
from tests.unit.moo.report.test_report import as_read, read


def made(*, trial: int | None = 0, kind: str = "dirac", entry: int = 7, low: float = 0.19) -> AuditReport:
    return AuditReport(
        study="letters",
        trial=trial,
        params=TrialParams(target_epsilon=1.0, masking_level=0, lora_rank=2, learning_rate=1e-3, adapted_layers=0),
        engine="bank",
        kind=kind,
        guessed=(Guessed(canaries=1000, guesses=100, correct=56),),
        confidence=0.95,
        claimed_epsilon=1.0,
        delta=1e-5,
        claim="holds",
        epsilon_low=low,
        epsilon_low_dp=0.1,
        p_value=0.4,
        sampler_p_value=0.6,
        steps=25,
        seconds=3.5,
        ledger=f"{entry}:ab12",
    )


def test_a_report_comes_back_from_its_file_as_it_was(tmp_path: Path) -> None:
    bare = dataclasses.replace(made(trial=None, entry=12), claimed_epsilon=math.inf)
    for report in (made(), bare):
        path = save_audit(report, tmp_path)
        assert "Infinity" not in path.read_text(encoding="utf-8")
    assert load_audits(tmp_path) == (made(), bare)
    assert load_audits(tmp_path / "none") == ()


def test_a_later_audit_takes_no_earlier_ones_place(tmp_path: Path) -> None:
    bad, good = made(low=2.5), made(entry=9)
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
    assert as_read(t["audit_none"].format(trial=chosen.number)) in read(save_report(result, tmp_path, lang=lang))[0]
    other = made(trial=99, entry=1)
    save_audit(other, tmp_path)
    told = read(save_report(result, tmp_path, lang=lang))[0]
    assert other.file in told
    assert (
        f"moo audit --out DIR --trial {chosen.number}" in told
    )  # the other's audit says nothing of the recommended one
    older, newer, text = (
        dataclasses.replace(a, trial=chosen.number)
        for a in (made(entry=3, low=0.77), made(entry=8), made(kind="text", entry=5, low=0.0))
    )
    for report in (older, newer, text):
        save_audit(report, tmp_path)
    told, fetched = read(save_report(result, tmp_path, lang=lang))
    assert fetched == []
    assert t["audit_fits"] in told
    assert t["audit_alarm"] not in told
    assert newer.file in told
    assert text.file in told
    assert older.file not in told
    assert "moo audit --out DIR" not in told
    assert "0.19" in told
    save_audit(made(entry=2, low=2.5), tmp_path)
    told = read(save_report(result, tmp_path, lang=lang))[0]
    assert t["audit_alarm"] in told
    assert "2.50" in told
