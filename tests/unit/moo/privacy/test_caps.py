"""A cap on a data set: every reservation of every study is held to it, and it rises only with a reason that stays."""

import dataclasses
import json
import math
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moo.cli.main import main
from moo.core.errors import InputError, PolicyError
from moo.core.messages import render
from moo.privacy.caps import NO_CAP, Cap, describe_cap
from moo.privacy.composed_epsilon import compose
from moo.privacy.events import PrivateAnswer, TrainingRun
from moo.privacy.ledger import Ledger, cap_of, read_entries, verify
from moo.studies.accounting.account import Account, ledger_path
from moo.studies.workflows.monitor import _budgets

RUN = TrainingRun(
    sample_rate=0.5,
    steps=25,
    noise_multiplier=6.0,
    max_grad_norm=0.3,
    delta=1e-5,
    n_units=100,
    unit="user",
    shadows_per_unit=2,
)
BARE = dataclasses.replace(RUN, noise_multiplier=0.0)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "x.ledger", "d")


def epsilon_of(n: int) -> float:
    return Cap(epsilon=1.0).spent([RUN] * n).value


def test_no_study_reserves_past_the_cap_and_what_is_refused_is_not_written(ledger: Ledger) -> None:
    ledger.cap(Cap(epsilon=epsilon_of(2) + 0.01))
    ledger.reserve("a k", 0, RUN)
    ledger.reserve("b k", 0, dataclasses.replace(RUN, part="release"))  # of which a unit may have been in both
    before = ledger.entries()
    with pytest.raises(
        PolicyError, match=r"the cap on these data, epsilon [\d.]+ at delta 1e-05.*composes to"
    ) as caught:
        ledger.reserve("c k", 0, RUN)
    assert "\n" not in str(caught.value)
    with pytest.raises(PolicyError, match="the cap on these data"):
        ledger.answer("c k", 0, [PrivateAnswer(name="accuracy", sensitivity=1.0, noise_multiplier=0.5)])
    assert ledger.entries() == before
    assert compose(ledger.charged(), delta=1e-5, disjoint=False).value <= epsilon_of(2)


def test_a_training_and_its_answers_are_admitted_together_or_not_at_all(ledger: Ledger) -> None:
    ledger.cap(Cap(epsilon=epsilon_of(1) + 0.01))
    with pytest.raises(PolicyError):
        ledger.reserve("a k", 0, RUN, [PrivateAnswer(name="accuracy", sensitivity=1.0, noise_multiplier=1.0)])
    assert [e.kind for e in ledger.entries()] == ["genesis", "cap"]


def test_a_training_without_dp_passes_every_cap(ledger: Ledger) -> None:
    ledger.cap(Cap(epsilon=1e6))
    with pytest.raises(PolicyError, match="includes a training without DP"):
        ledger.reserve("a k", 0, BARE)
    ledger.reserve("a k", 0, RUN)
    ledger.cap(Cap(epsilon=math.inf), reason="the data are deleted")
    ledger.reserve("a k", 1, BARE)
    ledger.cap(Cap(epsilon=1e6))
    with pytest.raises(PolicyError, match="includes a training without DP"):
        ledger.reserve("a k", 2, RUN)  # what is spent bounds nobody
    assert "came after more was spent" in describe_cap(cap_of(ledger.entries()), ledger.charged())


def test_a_cap_is_lowered_freely_and_raised_with_a_reason_that_stays(ledger: Ledger) -> None:
    ledger.cap(Cap(epsilon=10.0))
    ledger.cap(Cap(epsilon=5.0))
    for higher in (Cap(epsilon=6.0), Cap(epsilon=5.0, delta=1e-4), Cap(epsilon=4.0, delta=1e-4), Cap(epsilon=math.inf)):
        with pytest.raises(InputError, match=r"must not rise without a reason, got .* after 5 .*--reason"):
            ledger.cap(higher, reason="  ")
    ledger.cap(Cap(epsilon=6.0), reason="agreed with the officer")
    last = ledger.entries()[-1]
    assert last.body == {"epsilon": 6.0, "delta": 1e-5, "reason": "agreed with the officer"}
    assert cap_of(ledger.entries()) == Cap(epsilon=6.0)
    assert verify(ledger.path).intact


