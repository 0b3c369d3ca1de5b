"""The command: what it prints, and the exit status of everything that can go wrong."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from moo.cli.exit_status import FINDINGS
from moo.cli.main import main
from moo.models.dp.optimizer import ShadowNoise
from moo.studies.results.audit_report import load_audits

OK, BAD, MACHINE = 0, 2, 3


@pytest.fixture
def own_ledgers(study: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ARG001
    """No ledgers but the test's own: other files of the session leave some of shipped data sets."""
    monkeypatch.setenv("MOO_LEDGERS", str(tmp_path / "ledgers"))


def test_run_writes_its_files_and_goes_on_without_repeating(
    study: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    toml, out = study
    assert {"front.csv", "front.json", "report.html", "study.db"} <= {p.name for p in out.iterdir()}
    assert main(["run", str(toml), "--trials", "4", "--out", str(out)]) == OK
    printed = capsys.readouterr().out
    assert "trial   0" not in printed
    assert "status quo" in printed
    assert "composed epsilon" in printed
    assert "Recommended: trial" in printed


def test_every_trial_is_printed_beside_the_epsilon_of_the_search(
    study: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    toml, _ = study
    assert main(["run", str(toml), "--trials", "2", "--out", str(tmp_path)]) == OK
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("trial ")]
    assert len([line for line in lines if "(search" in line]) == 2


@pytest.mark.parametrize("style", ["table", "csv", "json"])
def test_front_is_printed_in_every_format(
    study: tuple[Path, Path], capsys: pytest.CaptureFixture[str], style: str
) -> None:
    assert main(["front", "--out", str(study[1]), "--format", style]) == OK
    printed = capsys.readouterr().out
    if style == "json":
        assert len(json.loads(printed)) == 5
    elif style == "csv":
        assert len(printed.splitlines()) == 6
    else:
        assert "strictest" in printed


def test_plan_spends_nothing_and_writes_nothing(
    study: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", str(study[0]), "--plan", "--out", str(tmp_path / "never")]) == OK
    assert "nothing has been spent" in capsys.readouterr().out
    assert not (tmp_path / "never").exists()


def test_an_audit_passes_the_clean_engine_and_exits_with_four_where_it_refutes(
    study: tuple[Path, Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, folder = study
    asked = ["audit", "--out", str(folder), "--trial", "0", "--canaries", "400", "--confidence", "0.999"]
    assert main([*asked, "--format", "json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["alarms"] == []
    assert told["claim"] == "holds"
    assert [g["canaries"] for g in told["guessed"]] == [400] * 3
    assert load_audits(folder)[-1].to_json() == told
    assert load_audits(folder)[-1].file in (folder / "report.html").read_text(encoding="utf-8")
    monkeypatch.setattr(ShadowNoise, "__call__", lambda _, __, shape, device: torch.zeros(shape, device=device))
    assert main(asked) == FINDINGS
    assert "Alarm: epsilon is at least" in capsys.readouterr().out
    assert [bool(a.alarms) for a in load_audits(folder)][-2:] == [False, True]


def test_mask_masks(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["mask", "--level", "1", "call 13800138000 now"]) == OK
    printed = capsys.readouterr().out
    assert "13800138000" not in printed
    assert printed.startswith("call ")


def test_lists_and_explanations(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, expected in (
        (["data", "list"], "reviews"),
        (["models", "list"], "e5-small"),
        (["compliance", "list"], "G01"),
        (["compliance", "explain", "G01"], "PIPL"),
    ):
        assert main(arguments) == OK
        assert expected in capsys.readouterr().out


def test_purge_removes_evidence_and_activations_and_nothing_else(study: tuple[Path, Path], tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(study[1], copy)
    assert main(["data", "purge", str(copy)]) == OK
    assert not (copy / "evidence").exists()
    assert not (copy / "trunk").exists()
    assert (copy / "front.json").exists()
    assert (copy / "study.db").exists()


def test_the_ledger_is_shown_verified_anchored_and_exported(
    study: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    data = str(study[0].with_name("letters.csv"))
    assert main(["ledger", "show", data]) == OK
    assert "letters " in capsys.readouterr().out
    assert main(["ledger", "anchor", data]) == OK
    anchor = capsys.readouterr().out.strip()
    assert main(["ledger", "verify", data, "--anchor", anchor]) == OK
    assert f"anchored up to entry {anchor.partition(':')[0]}" in capsys.readouterr().out
    assert main(["ledger", "export", data]) == OK
    assert len(capsys.readouterr().out.splitlines()) == int(anchor.partition(":")[0])
    assert main(["ledger", "verify", data, "--anchor", f"999999:{'0' * 64}"]) == MACHINE
    assert "cut off" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["ledger", "show", "absent.csv"], BAD, "run a study first"),
        (["ledger", "verify", "reviews", "--anchor", "x"], BAD, "run a study first"),
        (["run", "revews"], BAD, "study must be one of"),
        (["run", "absent.toml"], BAD, "study file must be readable"),
        (["run", "revews"], BAD, "Did you mean 'reviews'?"),
        (["run", "STUDY", "--policy", "select_one", "--answer-noise", "0"], BAD, "--answer-noise must be above 0"),
        (["run", "STUDY", "--out", "FILE"], MACHINE, "folder must be writable"),
        (["run", "STUDY", "--out", "OUT", "--storage", "FILE"], MACHINE, "storage must be readable"),
        (
            ["run", "STUDY", "--storage", "mysql://me@host/study"],
            MACHINE,
            "--storage: storage mysql://me@host/study needs",
        ),
        (["front", "--out", "OUT"], BAD, "run a study first"),
        (["report", "--out", "OUT"], BAD, "run a study first"),
        (["dashboard", "--out", "OUT"], BAD, "study.db"),
        (["data", "fetch", "revews"], BAD, "Did you mean 'reviews'?"),
        (["data", "purge", "OUT"], BAD, "nothing was removed"),
        (["models", "fetch", "gpt"], BAD, "gpt"),
        (["audit"], BAD, "a STUDY, or --out with --trial"),
        (["audit", "STUDY", "--trial", "0"], BAD, "--trial N needs --out DIR"),
        (["audit", "--out", "OUT", "--trial", "0"], BAD, "run a study first"),
        (["audit", "--out", "RUN", "--trial", "99"], BAD, "trial must be a complete one"),
        (["audit", "STUDY", "--out", "OUT", "--canaries", "3"], BAD, "canaries must be about"),
        (["compliance", "explain", "X99"], BAD, "rule must be one of"),
    ],
)
@pytest.mark.usefixtures("own_ledgers")
def test_bad_input_gets_one_line_and_its_exit_status(
    study: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    status: int,
    message: str,
) -> None:
    occupied = tmp_path / "file"
    occupied.write_text(
        "this is a file of mine, longer than one hundred characters so that no header could be mistaken. " * 2
    )
    (tmp_path / "out").mkdir()
    places = {"STUDY": study[0], "RUN": study[1], "FILE": occupied, "OUT": tmp_path / "out"}
    before = occupied.read_bytes(), (study[1] / "study.db").read_bytes()
    assert main([str(places.get(a, a)) for a in arguments]) == status
    errors = capsys.readouterr().err
    assert message in errors
    assert len(errors.strip().splitlines()) == 1
    assert (occupied.read_bytes(), (study[1] / "study.db").read_bytes()) == before


def test_a_changed_study_asks_for_another_name(study: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    before = (study[1] / "study.db").read_bytes()
    assert main(["run", str(study[0]), "--max-penalty", "0.1", "--out", str(study[1])]) == BAD
    errors = capsys.readouterr().err
    assert "use another name" in errors
    assert len(errors.strip().splitlines()) == 1
    assert (study[1] / "study.db").read_bytes() == before


NO = "absent.toml"  # never looked for


@pytest.mark.parametrize(
    ("command", "option", "values"),
    [
        (["run", NO], "--trials", ["0", "-1", "1.5", "many", "10000000"]),
        (["run", NO], "--workers", ["0", "-2", "x"]),
        (["run", NO], "--seed", ["-1", "x", "1.0"]),
        (["run", NO], "--max-risk", ["7", "nan", "low"]),
        (["run", NO], "--max-penalty", ["-0.1", "nan"]),
        (["run", NO], "--policy", ["everything", "publish_all", "publish_all=-1", "proxy_then_retrain=1.5"]),
        (["run", NO], "--answer-noise", ["-1", "x"]),
        (["run", NO], "--weights", ["speed=1", "accuracy=0,risk=0,penalty=0", "x"]),
        (["run", NO], "--lang", ["fr"]),
        (["run", NO], "--name", ["a/b", ".."]),
        (["run", NO], "--out", [""]),
        (
            ["run", NO],
            "--storage",
            ["", "redis://host", "sqlite:/s.db", "journal:///", "a?.db", ".", "postgresql://a:b:c"],
        ),
        (["run", NO], "--accelerator", ["tpu"]),
        (["run", NO], "--precision", ["16"]),
        (["run", NO], "--logger", ["wandb"]),
        (["run", NO], "--checkpoint-steps", ["-1"]),
        (["run", NO], "--cache-gib", ["-1", "nan"]),
        (["front", "--out", "OUT"], "--format", ["xml"]),
        (["front", "--out", "OUT"], "--weights", ["x"]),
        (["confirm", "--out", "OUT"], "--shadows", ["0", "2", "5"]),
        (["attacks", "--out", "OUT"], "--trial", ["-1", "x"]),
        (["attributes", "--out", "OUT"], "--permutations", ["0"]),
        (["retrain", "--out", "OUT", "--to", "OUT"], "--trials", ["-1", "x"]),
        (["audit", NO], "--epsilon", ["0", "-1", "nan"]),
        (["audit", NO], "--kind", ["gold"]),
        (["audit", NO], "--depth", ["-1"]),
        (["audit", NO], "--halvings", ["13"]),
        (["audit", NO], "--canaries", ["0"]),
        (["audit", NO], "--confidence", ["0", "1", "nan"]),
        (["memorise", NO], "--epsilon", ["0", "x"]),
        (["memorise", NO], "--rate", ["0"]),
        (["memorise", NO], "--records", ["0"]),
        (["memorise", NO], "--steps", ["0"]),
        (["memorise", NO], "--level", ["6"]),
        (["memorise", NO], "--digits", ["6"]),
        (["mask", "text"], "--level", ["9", "-1", "x"]),
        (["mask", "text"], "--workers", ["0", "1000"]),
        (["mask", "text"], "--evaluate", ["0"]),
        (["mask", "text"], "--encoding", ["klingon"]),
        (["compliance", "check", "--data", NO], "--separator", ["x"]),
        (["compliance", "check", "--data", NO], "--as-of", ["yesterday", "2026-13-01"]),
        (["compliance", "check", "--data", NO], "--sensitive-rows", ["maybe"]),
        (["compliance", "watch", "--data", NO], "--as-of", ["soon"]),
        (["compliance", "watch", "--data", NO], "--ahead", ["-1"]),
        (["compliance", "watch", "--data", NO], "--level", ["6"]),
        (["compliance", "watch", "--data", NO], "--budget", ["0", "inf", "x"]),
        (["compliance", "annex", "OUT"], "--lang", ["fr"]),
        (["dashboard", "--out", "OUT"], "--port", ["0", "70000"]),
    ],
)
def test_an_unfit_option_is_refused_by_its_name_before_anything_is_printed_or_made(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    command: list[str],
    option: str,
    values: list[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for value in values:
        assert main([*(w.replace("OUT", str(tmp_path / "out")) for w in command), option, value]) == BAD
        told = capsys.readouterr()
        assert told.out == ""
        assert told.err.startswith(f"moo: {option}"), value
        assert len(told.err.splitlines()) == 1
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "nearest"),
    [
        (["rnu", "reviews"], "'run'"),
        (["compliance", "chek"], "'check'"),
        (["run", "reviews", "--trails", "3"], "'--trials'"),
        (["run", "reviews", "--polcy=select_one"], "'--policy'"),
    ],
)
def test_unknown_commands_and_options_get_the_nearest(
    arguments: list[str], nearest: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == BAD
    assert f"Did you mean {nearest}?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "nearest"),
    [
        (["run", "reviews", "--policy", "select_on"], "select_one"),
        (["run", "reviews", "--weights", "acuracy=2"], "accuracy"),
        (["run", "reviews", "--accelerator", "gpuu"], "gpu"),
        (["models", "fetch", "e5_small"], "e5-small"),
        (["compliance", "explain", "g01"], "G01"),
        (["compliance", "list", "--packs", "pilp"], "pipl"),
        (["mask", "text", "--operator", "mobil=token"], "mobile"),
    ],
)
def test_unknown_names_get_the_nearest(arguments: list[str], nearest: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == BAD
    told = capsys.readouterr()
    assert (told.out, f"Did you mean '{nearest}" in told.err) == ("", True)


@pytest.mark.parametrize("arguments", [[], ["run"], ["runn"], ["run", "reviews", "--many"]])
def test_a_wrong_command_line_is_status_two(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == BAD
    assert "--help" in capsys.readouterr().err
