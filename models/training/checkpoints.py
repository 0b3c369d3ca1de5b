"""Checkpoints of a training; a resumed training ends in the same parameters, bit for bit.

A file (safetensors, mode 0600) holds the trained parameters of the shadows and the optimizers'
state. Its metadata hold the accountant's numbers: steps taken, noise multiplier, sampling rate, and
the states of the generators of batches and noise. The frozen base model is left out. Anyone who
reads the file can draw the noise again, as with the study's key: it stays in the study's folder,
and is removed when the trial is settled.

The charge of a crashed attempt follows from the file, which names the attempt that wrote it. At
most `every` steps separate two checkpoints, so an attempt with its last checkpoint at step s ran at
most to s + every. An attempt that resumes a checkpoint rewrites it under its own name, with its own
`every` and its first step; a file of another attempt proves nothing about it. If a checkpoint
cannot be written, the last one is removed, and a crash is charged in full.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from moo.core.errors import StorageError
from moo.core.messages import Message
from moo.models.dp.optimizer import ShadowNoise
from moo.models.dp.poisson_sampling import PoissonBatches

SUFFIX = ".safetensors"
_KEY = "moo.checkpoint"
# A file of another format is not resumed.
_FORMAT = b"2"


@dataclass(frozen=True, kw_only=True)
class CheckpointSettings:
    """Place and frequency of checkpoints.

    Attributes:
        path: File prefix, without extension.
        every: Steps between two checkpoints, >= 1.
        attempt: Name of the attempt that writes them, unique among attempts.
    """

    path: Path
    every: int
    attempt: str = ""


@dataclass(frozen=True, kw_only=True)
class Reach:
    """Progress of an attempt at a training.

    Attributes:
        step: Lower bound of the steps of every shadow that need not be run again.
        at_most: Upper bound of the steps that the attempt ran.
    """

    step: int
    at_most: int


def reach_of(path: Path, attempt: str = "") -> Reach | None:
    """Return the progress in an attempt's checkpoints; None without any, or with a damaged one.

    Shadows that are trained one after another leave no file for one that has just begun, so such an
    attempt may have run in full.

    Args:
        path: File prefix, see `CheckpointSettings`.
        attempt: Name of the attempt.
    """
    every_file = [_metadata(file) for file in checkpoint_files(path)]
    of_attempt = [meta for meta in every_file if meta is not None and meta.get("attempt") == attempt]
    if not of_attempt or None in every_file:
        return None
    steps, n_fits = of_attempt[0]["steps"], of_attempt[0]["parts"]
    at_most = steps if n_fits > 1 else max(min(m["step"] + m["every"], steps) - m["began"] for m in of_attempt)
    return Reach(step=min(m["step"] for m in of_attempt) if len(of_attempt) == n_fits else 0, at_most=at_most)


def checkpoint_files(path: Path) -> list[Path]:
    """Return a training's checkpoints: one for a bank, one per shadow for the Opacus engine."""
    return sorted([*path.parent.glob(f"{path.name}{SUFFIX}"), *path.parent.glob(f"{path.name}.shadow-*{SUFFIX}")])


def remove_checkpoints(path: Path) -> None:
    """Remove the checkpoints of a training."""
    for file in checkpoint_files(path):
        with suppress(FileNotFoundError):
            file.unlink()


