"""Checkpoints of a training, and going on from one to the parameters that an uninterrupted run has, bit for bit.

A file (safetensors, mode 0600) holds what the shadows trained, the optimizers' state, and in its metadata the accountant's: steps
taken, noise multiplier, sampling rate, and where the generators of batches and noise stand. The frozen base model is left out. Whoever
reads it can draw the noise again, as with the study's key: it stays in the study's folder, and goes when the trial is settled.

What a crashed attempt is charged follows from the file, which names the attempt that wrote it. At most `every` steps lie between
two checkpoints, so an attempt whose last one stands at step s ran at most to s + every. An attempt that takes a checkpoint up
writes it anew under its own name, with its own `every` and where it began; a file of another attempt says nothing of it. Where one
cannot be written, the last is removed, and a crash is charged in full.
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
from moo.models.dp.optimizer import ShadowNoise
from moo.models.dp.poisson_sampling import PoissonBatches

SUFFIX = ".safetensors"
_KEY = "moo.checkpoint"
_FORMAT = b"2"  # a file of another is not taken up


@dataclass(frozen=True, kw_only=True)
class CheckpointSettings:
    """Where and how often.

    Attributes:
        path: Of the files, without their endings.
        every: Steps between two, >= 1.
        attempt: Whose they are; no other attempt may have the name.
    """

    path: Path
    every: int
    attempt: str = ""


@dataclass(frozen=True, kw_only=True)
class Reach:
    """How far an attempt at a training came.

    Attributes:
        step: Steps of every shadow that need not be run again, at least.
        at_most: Steps that the attempt ran, at most.
    """

    step: int
    at_most: int


def reach_of(path: Path, attempt: str = "") -> Reach | None:
    """What the checkpoints of a training say of an attempt; None where none is of it, or one is damaged.

    Shadows that are trained one after another leave no file of one that has just begun, so there an attempt may have run in full.

    Args:
        path, attempt: As in `CheckpointSettings`.
    """
    found = [_metadata(file) for file in checkpoint_files(path)]
    told = [meta for meta in found if meta is not None and meta.get("attempt") == attempt]
    if not told or None in found:
        return None
    steps, parts = told[0]["steps"], told[0]["parts"]
    at_most = steps if parts > 1 else max(min(m["step"] + m["every"], steps) - m["began"] for m in told)
    return Reach(step=min(m["step"] for m in told) if len(told) == parts else 0, at_most=at_most)


def checkpoint_files(path: Path) -> list[Path]:
    """The checkpoints of one training: one of a bank, one a shadow of the reference path."""
    return sorted([*path.parent.glob(f"{path.name}{SUFFIX}"), *path.parent.glob(f"{path.name}.shadow-*{SUFFIX}")])


def remove_checkpoints(path: Path) -> None:
    """Remove the checkpoints of a training."""
    for file in checkpoint_files(path):
        with suppress(FileNotFoundError):
            file.unlink()


class Checkpoints(lightning.Callback):
    """Writes checkpoints of one fit, and takes one up.

    Args:
        settings: Where and how often.
        shadow: Shadow of the reference path, which trains one after another; None for a bank.
        n_fits: Number of fits of the training.
        identity: What decides every number of the fit; a checkpoint of another is not taken up.
        steps: Of the whole training.
        batches, noise: Whose generators are kept.
        accountant: What the accountant knows, for whoever reads the file.
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
        self._n_fits, self._steps, self._batches, self._noise, self._accountant = (
            n_fits,
            steps,
            batches,
            noise,
            accountant,
        )
        self._identity = _fingerprint([_FORMAT, *identity, json.dumps(_states(batches, noise, 0)).encode()])
        self._optimizer: dict[str, Tensor] = {}

    @property
    def done(self) -> bool:
        """Whether the checkpoint holds the whole training."""
        return self.start == self._steps

    def resume(self, module: Any) -> None:
        """Take up the checkpoint, if there is one of this fit: parameters and generators now, the rest when the fit begins.

        The file is this attempt's from here on.
        """
        meta = _metadata(self.path)
        if meta is None or meta["identity"] != self._identity:
            with suppress(FileNotFoundError):
                self.path.unlink()
            return
        with safe_open(self.path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
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
        """Optimizers exist from here on."""
        if not self.start:
            return
        for i, part in enumerate(pl_module.dp_optimizer.original_optimizer.parts):
            state: dict[int, dict[str, Tensor]] = {}
            for name, tensor in self._optimizer.items():
                _, of, index, what = name.split(".")
                if int(of) == i:
                    state.setdefault(int(index), {})[what] = tensor
            part.load_state_dict({"state": state, "param_groups": part.state_dict()["param_groups"]})
        pl_module.dp_optimizer.steps_taken = self.start

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int  # noqa: ARG002
    ) -> None:  # fmt: skip
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
            "identity": self._identity, "step": step, "steps": self._steps, "parts": self._n_fits,
            "non_finite": module.non_finite, "chunk": module.chunk,
            "sampling": sampling, "noise": noise, "accountant": dict(self._accountant), **self._of_attempt(),
        }  # fmt: skip
        self._save(tensors, meta)

    def _of_attempt(self) -> dict[str, Any]:
        """What a file says of the attempt that wrote it."""
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
        """An older checkpoint would say that fewer steps ran than did."""
        try:
            temporary.unlink(missing_ok=True)
            self.path.unlink(missing_ok=True)
        except OSError as worse:
            raise StorageError(
                "a stale checkpoint must go, but {path} does not: {strerror}.", path=self.path, strerror=worse.strerror
            ) from worse
        notice = f"a checkpoint could not be written ({error.strerror}): a crash is charged in full"
        if notice not in self.notices:
            self.notices.append(notice)


def _states(batches: PoissonBatches, noise: ShadowNoise, step: int) -> tuple[list[Any], list[Any]]:
    """Where the generators stand before a step: of sampling as they stood before its batch was drawn, which may be drawn by now."""
    sampling = [_encoded(s) for s in batches.states_before(step)]
    return sampling, [_encoded(g.bit_generator.state) for g in noise.generators]


def _fingerprint(parts: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8) + part)
    return digest.hexdigest()


def _metadata(path: Path) -> dict[str, Any] | None:
    """What a checkpoint says of itself; None if it is not there or damaged."""
    try:
        with safe_open(path, framework="np") as file:
            found: dict[str, Any] = json.loads((file.metadata() or {})[_KEY])
    except (OSError, SafetensorError, KeyError, ValueError):
        return None
    return found


def _encoded(state: Any) -> Any:
    """A generator's state as JSON holds it."""
    if isinstance(state, Mapping):
        return {k: _encoded(v) for k, v in state.items()}
    return (
        {"uint64": [int(x) for x in state]}
        if isinstance(state, np.ndarray)
        else state
        if isinstance(state, str)
        else int(state)
    )


def _decoded(state: Any) -> Any:
    if isinstance(state, Mapping):
        if "uint64" in state:
            return np.array(state["uint64"], np.uint64)
        return {k: _decoded(v) for k, v in state.items()}
    return state
