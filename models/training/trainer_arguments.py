"""Checks of `lightning.Trainer` arguments against the DP accounting. Imports no torch."""

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from moo.core.errors import InputError
from moo.core.messages import Message

_UPDATE = "it would change the update between clipping and noise"
_STEPS = "it would take other steps than those charged; set training.steps"
_SAMPLER = "it would draw other batches than are accounted for"
_SPREAD = "a bank is trained on one device; give several jobs one each with workers"
_ROUNDING = "what is clipped and summed stays in fp32; set machine.precision for what is frozen"
_OWN_STATE = "a checkpoint must hold sampler, noise and steps; set machine.checkpoint_steps"

REFUSED: Mapping[str, str] = {
    "accumulate_grad_batches": _UPDATE,
    "gradient_clip_val": _UPDATE,
    "gradient_clip_algorithm": _UPDATE,
    "plugins": _UPDATE,
    "max_steps": _STEPS,
    "max_epochs": _STEPS,
    "min_steps": _STEPS,
    "min_epochs": _STEPS,
    "max_time": _STEPS,
    "fast_dev_run": _STEPS,
    "check_val_every_n_epoch": _STEPS,
    "overfit_batches": _SAMPLER,
    "limit_train_batches": _SAMPLER,
    "use_distributed_sampler": _SAMPLER,
    "strategy": _SPREAD,
    "num_nodes": _SPREAD,
    "devices": _SPREAD,
    "precision": _ROUNDING,
    "enable_checkpointing": _OWN_STATE,
    "inference_mode": "tensors made in inference mode cannot train",
    "detect_anomaly": "it stops at the first gradient that is not finite, which is counted and contributes zero here",
    "barebones": "it removes the callbacks that observe the steps",
    "accelerator": "set machine.accelerator",
}
ALLOWED = (
    "benchmark",
    "callbacks",
    "default_root_dir",
    "deterministic",
    "enable_autolog_hparams",
    "enable_model_summary",
    "enable_progress_bar",
    "limit_predict_batches",
    "limit_test_batches",
    "limit_val_batches",
    "log_every_n_steps",
    "logger",
    "model_registry",
    "num_sanity_val_steps",
    "profiler",
    "reload_dataloaders_every_n_epochs",
    "sync_batchnorm",
    "val_check_interval",
)
# By name, so that nothing is imported: each takes steps, or reads data, without being charged.
REFUSED_CALLBACKS: Mapping[str, str] = {
    "GradientAccumulationScheduler": _UPDATE,
    "LearningRateFinder": "it trains extra steps that are not charged",
    "BatchSizeFinder": "it trains extra steps that are not charged",
    "StochasticWeightAveraging": "it changes the learning rate and passes over the data once more",
    "ModelCheckpoint": _OWN_STATE,
    "OnExceptionCheckpoint": _OWN_STATE,
}


def has_tensorboard() -> bool:
    """Return True if a package is installed that writes TensorBoard's files."""
    return find_spec("tensorboard") is not None or find_spec("tensorboardX") is not None


def check_trainer(arguments: Mapping[str, Any]) -> None:
    """Raise if an argument or callback would break the DP accounting, before anything is spent.

    Raises:
        InputError: With the name of the argument or callback, and the reason.
    """
    for name in sorted(arguments):
        if name in REFUSED:
            raise InputError(
                "Trainer arguments must leave the DP accounting intact, got {name}: {reason}; leave it out.",
                name=name,
                reason=Message(REFUSED[name]),
            )
        if name not in ALLOWED:
            raise InputError(
                "Trainer arguments must be among {allowed}, got {name}; leave it out.",
                allowed=", ".join(ALLOWED),
                name=name,
            )
    callbacks = arguments.get("callbacks") or ()
    for callback in callbacks if isinstance(callbacks, (list, tuple)) else (callbacks,):
        for kind in type(callback).__mro__:
            if kind.__name__ in REFUSED_CALLBACKS:
                raise InputError(
                    "callbacks must leave the DP accounting intact, got {type}: {reason}; leave it out.",
                    type=kind.__name__,
                    reason=Message(REFUSED_CALLBACKS[kind.__name__]),
                )