class Checkpoints(lightning.Callback):
    """Callback that writes the checkpoints of one fit, and resumes one.

    Args:
        settings: Place and frequency.
        shadow: Shadow that the Opacus engine fits; None for a bank.
        n_fits: Number of fits of the training.
        identity: Bytes that decide every number of the fit; a checkpoint with others is not
            resumed.
        steps: Steps of the whole training.
        batches, noise: Owners of the generators whose states are kept.
        accountant: Numbers of the accountant, for readers of the file.

    Attributes:
        start: Steps that earlier attempts took; 0 without a checkpoint.
        notices: Messages for a person.
    """

    def __init__(
        self,
        settings: CheckpointSettings,
        *,
        shadow: int | None,
        n_fits: int,
        identity: Iterable[bytes],
        steps: int,
        batches: PoissonBatches,
        noise: ShadowNoise,
        accountant: Mapping[str, Any],
    ) -> None:
        name = settings.path.name + ("" if shadow is None else f".shadow-{shadow}") + SUFFIX
        self.path, self.every, self.start = settings.path.with_name(name), settings.every, 0
        self._attempt = settings.attempt
        self.notices: list[str] = []
        self._n_fits, self._steps, self._accountant = n_fits, steps, accountant
        self._batches, self._noise = batches, noise
        self._identity = _fingerprint([_FORMAT, *identity, json.dumps(_states(batches, noise, 0)).encode()])
        self._optimizer: dict[str, Tensor] = {}

    @property
    def done(self) -> bool:
        """Return True if the checkpoint holds the whole training."""
        return self.start == self._steps

    def resume(self, module: Any) -> None:
        """Resume the checkpoint of this fit, if there is one, and make the file this attempt's.

        Parameters and generators are set now, optimizers when the fit begins.
        """
        meta = _metadata(self.path)
        if meta is None or meta["identity"] != self._identity:
            with suppress(FileNotFoundError):
                self.path.unlink()
            return
        with safe_open(self.path, framework="pt") as file:
            # The file is no mapping.
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        self.start = meta["step"]
        self._save(tensors, meta | self._of_attempt())
        with torch.no_grad():
            for name, parameter in module.trained().items():
                parameter.copy_(tensors.pop(f"parameter.{name}"))
        module.observer.resume(tensors)
        self._optimizer = {name: t for name, t in tensors.items() if name.startswith("optimizer.")}
        module.non_finite, module.chunk = meta["non_finite"], meta["chunk"]
        self._batches.resume_at(self.start, [_decoded(s) for s in meta["sampling"]])
        for generator, state in zip(self._noise.generators, meta["noise"], strict=True):
            generator.bit_generator.state = _decoded(state)

    def on_train_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:  # noqa: ARG002
        """Restore the optimizers, which exist from here on."""
        if not self.start:
            return
        for i, part in enumerate(pl_module.dp_optimizer.original_optimizer.parts):
            state: dict[int, dict[str, Tensor]] = {}
            for name, tensor in self._optimizer.items():
                _, number, index, what = name.split(".")
                if int(number) == i:
                    state.setdefault(int(index), {})[what] = tensor
            part.load_state_dict({"state": state, "param_groups": part.state_dict()["param_groups"]})
        pl_module.dp_optimizer.steps_taken = self.start

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,  # noqa: ARG002
        pl_module: Any,
        outputs: Any,  # noqa: ARG002
        batch: Any,  # noqa: ARG002
        batch_idx: int,
    ) -> None:
        """Write a checkpoint after every `every` steps and after the last one."""
        step = self.start + batch_idx + 1
        if step % self.every == 0 or step == self._steps:
            self._write(step, pl_module)

    def _write(self, step: int, module: Any) -> None:
        optimizer = module.dp_optimizer
        tensors = {f"parameter.{n}": p for n, p in module.trained().items()} | module.observer.state()
        for i, part in enumerate(optimizer.original_optimizer.parts):
            for index, state in part.state_dict()["state"].items():
                tensors |= {f"optimizer.{i}.{index}.{n}": t for n, t in state.items() if isinstance(t, Tensor)}
        sampling, noise = _states(self._batches, self._noise, step)
        meta = {
            "identity": self._identity,
            "step": step,
            "steps": self._steps,
            "parts": self._n_fits,
            "non_finite": module.non_finite,
            "chunk": module.chunk,
            "sampling": sampling,
            "noise": noise,
            "accountant": dict(self._accountant),
            **self._of_attempt(),
        }
        self._save(tensors, meta)

    def _of_attempt(self) -> dict[str, Any]:
        """Return the metadata of the writing attempt."""
        return {"attempt": self._attempt, "began": self.start, "every": self.every}

    def _save(self, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
        raw = save({n: t.detach().cpu().contiguous() for n, t in tensors.items()}, {_KEY: json.dumps(meta)})
        temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with os.fdopen(os.open(temporary, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "wb") as out:
                out.write(raw)
                out.flush()
                os.fsync(out.fileno())
            os.replace(temporary, self.path)
        except OSError as error:
            self._without(temporary, error)

    def _without(self, temporary: Path, error: OSError) -> None:
        """Remove stale files after a failed write: an old checkpoint would claim too few steps."""
        try:
            temporary.unlink(missing_ok=True)
            self.path.unlink(missing_ok=True)
        except OSError as worse:
            raise StorageError(
                "A stale checkpoint must be removable, but {path} is not ({strerror}); remove it.",
                path=self.path,
                strerror=worse.strerror,
            ) from worse
        reason = error.strerror or type(error).__name__
        notice = Message("a checkpoint could not be written ({reason}): a crash is charged in full", reason=reason)
        if notice not in self.notices:
            self.notices.append(notice)


def _states(batches: PoissonBatches, noise: ShadowNoise, step: int) -> tuple[list[Any], list[Any]]:
    """Return the states of the generators before a step.

    Those of sampling are from before the step's batch was drawn, which may have happened by now.
    """
    sampling = [_encoded(s) for s in batches.states_before(step)]
    return sampling, [_encoded(g.bit_generator.state) for g in noise.generators]


def _fingerprint(parts: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8) + part)
    return digest.hexdigest()


def _metadata(path: Path) -> dict[str, Any] | None:
    """Return the metadata of a checkpoint; None if it is missing or damaged."""
    try:
        with safe_open(path, framework="np") as file:
            found: dict[str, Any] = json.loads((file.metadata() or {})[_KEY])
    except (OSError, SafetensorError, KeyError, ValueError):
        return None
    return found


def _encoded(state: Any) -> Any:
    """Return a generator's state as JSON values."""
    if isinstance(state, Mapping):
        return {k: _encoded(v) for k, v in state.items()}
    if isinstance(state, np.ndarray):
        return {"uint64": [int(x) for x in state]}
    return state if isinstance(state, str) else int(state)


def _decoded(state: Any) -> Any:
    """Undo `_encoded`."""
    if isinstance(state, Mapping):
        if "uint64" in state:
            return np.array(state["uint64"], np.uint64)
        return {k: _decoded(v) for k, v in state.items()}
    return state
