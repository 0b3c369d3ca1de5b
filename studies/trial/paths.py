"""Paths of a trial's checkpoints and logs, and the progress of a killed attempt."""

import shutil
from datetime import date
from pathlib import Path

from moo.core.atomic_files import write_whole
from moo.core.trial_record import STATUS_QUO_TRIAL
from moo.models.training.checkpoints import CheckpointSettings, Reach, reach_of, remove_checkpoints
from moo.models.training.loggers import LogSettings
from moo.studies.setup.prepared import PreparedStudy

_DAY = "as-of"


def day_of(folder: Path) -> date:
    """Return the day at which the study in a folder is judged; today if none has started there."""
    path = folder / _DAY
    return date.fromisoformat(path.read_text(encoding="ascii")) if path.is_file() else date.today()


def keep_day(folder: Path, day: date) -> None:
    """Write down the day at which a study is judged: its later calls use the same."""
    write_whole(folder / _DAY, day.isoformat())


def checkpoint_of(prepared: PreparedStudy, number: int, attempt: str) -> CheckpointSettings | None:
    """Return the checkpoint settings of a trial; None if the study keeps no checkpoints."""
    every = prepared.spec.machine.checkpoint_steps
    path = _checkpoints(prepared.folder, number)
    return CheckpointSettings(path=path, every=every, attempt=attempt) if every else None


def logs_of(prepared: PreparedStudy, number: int) -> LogSettings:
    """Return the log settings of a trial."""
    return LogSettings(
        kind=prepared.spec.machine.logger,
        folder=prepared.folder / "logs",
        name=_name(number),
        private=prepared.context.may_log_private,
    )


def reached(folder: Path, number: int, attempt: str, *, goes_on: bool) -> Reach | None:
    """Return the progress of a killed attempt; remove checkpoints that nobody resumes."""
    path = _checkpoints(folder, number)
    reach = reach_of(path, attempt)
    if not goes_on:
        remove_checkpoints(path)
    return reach


def forget_trial(folder: Path, number: int) -> None:
    """Remove the checkpoints of a trial that is settled."""
    remove_checkpoints(_checkpoints(folder, number))


def forget_all(folder: Path) -> None:
    """Remove all checkpoints of a finished study."""
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)


def _checkpoints(folder: Path, number: int) -> Path:
    return folder / "checkpoints" / _name(number)


def _name(number: int) -> str:
    return "reference" if number == STATUS_QUO_TRIAL else f"trial-{number:04d}"
