"""The watch.

Each thing it looks at quiet, alarmed and not assessed; the same from the command, with its exit
status.
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from moo.cli.main import main
from moo.core.errors import InputError
from moo.privacy.events import TrainingRun
from moo.privacy.renyi_filter import RenyiFilter
from moo.studies.accounting.account import ledger_of
from moo.studies.workflows.identifier_drift import find_drift, sample_identifiers
from tests.fixtures.monitored import findings, monitored_table


def card(folder: Path, made: str) -> Path:
    folder.mkdir(parents=True)
    (folder / "card.json").write_text(json.dumps({"made": made, "preprocessing": {"masking_level": 2}}))
    return folder


def test_quiet_data_are_quiet(tmp_path: Path) -> None:
    found = findings(monitored_table(tmp_path))
    assert {n: f.status for n, f in found.items()} == {
        "withdrawals": "ok",
        "retention": "ok",
        "residual identifiers": "not assessed",
        "drift of identifiers": "not assessed",
        "budget": "not assessed",
    }


def test_withdrawn_rows_and_the_lag_of_released_models_are_told(tmp_path: Path) -> None:
    listed = tmp_path / "left.txt"
    listed.write_text("u0,2026-09-01\nu2,2026-10-20\n")
    path, model = monitored_table(tmp_path), card(tmp_path / "models" / "trial-0001", "2026-10-01")
    found = findings(path, withdrawals=str(listed), models=(tmp_path / "models",))
    assert found["withdrawals"].status == "attention"
    assert found["withdrawals"].numbers == {"rows": 4, "units": 2}
    lag = found[f"deletion lag of {model}"]
    assert (lag.status, lag.numbers["units"], lag.numbers["share"]) == ("attention", 1, pytest.approx(1 / 3))
    old = findings(path, withdrawals=str(listed), models=(card(tmp_path / "new", "2026-10-31"),))
    assert old[f"deletion lag of {tmp_path / 'new'}"].numbers["units"] == 0
    undated = findings(monitored_table(tmp_path, withdrawn=[True, True, False, False, False, False]), models=(model,))
    assert undated[f"deletion lag of {model}"].numbers["units"] == 1  # without a day it may be newer than the model


def test_retention_is_looked_at_today_and_ahead(tmp_path: Path) -> None:
    collected = ["2024-01-01", "2024-11-10", "2024-11-30", "2026-01-01", "2026-01-01", "2026-01-01"]
    found = findings(monitored_table(tmp_path, collected=collected))["retention"]
    assert found.status == "attention"
    assert found.numbers == {"rows": 1, "expiring": 2, "days_ahead": 30}
    assert "t.csv:2" in found.text
    assert findings(monitored_table(tmp_path, collected=collected), days_ahead=5)["retention"].numbers["expiring"] == 0
    missing = tmp_path / "t.csv"
    pd.read_csv(missing).drop(columns=["collected"]).to_csv(missing, index=False)
    assert findings(missing)["retention"].status == "not assessed"


def test_a_field_that_is_still_to_be_read_after_masking_is_residual(tmp_path: Path) -> None:
    mobiles = [f"138{i:08d}" for i in range(400)]
    texts = [f"call {m} now" for m in mobiles]
    good_one = sample_identifiers(monitored_table(tmp_path, texts, mobile=mobiles), text="text", level=1, rows=400)
    assert (good_one.records, good_one.left) == (400, 0)
    assert good_one.found["mobile"] == 400
    bare = sample_identifiers(monitored_table(tmp_path, texts, mobile=mobiles), text="text", level=0, rows=400)
    assert bare.left == 400
    assert findings(tmp_path / "t.csv", level=0)["residual identifiers"].status == "attention"
    with pytest.raises(InputError, match="column 'body' must be in"):
        sample_identifiers(tmp_path / "t.csv", text="body", level=0, rows=400)


def test_an_even_sample_is_taken_of_a_long_table(tmp_path: Path) -> None:
    path = monitored_table(tmp_path, [f"text {i}" for i in range(1000)])
    assert sample_identifiers(path, text="text", level=1, rows=1000, sample=100).records == 100


def test_drift_is_told_against_the_first_look_and_only_upward(tmp_path: Path) -> None:
    state = tmp_path / "state.json"
    plain = [f"nothing here {chr(97 + i % 26)}" for i in range(300)]
    assert findings(monitored_table(tmp_path, plain), state=str(state))["drift of identifiers"].status == "not assessed"
    assert findings(monitored_table(tmp_path, plain), state=str(state))["drift of identifiers"].status == "ok"
    more = [f"call 138{i:08d}" if i % 10 == 0 else text for i, text in enumerate(plain)]
    found = findings(monitored_table(tmp_path, more), state=str(state))["drift of identifiers"]
    assert found.status == "attention"
    assert "mobile 0.0 -> 100.0 per 1,000" in found.text
    state.write_text("[]")
    with pytest.raises(InputError, match="The state must be as an earlier run wrote it"):
        findings(monitored_table(tmp_path, plain), state=str(state))


def test_drift_rarely_cries_wolf_and_finds_a_doubling() -> None:
    rng = np.random.default_rng(0)
    kinds, n = [f"k{i}" for i in range(10)], 2000
    false = sum(
        bool(
            find_drift(
                {k: int(rng.binomial(n, 0.05)) for k in kinds}, n, {k: int(rng.binomial(n, 0.05)) for k in kinds}, n
            )
        )
        for _ in range(300)
    )
    assert false <= 3  # at .001 over all types, .3 are expected
    found = sum(
        "k0" in find_drift({"k0": int(rng.binomial(n, 0.05))}, n, {"k0": int(rng.binomial(n, 0.10))}, n)
        for _ in range(100)
    )
    assert found >= 95


def test_budgets_are_read_from_the_ledger(tmp_path: Path) -> None:
    path = monitored_table(tmp_path)
    ledger = ledger_of(str(path))
    run = TrainingRun(
        sample_rate=0.5, steps=25, noise_multiplier=8.0, max_grad_norm=0.3, delta=1e-5, n_units=400, unit="customer"
    )
    limit = RenyiFilter.tuned(epsilon=10.0, delta=1e-5, typical=[run])
    ledger.record("gate", "one", {"policy": "publish_all(10)", **vars(limit)})
    ledger.commit("one", ledger.reserve("one", 0, run), steps=25)
    first = findings(path)["budget of one"]
    assert first.status == "ok"
    assert 0 < first.numbers["spent"] < 10
    assert first.numbers["left"] == pytest.approx(10 - first.numbers["spent"])
    house = findings(path, budget=0.5)["budget of the house"]
    assert (house.status, house.numbers["left"]) == ("attention", 0.0)
    while limit.admits(ledger.charged("one"), [run]):
        ledger.reserve("one", 1, run)
    assert findings(path)["budget of one"].status == "attention"


def test_the_command_has_a_status_and_json_for_a_scheduler(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["compliance", "watch", "--user", "user", "--as-of", "2026-11-01", "--data"]
    assert main([*command, str(monitored_table(tmp_path))]) == 0
    assert "no row belongs to somebody who has withdrawn" in capsys.readouterr().out
    assert main([*command, str(monitored_table(tmp_path, withdrawn=True)), "--format", "json"]) == 4
    told = json.loads(capsys.readouterr().out)
    assert (told["as_of"], told["status"]) == ("2026-11-01", "attention")
    assert {f["name"]: f["status"] for f in told["findings"]}["withdrawals"] == "attention"
    for more in (
        ["--models", str(tmp_path)],
        ["--ahead", "-1"],
        ["--budget", "0"],
        ["--text", "body"],
        ["--level", "9"],
    ):
        assert main([*command, str(tmp_path / "t.csv"), *more]) == 2
    assert main([*command, str(tmp_path / "absent.csv")]) == 2
    (tmp_path / "card.json").write_text("{}")
    assert main([*command, str(tmp_path / "t.csv"), "--models", str(tmp_path)]) == 2
    capsys.readouterr()
    assert main(["compliance", "watch", "--data", str(tmp_path / "t.csv"), "--as-of", "soon"]) == 2
    assert "--as-of must be a date as 2026-11-01, got 'soon'" in capsys.readouterr().err
