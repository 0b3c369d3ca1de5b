"""How a study runs on a machine.

Settings that change no number, what is refused before anything is spent, what is said.
"""

import dataclasses
import inspect
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning
import pandas as pd
import pytest
import torch
from lightning.pytorch import callbacks as lightning_callbacks
from lightning.pytorch import loggers as lightning_loggers

from moo.cli.main import parser
from moo.cli.runtime_options import machine_of
from moo.core.errors import ConfigChangedError, InputError, TrialError
from moo.core.trial_record import TrialParams
from moo.models.training.checkpoints import Reach, checkpoint_files, reach_of
from moo.models.training.trainer_arguments import ALLOWED, REFUSED, REFUSED_CALLBACKS, check_trainer
from moo.privacy.ledger import verify
from moo.search import Candidate
from moo.search.executors import executor_of
from moo.studies.accounting.account import ledger_of
from moo.studies.results.result import StudyResult, load_result
from moo.studies.search.gpu_assignment import worker_environments
from moo.studies.search.run_study import run_study
from moo.studies.spec.runtime import RuntimeSettings
from moo.studies.spec.study import StudySpec
from moo.studies.spec.training import TrainingSpec
from moo.studies.workflows.audit import audit_trial
from moo.studies.workflows.confirm import confirm
from tests.fixtures.devices import seen_device
from tests.fixtures.letters import TINY, letters_spec


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> StudySpec:
    return letters_spec(tmp_path_factory.mktemp("table"), tiny_folder, n=240)


def numbers_of(result: StudyResult) -> list[Any]:
    rows = [t.to_json() for t in (result.reference, *result.trials) if t is not None]
    return [{k: v for k, v in row.items() if k not in ("seconds", "notices")} for row in rows]


def beside(folder: Path, other: Path) -> Path:
    """A folder with the other study's key, so that both draw the same."""
    folder.mkdir()
    (folder / "study.key").write_bytes((other / "study.key").read_bytes())
    (folder / "study.key").chmod(0o600)
    return folder


def on(spec: StudySpec, **changes: Any) -> StudySpec:
    return dataclasses.replace(spec, machine=dataclasses.replace(spec.machine, **changes))


