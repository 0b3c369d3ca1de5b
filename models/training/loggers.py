"""Lightning loggers and callbacks of a training: TensorBoard where it is installed, else CSV, or any other that is handed in.

Losses and batch sizes read private units without noise. They are logged where results stay inside, and left out where a release policy
lets numbers leave; step sizes and the standard deviation of the noise are public.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger

from moo.models.training.trainer_arguments import check_trainer, has_tensorboard


@dataclass(frozen=True, kw_only=True)
class LogSettings:
    """What is logged, and where.

    Attributes:
        kind: "auto", "csv", "tensorboard"; "none" for those alone that `trainer` names.
        folder: Of all logs.
        name: Of this training.
        private: Whether numbers that read private units are logged.
    """

    kind: str
    folder: Path
    name: str
    private: bool = True


def trainer_options(trainer: dict[str, Any], logs: LogSettings | None, shadow: int | None) -> dict[str, Any]:
    """Arguments of one fit's Trainer: loggers and callbacks of its own, made here where they were handed in as functions.

    Args:
        trainer: As the user gave them; "logger" and "callbacks" may be functions of the training's name.
        logs: What moo itself logs.
        shadow: Shadow of the reference path.

    Raises:
        InputError: If an argument or callback would break the DP accounting.
    """
    name = ("training" if logs is None else logs.name) + ("" if shadow is None else f"-shadow-{shadow}")
    out = {k: v(name) if k in ("logger", "callbacks") and callable(v) else v for k, v in trainer.items()}
    check_trainer(out)
    if logs is not None and logs.kind != "none" and "logger" not in out:
        out["logger"] = _logger(logs, name)
    given = out.get("callbacks") or []
    out["callbacks"] = [*(given if isinstance(given, (list, tuple)) else [given])]
    if out.get("logger"):
        out["callbacks"].append(StepLog(private=logs is None or logs.private))
    return out


def _logger(logs: LogSettings, name: str) -> Logger:
    logs.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    board = logs.kind == "tensorboard" or (logs.kind == "auto" and has_tensorboard())
    return TensorBoardLogger(logs.folder, name) if board else CSVLogger(logs.folder, name, flush_logs_every_n_steps=1)


class StepLog(lightning.Callback):
    """Writes a line a step to every logger of the Trainer, each `log_every_n_steps`.

    Args:
        private: Whether losses and batch sizes are among the numbers.
    """

    def __init__(self, *, private: bool) -> None:
        self._private = private

    def on_train_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:  # noqa: ARG002
        pl_module.logs_losses = self._private

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int  # noqa: ARG002
    ) -> None:  # fmt: skip
        optimizer = pl_module.dp_optimizer
        if optimizer.steps_taken % trainer.log_every_n_steps:  # type: ignore[attr-defined]
            return
        told = {f"lr/{i}": group["lr"] for i, group in enumerate(optimizer.param_groups)}
        told["noise_std"] = optimizer.noise_multiplier * optimizer.max_grad_norm if optimizer.noise_multiplier else 0.0
        if self._private:
            told["units"] = float(batch.present.sum(1).float().mean())
            told |= {f"loss/{k}": float(loss) for k, loss in enumerate(pl_module.losses)}
        for logger in trainer.loggers:
            logger.log_metrics(told, step=optimizer.steps_taken)
