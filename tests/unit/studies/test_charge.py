"""One way to pay: whatever trains is reserved before, settled after, and an older ledger put back is refused."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from moo.core.errors import PolicyError, StorageError, TrialError
from moo.core.trial_record import TrialParams
from moo.models.training.checkpoints import Checkpoints
from moo.privacy.events import TrainingRun
from moo.privacy.keys import StudyKey
from moo.privacy.ledger import Ledger, LedgerEntry, charged
from moo.studies.accounting.account import ledger_of
from moo.studies.accounting.ledger_heads import ANCHORS
from moo.studies.search import study_search
from moo.studies.search.run_study import run_study
from moo.studies.spec.study import StudySpec
from moo.studies.trial.evaluator import Evaluator
from moo.studies.workflows import audit as audit_module
from moo.studies.workflows import confirm as confirm_module
from moo.studies.workflows import retrain as retrain_module
from moo.studies.workflows.audit import audit_configuration, audit_trial
from moo.studies.workflows.confirm import confirm
from moo.studies.workflows.retrain import retrain
from tests.fixtures.letters import letters_spec

HEAD = TrialParams(target_epsilon=1.0, masking_level=0, lora_rank=2, learning_rate=1e-3, adapted_layers=0)
WORKFLOWS = ("search", "confirm", "retrain", "audit", "audit of a configuration")


@dataclasses.dataclass
class Study:
    """A study of two trials, and every workflow that goes on from it."""

    spec: StudySpec
    home: Path
    out: Path
    trials: int = 2

    @property
    def ledger(self) -> Ledger:
        return ledger_of(self.spec.data)

    def folder(self, workflow: str) -> Path:
        return self.out / "own" if workflow == "audit of a configuration" else self.home

    def call(self, workflow: str) -> Any:
        if workflow == "search":
            result = run_study(self.spec, n_trials=self.trials + 1, policy="proxy_then_retrain(1)", folder=self.home)
            result.save(self.home)
            self.trials += 1
            return result
        return {
            "confirm": lambda: confirm(self.home, n_shadows=4),
            "retrain": lambda: retrain(self.home, [0], to=self.out / "leaves"),
            "audit": lambda: audit_trial(self.home, 0, canaries=2000),
            "audit of a configuration": lambda: audit_configuration(
                self.spec, HEAD, folder=self.out / "own", canaries=300, key=StudyKey(bytes(32))
            ),
        }[workflow]()


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Study:
    table, home, out = (tmp_path_factory.mktemp(name) for name in ("table", "home", "out"))
    spec = dataclasses.replace(letters_spec(table, tiny_folder, n=240), name="paid")
    run_study(spec, n_trials=2, policy="proxy_then_retrain(1)", folder=home).save(home)
    return Study(spec, home, out)


@pytest.fixture(scope="module")
def unreleased(study: Study, tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A study of the same table of which nothing was retrained: each setting leaves once."""
    spec, home = dataclasses.replace(study.spec, name="paid later"), tmp_path_factory.mktemp("later")
    run_study(spec, n_trials=1, policy="proxy_then_retrain(1)", folder=home).save(home)
    return Study(spec, home, tmp_path_factory.mktemp("out"))


def kept(folder: Path, study: str) -> str:
    return str(json.loads((folder / ANCHORS).read_text())[study])


def put_back(ledger: Ledger, raw: bytes) -> None:
    ledger.path.write_bytes(raw)