@pytest.mark.parametrize(("epsilon", "delta"), [(0.0, 1e-5), (-1.0, 1e-5), (math.nan, 1e-5), (1.0, 0.0), (1.0, 1.0)])
def test_a_cap_is_a_positive_epsilon_at_a_delta(epsilon: float, delta: float) -> None:
    with pytest.raises(InputError):
        Cap(epsilon=epsilon, delta=delta)


NOISES = (1.0, 1.1, 1.4, 2.0, 3.3, 5.7, 9.0, 20.0)


@settings(max_examples=25, deadline=None)
@given(noises=st.lists(st.sampled_from(NOISES), min_size=1, max_size=12), epsilon=st.floats(1.0, 12.0))
def test_whatever_is_tried_the_whole_stays_under_the_cap(
    tmp_path_factory: pytest.TempPathFactory, noises: list[float], epsilon: float
) -> None:
    ledger = Ledger(tmp_path_factory.mktemp("l") / "x.ledger", "d")
    ledger.cap(Cap(epsilon=epsilon))
    denied: list[str] = []
    for n, noise in enumerate(noises):
        account = Account(ledger, f"s{n % 3} k")
        denied += account.reserve({n: dataclasses.replace(RUN, noise_multiplier=noise)}).values()
    assert compose(ledger.charged(), delta=1e-5, disjoint=False).value <= epsilon
    assert len(ledger.charged()) + len(denied) == len(noises)
    assert sum(e.kind == "deny" for e in ledger.entries()) == len(denied)


def test_studies_that_reserve_at_once_stay_under_the_cap_together(ledger: Ledger) -> None:
    ledger.cap(Cap(epsilon=epsilon_of(4) + 0.01))
    accounts = [Account(Ledger(ledger.path, "d"), f"s{i} k") for i in range(4)]
    threads = [threading.Thread(target=a.reserve, args=(dict.fromkeys(range(3), RUN),)) for a in accounts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ledger.charged()) == 4


def test_the_command_caps_shows_and_asks_for_a_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "mine.csv"
    table.write_text("text,label\na,b\n")
    assert main(["ledger", "cap", str(table), "8"]) == 0
    assert "all studies on these data together are capped at epsilon 8, delta 1e-05" in capsys.readouterr().out
    assert main(["ledger", "cap", str(table), "9"]) == 2
    assert "--reason" in capsys.readouterr().err
    assert main(["ledger", "cap", str(table), "9", "--reason", "a new consent"]) == 0
    capsys.readouterr()
    assert main(["ledger", "show", str(table)]) == 0
    assert "capped at epsilon 9" in " ".join(capsys.readouterr().out.split()).lower()
    assert [e.body.get("reason") for e in read_entries(ledger_path(str(table))) if e.kind == "cap"] == [
        None,
        "a new consent",
    ]
    (told,) = _budgets(str(table), None)
    assert (told.name, told.numbers["left"]) == ("cap on the data", 9.0)
    assert main(["ledger", "cap", str(tmp_path / "absent.csv"), "8"]) == 2
    assert main(["ledger", "cap", str(table), "0"]) == 2


def test_words_of_a_cap_have_their_chinese() -> None:
    for text in (NO_CAP, describe_cap(Cap(epsilon=8.0), []), describe_cap(Cap(epsilon=0.1), [RUN])):
        chinese = render(text, "zh")
        assert "上限" in chinese
        assert "cap" not in chinese


def test_a_cap_travels_as_json() -> None:
    for cap in (Cap(epsilon=8.0), Cap(epsilon=math.inf, delta=1e-6)):
        assert Cap.from_json(json.loads(json.dumps(cap.to_json()))) == cap
