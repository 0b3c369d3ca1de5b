"""Loggers and callbacks of a training: TensorBoard if installed, else CSV, or the user's.

Losses and batch sizes read private units without noise. They are logged where results stay inside,
and left out where a release policy lets numbers leave; step sizes and the standard deviation of the
noise are public.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger

from moo.models.training.trainer_arguments import check_trainer, has_tensorboard


@dataclass(frozen=True, kw_only=True)
class LogSettings:
    """Content and place of logs.

    Attributes:
        kind: "auto", "csv" or "tensorboard"; "none" for the loggers in `trainer` alone.
        folder: Folder of all logs.
        name: Name of the training.
        private: True to log numbers that read private units.
    """

    kind: str
    folder: Path
    name: str
    private: bool = True


def trainer_options(trainer: dict[str, Any], logs: LogSettings | None, shadow: int | None) -> dict[str, Any]:
    """Return the Trainer arguments of one fit, with its own loggers and callbacks.

    Args:
        trainer: The user's arguments; "logger" and "callbacks" may be functions of the training's
            name, called here.
        logs: moo's own logging.
        shadow: Shadow that the Opacus engine fits; None for a bank.

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
    """Callback that writes a line to every logger of the Trainer, each `log_every_n_steps`.

    Args:
        private: True to include losses and batch sizes.
    """

    def __init__(self, *, private: bool) -> None:
        self._private = private

    def on_train_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:  # noqa: ARG002
        """Make the module keep its losses, if they are logged."""
        pl_module.logs_losses = self._private

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: Any,
        outputs: Any,  # noqa: ARG002
        batch: Any,
        batch_idx: int,  # noqa: ARG002
    ) -> None:
        """Write the numbers of one step."""
        optimizer = pl_module.dp_optimizer
        if optimizer.steps_taken % trainer.log_every_n_steps:  # type: ignore[attr-defined]
            return
        numbers = {f"lr/{i}": group["lr"] for i, group in enumerate(optimizer.param_groups)}
        noisy = optimizer.noise_multiplier
        numbers["noise_std"] = optimizer.noise_multiplier * optimizer.max_grad_norm if noisy else 0.0
        if self._private:
            numbers["units"] = float(batch.present.sum(1).float().mean())
            numbers |= {f"loss/{k}": float(loss) for k, loss in enumerate(pl_module.losses)}
        for logger in trainer.loggers:
            logger.log_metrics(numbers, step=optimizer.steps_taken)