@pytest.mark.parametrize("workflow", WORKFLOWS)
def test_every_workflow_pays_before_and_settles_after_and_then_refuses_an_older_ledger(
    study: Study, workflow: str
) -> None:
    ledger = study.ledger
    before, older = len(ledger.entries()), ledger.path.read_bytes()
    study.call(workflow)
    added = ledger.entries()[before:]
    kinds = [e.kind for e in added if e.kind in ("reserve", "commit", "abort")]
    assert kinds == ["reserve", "commit"] * (len(kinds) // 2)
    assert kinds
    assert len({e.study for e in added}) == 1
    assert kept(study.folder(workflow), added[-1].study) == ledger.head()
    newer = ledger.path.read_bytes()
    put_back(ledger, older)
    own = workflow == "audit of a configuration"
    for again in [workflow] if own else ["search", "confirm", "retrain", "audit"]:
        with pytest.raises(
            PolicyError, match=r"The ledger must hold what paid[ \w]* has spent so far, up to entry \d+"
        ):
            study.call(again)
    assert ledger.path.read_bytes() == older  # nothing was written into it
    put_back(ledger, newer)


def unsettled(entries: tuple[LedgerEntry, ...]) -> list[LedgerEntry]:
    settled = {e.body["reservation"] for e in entries if e.kind in ("commit", "abort")}
    return [e for e in entries if e.kind == "reserve" and e.seq not in settled]


TRAINERS: dict[str, tuple[Any, str]] = {
    "confirm": (confirm_module, "run_trial"),
    "retrain": (retrain_module, "train"),
    "audit": (audit_module, "train"),
    "audit of a configuration": (audit_module, "train"),
}


@pytest.mark.parametrize("workflow", TRAINERS)
@pytest.mark.parametrize(
    ("stop", "kinds"),
    [
        (TrialError("no.", cause="non-finite loss"), ["reserve", "abort"]),
        (KeyboardInterrupt(), ["reserve"]),
        (ValueError("unknown"), ["reserve"]),
    ],
    ids=["failed", "interrupted", "crashed"],
)
def test_a_training_that_does_not_end_stays_charged_in_full(
    study: Study,
    unreleased: Study,
    monkeypatch: pytest.MonkeyPatch,
    workflow: str,
    stop: BaseException,
    kinds: list[str],
) -> None:
    def stops(*_: Any, **__: Any) -> Any:
        reserved.extend(unsettled(study.ledger.entries()[before:]))
        raise stop

    study = unreleased if workflow == "retrain" else study
    if workflow == "confirm":  # nothing that was kept is taken
        for file in (study.home / "again").glob("*.json"):
            file.unlink()
    reserved: list[LedgerEntry] = []
    before = len(study.ledger.entries())
    monkeypatch.setattr(*TRAINERS[workflow], stops)
    with pytest.raises(type(stop)):
        study.call(workflow)
    added = [e for e in study.ledger.entries()[before:] if e.kind != "gate"]
    assert [e.kind for e in added] == kinds
    assert [e.seq for e in reserved] == [added[0].seq]  # before the training began
    assert [e.steps for e in charged(added) if isinstance(e, TrainingRun)] == [added[0].body["run"]["steps"]]
    assert kept(study.folder(workflow), added[0].study) == study.ledger.head()


def test_a_search_that_is_cut_off_keeps_its_charges_and_its_anchor(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(study_search, "status_quo_record", lambda *_: None)
    monkeypatch.setattr(Evaluator, "record", cut)
    before, older = len(study.ledger.entries()), study.ledger.path.read_bytes()
    call = dataclasses.replace(study.spec, name="cut")
    with pytest.raises(KeyboardInterrupt):
        run_study(call, n_trials=2, folder=tmp_path)
    added = study.ledger.entries()[before:]
    assert [e.kind for e in added] == ["gate", "reserve", "reserve"]
    assert kept(tmp_path, added[0].study) == study.ledger.head()
    newer = study.ledger.path.read_bytes()
    put_back(study.ledger, older)
    with pytest.raises(PolicyError, match="must hold what cut"):
        run_study(call, n_trials=2, folder=tmp_path)
    put_back(study.ledger, newer)


def test_a_confirmation_that_is_cut_off_goes_on_from_its_checkpoint_and_pays_for_what_ran_twice(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = dataclasses.replace(study.spec.machine, checkpoint_steps=2)
    space = dataclasses.replace(study.spec.space, masking_level=(0, 0))
    spec = dataclasses.replace(study.spec, name="resumed", machine=machine, space=space)
    monkeypatch.setattr(study_search, "status_quo_record", lambda *_: None)
    run_study(spec, n_trials=1, folder=tmp_path).save(tmp_path)
    before, write = len(study.ledger.entries()), Checkpoints._write

    def cut(self: Checkpoints, step: int, module: Any) -> None:
        write(self, step, module)
        if step == 4:
            raise RuntimeError("the power is cut")

    monkeypatch.setattr(Checkpoints, "_write", cut)
    with pytest.raises(RuntimeError, match="power"):
        confirm(tmp_path, n_shadows=4)
    monkeypatch.undo()
    result = confirm(tmp_path, n_shadows=4)
    assert result.confirmed is not None
    steps = [e.steps for e in charged(study.ledger.entries()[before:]) if isinstance(e, TrainingRun)]
    whole = spec.training.steps
    assert steps == [6, whole - 4, whole]  # up to the next checkpoint, from the last one, and the fresh split's
    assert not list((tmp_path / "checkpoints").rglob("*.safetensors"))


@pytest.mark.parametrize("text", ["", "[]", '{"paid": 3}', '{"paid": "x"}'])
def test_a_damaged_anchor_is_one_line(study: Study, text: str) -> None:
    path = study.home / ANCHORS
    good = path.read_text()
    path.write_text(text)
    with pytest.raises(StorageError, match=r"ledger\.json must hold the ledger's heads") as caught:
        study.call("search")
    path.write_text(good)
    assert "\n" not in str(caught.value)
