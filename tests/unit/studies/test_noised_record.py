"""Noised answers: unbiased whatever share of the users the legal gates leave, with each count charged once."""

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from moo.core.evidence import UtilityEvidence
from moo.core.trial_record import ACCURACY, RISK
from moo.objectives.membership.risk import membership_risk
from moo.privacy.composition import compose_epsilon, compose_worst
from moo.privacy.ledger import Ledger
from moo.privacy.release_policy import Policy
from moo.privacy.renyi_filter import RenyiFilter
from moo.studies.accounting.account import Account
from moo.studies.spec.study import StudySpec
from moo.studies.trial.evaluator import Evaluator
from moo.studies.trial.judge import VALIDITY
from moo.studies.trial.noised_record import counts, expected_floors, noise_answers, noised_floors, planned_answers
from tests.fixtures.evidence import membership_evidence
from tests.fixtures.letters import letters_spec
from tests.fixtures.runs import RUN_OF_100_USERS
from tests.fixtures.trials import trial_evidence

NOISY = Policy.parse("publish_all(40)")
SPEC = StudySpec(attack="pair_reference")
USERS, RIGHT = 2000, 0.7


@pytest.mark.parametrize("kept", [1.0, 0.85, 0.7])
def test_told_values_are_unbiased_whatever_share_passes_the_gates(kept: float) -> None:
    """Whole studies of 2,000 users.

    Gates, split, counts, floors and noise drawn each time; the truth is known each time.
    """
    off: dict[str, list[float]] = {RISK: [], VALIDITY: [], ACCURACY: []}
    planned: dict[str, float] = {}
    for seed in range(60):
        rng = np.random.default_rng(seed)
        split = rng.random(int((rng.random(USERS) < kept).sum()))
        n_pool, n_test = (
            int((split < SPEC.pool).sum()),
            int(((split >= SPEC.pool) & (split < SPEC.pool + SPEC.test)).sum()),
        )
        pool = membership_evidence(rng, n_pool, most=1)
        right = np.log(np.where(rng.random((4, n_test)) < RIGHT, 0.9, 0.1))
        test = UtilityEvidence(
            log_probs=np.stack([right, np.log1p(-np.exp(right))], axis=2),
            labels=np.zeros(n_test, int),
            units=np.arange(n_test),
        )
        floors = noised_floors({"pool": n_pool, "test": n_test}, NOISY, rng)
        answers = planned_answers(NOISY, floors)
        told = noise_answers(
            trial_evidence(membership=pool, utility=test),
            answers,
            spec=SPEC,
            wordless=np.zeros(n_pool, bool),
            floors=floors,
            rng=rng,
        )
        truth = {
            RISK: membership_risk(pool, SPEC.attack).value,
            VALIDITY: 0.0,
            ACCURACY: float((right > np.log(0.5)).mean()),
        }
        planned = {a.name: a.stddev for a in answers}
        for name, values in off.items():
            values.append(told[name] - truth[name])
    for name, values in off.items():
        assert abs(np.mean(values)) < 3.5 * planned[name] / np.sqrt(len(values)), name
        assert 0.7 * planned[name] < np.std(values) < 1.35 * planned[name], name
        assert planned[name] < 0.05, name  # so that a bias of .1 could not hide


def test_floors_stay_below_the_noised_counts_and_close_to_them() -> None:
    found = [noised_floors({"pool": 900, "test": 300}, NOISY, np.random.default_rng(s)) for s in range(2000)]
    for part, n in (("pool", 900), ("test", 300)):
        values = np.array([getattr(f, part) for f in found])
        assert (values <= n).mean() > 0.999
        assert values.mean() == pytest.approx(n - 4 * 5.0, abs=1.0)
        assert values.std() == pytest.approx(5.0, rel=0.1)
    tiny = noised_floors({"pool": 1, "test": 1}, NOISY, np.random.default_rng(0))
    assert (tiny.pool, tiny.test, tiny.side) == (1, 1, 1)


def test_floors_follow_what_the_gates_leave_and_repeat_for_the_same_study_alone(
    tmp_path: Path, tiny_folder: Path
) -> None:
    spec = letters_spec(tmp_path, tiny_folder)
    frame = pd.read_csv(spec.data)
    frame.loc[frame["user"] % 10 < 3, "purposes"] = "billing"
    frame.to_csv(spec.data, index=False)
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    quiet = Policy.parse("publish_all(40)", answer_noise=1.0)
    evaluator = Evaluator(spec, tmp_path / "a", quiet, name="one")
    left = {part: records.n_units for part, records in evaluator.prepared.data.parts.items()}
    assert left["pool"] - 9 <= evaluator.floors.pool <= left["pool"] < expected_floors(spec, 240).pool
    assert evaluator.floors == Evaluator(spec, tmp_path / "a", quiet, name="one").floors
    drawn = {
        Evaluator(spec, tmp_path / folder, dataclasses.replace(quiet, answer_noise=noise), name=name).floors
        for folder, name, noise in (("a", "one", 1.0), ("a", "two", 1.0), ("a", "one", 1.1), ("b", "one", 1.0))
    }
    assert len(drawn) > 1


def test_counts_are_charged_once_with_the_first_trial_that_is_admitted(tmp_path: Path) -> None:
    once, answers = counts(NOISY), planned_answers(NOISY, expected_floors(SPEC, 500))
    assert [(c.name, c.part, c.sensitivity, c.noise_multiplier) for c in once] == [
        ("units", p, 1.0, 5.0) for p in ("pool", "test")
    ]
    ledger = Ledger(tmp_path / "l", "d")

    def reserve(*numbers: int, limit: RenyiFilter | None = None, tells: bool = True) -> dict[int, str]:
        account = Account(ledger, "s 1", answers=answers, counts=once, limit=limit)
        return account.reserve(dict.fromkeys(numbers, RUN_OF_100_USERS), answers=tells)

    tight = RenyiFilter.tuned(epsilon=0.01, delta=1e-5, typical=[RUN_OF_100_USERS])
    assert set(reserve(0, limit=tight)) == {0}  # nothing is told, so nothing is charged
    reserve(9, tells=False)
    assert not [e for e in ledger.entries() if e.kind == "answer"]
    reserve(0, 1)
    reserve(2)
    told = {e.body["trial"]: len(e.body["answers"]) for e in ledger.entries() if e.kind == "answer"}
    assert told == {0: 5, 1: 3, 2: 3}
    assert [e for e in ledger.charged("s 1") if e in once] == list(once)


def test_a_plan_leaves_room_for_the_counts() -> None:
    once, answers = counts(NOISY), planned_answers(NOISY, expected_floors(SPEC, 500))
    kind = [RUN_OF_100_USERS, *answers]
    limit = RenyiFilter.tuned(epsilon=20.0, delta=1e-5, typical=kind)
    room = limit.room(kind, once)
    assert limit.admits([*once, *kind * (room - 1)], kind)
    assert not limit.admits([*once, *kind * room], kind)
    assert compose_worst([kind], trials=3, delta=1e-5, once=once) == pytest.approx(
        compose_epsilon([*kind * 3, *once], delta=1e-5)
    )