def test_a_further_training_of_a_study_runs_on_its_machine_settings(
    spec: StudySpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = RuntimeSettings(
        accelerator="cpu", precision="32-true", chunk=9, cache_gib=0.5, trainer={"log_every_n_steps": 3}
    )
    found = run_study(
        dataclasses.replace(spec, name="kept", machine=machine, max_risk=1.0, max_penalty=1.0),
        n_trials=2,
        folder=tmp_path,
    )
    found.save(tmp_path)
    assert load_result(tmp_path).specification().machine == machine
    seen: list[RuntimeSettings] = []

    def stop(_: TrialParams, spec: StudySpec, *__: Any, **___: Any) -> Any:
        seen.append(spec.machine)
        raise TrialError("stopped here", cause="test")

    monkeypatch.setattr("moo.studies.trial.plan.training_settings", stop)
    with pytest.raises(TrialError, match="stopped here"):
        confirm(tmp_path)
    with pytest.raises(TrialError, match="stopped here"):
        audit_trial(tmp_path, 0, canaries=64)
    assert seen == [machine] * 2


def test_every_argument_of_the_trainer_is_either_allowed_or_refused() -> None:
    known = set(inspect.signature(lightning.Trainer).parameters)
    assert set(ALLOWED) | set(REFUSED) == known
    assert not set(ALLOWED) & set(REFUSED)
    assert all(hasattr(lightning_callbacks, name) for name in REFUSED_CALLBACKS)


@pytest.mark.parametrize("name", [*REFUSED, "max_stepz"])
def test_a_trainer_argument_that_breaks_dp_is_refused_with_its_reason(name: str) -> None:
    with pytest.raises(InputError, match=name) as caught:
        StudySpec.from_mapping({"machine": {"trainer": {name: 1}}})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "callback",
    [
        lightning_callbacks.GradientAccumulationScheduler({0: 2}),
        lightning_callbacks.LearningRateFinder(),
        lightning_callbacks.StochasticWeightAveraging(1e-2),
        lightning_callbacks.ModelCheckpoint(),
    ],
)
def test_a_callback_that_breaks_dp_is_refused(callback: Any) -> None:
    for given in (callback, [lightning_callbacks.DeviceStatsMonitor(), callback]):
        with pytest.raises(InputError, match=type(callback).__name__):
            check_trainer({"callbacks": given})
    check_trainer({"callbacks": [lightning_callbacks.DeviceStatsMonitor()]})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"accelerator": "tpu"}, "accelerator must be one of"),
        ({"chunk": 0}, "chunk"),
        ({"cache_gib": -1.0}, "cache_gib"),
        ({"trainer": 3}, "machine.trainer must be a table"),
        ({"speed": 1}, "speed"),
    ],
)
def test_an_unfit_machine_is_refused_by_name(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        StudySpec.from_mapping({"machine": values})


def test_the_machine_is_no_part_of_what_the_study_is(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(
        'data = "reviews"\n[machine]\nchunk = 7\ncache_gib = 2\n[machine.trainer]\ndeterministic = true\n'
    )
    mine = StudySpec.from_toml(tmp_path / "mine.toml")
    assert mine.machine == RuntimeSettings(chunk=7, cache_gib=2.0, trainer={"deterministic": True})
    assert mine.to_json() == dataclasses.replace(mine, machine=RuntimeSettings()).to_json()


def test_a_study_on_another_machine_goes_on_to_the_same_numbers_beyond_rounding(
    spec: StudySpec, tmp_path: Path
) -> None:
    run_study(on(spec, chunk=5, cache_gib=0.0), n_trials=1, folder=tmp_path / "a")
    mixed = run_study(spec, n_trials=2, folder=tmp_path / "a")
    whole = run_study(spec, n_trials=2, folder=beside(tmp_path / "b", tmp_path / "a"))
    for one, other in zip(mixed.trials, whole.trials, strict=True):
        assert one.params == other.params
        for name, measured in one.objectives.items():
            assert measured.value == pytest.approx(other.objectives[name].value, abs=0.01)


def test_what_a_trial_ran_into_is_told_with_it(spec: StudySpec, tmp_path: Path) -> None:
    short = dataclasses.replace(
        on(spec, cache_gib=1e-5), name="short", training=TrainingSpec(steps=4, max_length=12, target_delta=1e-4)
    )
    result = run_study(short, n_trials=1, folder=tmp_path)
    told = result.notices
    assert any("texts were longer than 12 tokens" in notice for notice in told)
    assert any("trunk cache is full" in notice for notice in told)
    assert all(trials.startswith("status quo") for trials in told.values())
    assert TrialParams.from_json(result.trials[0].params.to_json()) == result.trials[0].params


class Killed(BaseException):
    """Stands for a kill: nothing of ours catches it."""


class KillAt(lightning.Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:  # noqa: ARG002
        if pl_module.dp_optimizer.steps_taken == self.step:
            raise Killed


def killing(name: str, step: int) -> Callable[[str], list[lightning.Callback]]:
    """Callbacks of each training: one of them is killed."""
    return lambda training: [KillAt(step)] if training == name else []


def charges(spec: StudySpec) -> list[tuple[int, str, int]]:
    """Trial, how it was settled, steps charged: of each reservation in order."""
    entries = ledger_of(spec.data).entries()
    settled = {e.body["reservation"]: e for e in entries if e.kind in ("commit", "abort")}
    out = []
    for e in entries:
        if e.kind == "reserve":
            end = settled.get(e.seq)
            steps = e.body["run"]["steps"] if end is None else end.body["steps"]
            out.append((e.body["trial"], "open" if end is None else end.kind, steps))
    return out


def test_a_killed_trial_goes_on_from_its_checkpoint_and_is_charged_for_the_steps_that_ran_twice(
    spec: StudySpec, tmp_path: Path
) -> None:
    """TINY takes 8 steps. Killed at 5 with checkpoints at 3 and 6: at most 6 ran, and 5 are left."""
    kept = on(dataclasses.replace(spec, name="kept", data=copied(spec, tmp_path)), checkpoint_steps=3)
    first = on(kept, trainer={"callbacks": killing("trial-0000", 5)})
    with pytest.raises(Killed):
        run_study(first, n_trials=1, folder=tmp_path / "a")
    assert [f.name for f in (tmp_path / "a" / "checkpoints").iterdir()] == ["trial-0000.safetensors"]
    resumed = run_study(kept, n_trials=1, folder=tmp_path / "a")
    assert charges(kept) == [(-1, "commit", 8), (0, "abort", 6), (0, "commit", 5)]
    assert resumed.trials[0].resumed_at == 3
    assert not (tmp_path / "a" / "checkpoints").exists()
    assert verify(ledger_of(kept.data).path).intact
    whole = run_study(on(kept, checkpoint_steps=0), n_trials=1, folder=beside(tmp_path / "b", tmp_path / "a"))
    mine, theirs = resumed.trials[0].to_json(), whole.trials[0].to_json()
    for key in ("seconds", "resumed_at"):
        del mine[key], theirs[key]
    assert mine == theirs


def test_without_checkpoints_a_killed_trial_is_charged_in_full_and_again(spec: StudySpec, tmp_path: Path) -> None:
    plain = dataclasses.replace(spec, name="plain", data=copied(spec, tmp_path))
    with pytest.raises(Killed):
        run_study(on(plain, trainer={"callbacks": killing("trial-0000", 5)}), n_trials=1, folder=tmp_path / "a")
    run_study(plain, n_trials=1, folder=tmp_path / "a")
    assert charges(plain) == [(-1, "commit", 8), (0, "open", 8), (0, "commit", 8)]


def test_attempts_with_other_intervals_are_charged_for_no_fewer_steps_than_ran(spec: StudySpec, tmp_path: Path) -> None:
    """Checkpoints every 2 steps, killed at 3.

    Every 1000 from step 2 on, killed at 7: 5 ran, and the file says where they began.
    """
    kept = dataclasses.replace(spec, name="intervals", data=copied(spec, tmp_path))
    for every, step in ((2, 3), (1000, 7)):
        attempt = on(kept, checkpoint_steps=every, trainer={"callbacks": killing("trial-0000", step)})
        with pytest.raises(Killed):
            run_study(attempt, n_trials=1, folder=tmp_path / "a")
    resumed = run_study(on(kept, checkpoint_steps=1000), n_trials=1, folder=tmp_path / "a")
    assert resumed.trials[0].resumed_at == 2
    assert charges(kept) == [(-1, "commit", 8), (0, "abort", 4), (0, "abort", 6), (0, "commit", 6)]


def test_an_attempt_without_a_checkpoint_of_its_own_is_charged_in_full(spec: StudySpec, tmp_path: Path) -> None:
    """Another study has left files of a training of the same number, on the other engine."""
    left, kept = (dataclasses.replace(spec, name=name, data=copied(spec, tmp_path)) for name in ("left", "kept"))
    opacus = dataclasses.replace(left, training=dataclasses.replace(left.training, engine="opacus"))
    for study, every, step in ((opacus, 1, 2), (kept, 1000, 7)):
        attempt = on(study, checkpoint_steps=every, trainer={"callbacks": killing_all("reference", step)})
        with pytest.raises(Killed):
            run_study(attempt, n_trials=1, folder=tmp_path / "a")
    run_study(on(kept, checkpoint_steps=1000), n_trials=1, folder=tmp_path / "a")
    assert charges(kept)[1:] == [(-1, "open", 8), (-1, "commit", 8), (0, "commit", 8)]


def killing_all(name: str, step: int) -> Callable[[str], list[lightning.Callback]]:
    """As `killing`, in whichever shadow comes first."""
    return lambda training: [KillAt(step)] if training.startswith(name) else []


@pytest.mark.slow
def test_moo_run_killed_in_the_middle_of_trainings_goes_on_bit_for_bit_and_is_charged_what_ran(
    spec: StudySpec, tmp_path: Path
) -> None:
    """The real thing.

    SIGKILL once the status quo has a checkpoint, again once trial 1 has one, then the same command
    to its end.
    """
    training = dataclasses.replace(TINY, steps=200)
    long = on(
        dataclasses.replace(spec, name="long", data=copied(spec, tmp_path), training=training), checkpoint_steps=10
    )
    (tmp_path / "long.toml").write_text(toml_of(long))
    command = [sys.executable, "-m", "moo.cli.main", "run", "long.toml", "--trials", "3", "--out", "a"]
    command += ["--checkpoint-steps", "10"]
    ran = {-1: killed_in(command, tmp_path, long, -1), 1: killed_in(command, tmp_path, long, 1)}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert charges(long) == [
        (-1, "abort", ran[-1].at_most),
        (-1, "commit", 200 - ran[-1].step),
        (0, "commit", 200),
        (1, "abort", ran[1].at_most),
        (2, "open", 200),  # of trial 2 nothing shows that it had not begun
        (1, "commit", 200 - ran[1].step),
        (2, "commit", 200),
    ]
    resumed = load_result(tmp_path / "a")
    assert resumed.reference is not None
    assert [t.resumed_at for t in (resumed.reference, *resumed.trials)] == [ran[-1].step, 0, ran[1].step, 0]
    assert not (tmp_path / "a" / "checkpoints").exists()
    assert (tmp_path / "a" / "report.html").is_file()
    whole = run_study(on(long, checkpoint_steps=0), n_trials=3, folder=beside(tmp_path / "b", tmp_path / "a"))
    mine, theirs = numbers_of(resumed), numbers_of(whole)
    for row in (*mine, *theirs):
        del row["resumed_at"]
    assert mine == theirs


def killed_in(command: list[str], folder: Path, study: StudySpec, number: int) -> Reach:
    """Start the command, end it by SIGKILL when a training has written a checkpoint, and read how far
    that training came.
    """
    path = folder / "a" / "checkpoints" / ("reference" if number == -1 else f"trial-{number:04d}")
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as running:
        while not checkpoint_files(path):
            assert running.poll() is None, running.stderr and running.stderr.read()
            time.sleep(0.002)
        running.send_signal(signal.SIGKILL)
    assert running.returncode == -signal.SIGKILL
    attempts = [e.hash for e in ledger_of(study.data).entries() if e.kind == "reserve" and e.body["trial"] == number]
    reach = reach_of(path, attempts[-1])
    assert reach is not None, "the training was over before the signal came"
    assert 0 < reach.step < 200
    return reach


def toml_of(spec: StudySpec) -> str:
    """The study as `moo run` reads it; JSON's values are TOML's."""
    plain = {k: v for k, v in spec.to_json().items() if not isinstance(v, dict)}
    tables = {k: v for k, v in spec.to_json().items() if isinstance(v, dict)}
    parts = [("", plain), *((f"[{name}]\n", table) for name, table in tables.items())]
    return "\n".join(head + "".join(f"{k} = {json.dumps(v)}\n" for k, v in rows.items()) for head, rows in parts)


def copied(spec: StudySpec, folder: Path) -> str:
    """The table at another place: its people have a ledger of their own."""
    return str(shutil.copy(spec.data, folder / "table.csv"))


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard itself reads of a training: name -> (step, value)."""
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    read = reader.EventAccumulator(str(folder))
    read.Reload()
    tags = read.Tags()
    assert not any(found for kind, found in tags.items() if kind != "scalars")  # no graph, no histogram of gradients
    return {tag: [(e.step, e.value) for e in read.Scalars(tag)] for tag in tags["scalars"]}


def test_every_trial_is_logged_by_its_own_logger(spec: StudySpec, tmp_path: Path) -> None:
    run_study(on(spec, logger="csv"), n_trials=1, folder=tmp_path / "a")
    names = sorted(f.name for f in (tmp_path / "a" / "logs").iterdir())
    assert names == ["reference", "trial-0000"]
    lines = pd.read_csv(tmp_path / "a" / "logs" / "trial-0000" / "version_0" / "metrics.csv")
    assert lines["step"].tolist() == list(range(1, 9))
    assert {"loss/0", "loss/3", "units", "noise_std", "lr/0"} <= set(lines.columns)
    assert lines["loss/0"].between(0, 10).all()
    assert (lines["noise_std"] > 0).all()


def test_tensorboard_holds_the_same_lines_as_csv(spec: StudySpec, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    run_study(on(spec, logger="csv"), n_trials=1, folder=tmp_path / "a")
    run_study(on(spec, logger="auto"), n_trials=1, folder=beside(tmp_path / "b", tmp_path / "a"))
    names = sorted(f.name for f in (tmp_path / "b" / "logs").iterdir())
    assert names == ["reference", "trial-0000"]
    for name in names:
        lines = pd.read_csv(tmp_path / "a" / "logs" / name / "version_0" / "metrics.csv")
        told = scalars(tmp_path / "b" / "logs" / name / "version_0")
        assert set(told) | {"step"} == set(lines.columns)
        for tag, found in told.items():
            assert [step for step, _ in found] == lines["step"].tolist() == list(range(1, 9))
            assert [value for _, value in found] == pytest.approx(lines[tag].tolist(), rel=1e-6)


@pytest.mark.parametrize("logger", ["csv", "tensorboard"])
def test_where_numbers_may_leave_no_private_one_is_logged(spec: StudySpec, tmp_path: Path, logger: str) -> None:
    if logger == "tensorboard":
        pytest.importorskip("tensorboard")
    gauged = dataclasses.replace(on(spec, logger=logger), name=f"told-{logger}", attack="loss")
    run_study(gauged, n_trials=1, policy="publish_all(60)", answer_noise=20.0, folder=tmp_path / "a")
    (folder,) = (tmp_path / "a" / "logs").glob("*/version_0")
    told = pd.read_csv(folder / "metrics.csv").drop(columns="step") if logger == "csv" else scalars(folder)
    assert set(told) == {"noise_std", "lr/0"}


def test_tensorboard_is_asked_for_by_name_where_it_is_missing(
    spec: StudySpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("moo.studies.spec.runtime", "moo.models.training.loggers"):
        monkeypatch.setattr(f"{module}.has_tensorboard", lambda: False)
    with pytest.raises(InputError, match=r"moo-privacy\[tensorboard\]"):
        on(spec, logger="tensorboard")
    run_study(on(spec, logger="auto"), n_trials=1, folder=tmp_path / "a")
    assert len(list((tmp_path / "a" / "logs").glob("*/version_0/metrics.csv"))) == 2


def test_any_lightning_logger_and_callback_may_be_handed_in(spec: StudySpec, tmp_path: Path) -> None:
    seen: dict[str, list[int]] = {}

    class Seen(lightning_loggers.Logger):
        def __init__(self, training: str) -> None:
            super().__init__()
            self.training = training

        name = version = "seen"  # type: ignore[assignment]

        def log_metrics(self, metrics: Any, step: int | None = None) -> None:
            assert "loss/0" in metrics
            seen.setdefault(self.training, []).append(step or 0)

        def log_hyperparams(self, *_: Any, **__: Any) -> None:
            pass

    mine = on(spec, trainer={"logger": Seen, "log_every_n_steps": 2, "callbacks": lambda _: lightning.Callback()})
    run_study(mine, n_trials=1, folder=tmp_path / "a")
    assert seen == {"reference": [2, 4, 6, 8], "trial-0000": [2, 4, 6, 8]}
    bad = on(spec, trainer={"callbacks": lambda _: [lightning_callbacks.ModelCheckpoint()]})
    with pytest.raises(InputError, match="ModelCheckpoint"):
        run_study(bad, n_trials=1, folder=tmp_path / "b")


def test_precision_is_of_what_is_frozen_and_part_of_the_study(spec: StudySpec, tmp_path: Path) -> None:
    half = on(spec, precision="bf16-mixed")
    result = run_study(half, n_trials=1, folder=tmp_path / "a")
    assert result.trials[0].state == "complete"
    with pytest.raises(ConfigChangedError, match="precision was 'bf16' and is now 'fp32'"):
        run_study(on(spec, precision="32-true"), n_trials=1, folder=tmp_path / "a")
    for precision in ("16-mixed", "bf16-true"):
        with pytest.raises(InputError, match="precision must be one of"):
            on(spec, precision=precision)


def test_the_command_line_overrides_the_machine() -> None:
    options = parser().parse_args(
        [
            "run",
            "reviews",
            "--accelerator",
            "cpu",
            "--checkpoint-steps",
            "50",
            "--cache-gib",
            "2.5",
            "--logger",
            "csv",
            "--trainer",
            "deterministic=true",
            "--trainer",
            "profiler=simple",
        ]
    )
    machine = machine_of(options, RuntimeSettings(chunk=9, trainer={"benchmark": False}))
    assert machine == RuntimeSettings(
        chunk=9,
        accelerator="cpu",
        checkpoint_steps=50,
        cache_gib=2.5,
        logger="csv",
        trainer={"benchmark": False, "deterministic": True, "profiler": "simple"},
    )
    for pair, message in (("max_steps=3", "max_steps"), ("profiler", "KEY=VALUE"), ("precision=16", "fp32")):
        with pytest.raises(InputError, match=message):
            machine_of(parser().parse_args(["run", "reviews", "--trainer", pair]), RuntimeSettings())


def test_each_worker_has_an_environment_of_its_own() -> None:
    candidates = [Candidate(number=i, generation=0, params={}, replicate=0) for i in range(4)]
    given = [{"CUDA_VISIBLE_DEVICES": name} for name in ("0", "3")]
    with executor_of(seen_device, executor="processes", workers=2, environments=given) as pool:
        found = [o for _, o in pool.run(candidates) if o is not None]
    assert {o.payload["device"] for o in found} <= {"0", "3"}
    by_process: dict[int, set[str]] = {}
    for outcome in found:
        by_process.setdefault(outcome.payload["process"], set()).add(outcome.payload["device"])
    assert all(len(names) == 1 for names in by_process.values())
    assert len(set().union(*by_process.values())) == len(by_process)


def test_more_workers_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    assert worker_environments(RuntimeSettings(), executor="processes", workers=2) == (
        {"CUDA_VISIBLE_DEVICES": "2"},
        {"CUDA_VISIBLE_DEVICES": "5"},
    )
    assert worker_environments(RuntimeSettings(accelerator="cpu"), executor="processes", workers=8) == ()
    assert worker_environments(RuntimeSettings(), executor="inline", workers=1) == ()
    with pytest.raises(InputError, match="workers must be <= 2"):
        worker_environments(RuntimeSettings(), executor="processes", workers=3)
