"""Executor that evaluates in spawned worker processes."""

import multiprocessing
import os
import pickle
import signal
import threading
import time
import traceback
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from types import TracebackType
from typing import Any

from moo.core.errors import InputError, MachineError
from moo.search.executors.base import Evaluate, Executor, safely
from moo.search.types import Candidate, Outcome

# Seconds between two looks of a worker at its driver.
_LOOK = 0.2
# Seconds that a worker is given to end by itself.
_PATIENCE = 5.0


@dataclass(frozen=True)
class _Worker:
    """A process and the driver's end of its pipe."""

    process: SpawnProcess
    pipe: Connection

    def answer(self) -> tuple[str, Any] | None:
        """Return the message of the process; None if it died without one.

        Call it when one of `signs` is ready.
        """
        try:
            return self.pipe.recv() if self.pipe.poll() else None
        except (EOFError, OSError):
            return None

    @property
    def signs(self) -> tuple[Connection, int]:
        """What becomes ready when the process sends something or dies."""
        return self.pipe, self.process.sentinel

    def end(self, *, at_once: bool) -> None:
        self.pipe.close()
        if not at_once:
            self.process.join(_PATIENCE)
        if self.process.is_alive():
            self.process.kill()
        self.process.join()


class Processes(Executor):
    """One pool of spawned processes, each with the evaluation loaded once.

    A process that dies takes one candidate with it and is replaced; the others go on.
    """

    def __init__(self, evaluate: Evaluate, workers: int, environments: Sequence[Mapping[str, str]]) -> None:
        self._evaluate, self._environments = evaluate, environments
        self._pickled = b""
        self._workers: list[_Worker | None] = [None] * workers

    def start(self, jobs: int) -> None:
        needed = range(min(jobs, len(self._workers)))
        missing = [slot for slot in needed if not (worker := self._workers[slot]) or not worker.process.is_alive()]
        for slot in missing:
            self._workers[slot] = self._start_worker(slot)
        for slot in missing:
            self._await_ready(slot)

    def run(self, candidates: Sequence[Candidate]) -> Iterator[tuple[Candidate, Outcome | None]]:
        self.start(len(candidates))
        waiting, busy = deque(candidates), dict[int, Candidate]()
        while waiting or busy:
            for slot, worker in enumerate(self._workers):
                if worker is not None and slot not in busy and waiting:
                    busy[slot] = waiting.popleft()
                    self._send(worker, busy[slot])
            for slot in self._ready(busy):
                candidate = busy.pop(slot)
                yield candidate, self._outcome(slot, renew=bool(waiting))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self._workers:
            if worker is not None:
                worker.end(at_once=kind is not None)
        self._workers = [None] * len(self._workers)

    def _start_worker(self, slot: int) -> _Worker:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        environment = dict(self._environments[slot]) if self._environments else {}
        process = context.Process(target=_work, args=(theirs, self._portable(), environment, os.getpid()))
        process.start()
        # a copy of their end in this process would keep the pipe open after the worker's death
        theirs.close()
        return _Worker(process, ours)

    def _portable(self) -> bytes:
        if not self._pickled:
            try:
                self._pickled = pickle.dumps(self._evaluate)
            except (pickle.PicklingError, AttributeError, TypeError) as error:
                raise InputError(
                    "evaluate must be picklable for executor='processes', got {evaluate!r} ({error}); define "
                    "it at the top level of a module, or use executor='inline'.",
                    evaluate=self._evaluate,
                    error=error,
                ) from None
        return self._pickled

    def _await_ready(self, slot: int) -> None:
        worker = self._workers[slot]
        assert worker is not None
        wait(worker.signs)
        answer = worker.answer()
        if answer is None:
            worker.process.join()
            raise MachineError(
                "worker processes must start, but one ended with exit code {exitcode} before its first "
                "trial; a script that searches with processes must do so under `if __name__ == "
                "'__main__':`.",
                exitcode=worker.process.exitcode,
            )
        if answer[0] == "unfit":
            raise InputError(
                "evaluate must load in a worker process, but: {answer}; or use executor='inline'.", answer=answer[1]
            )

    @staticmethod
    def _send(worker: _Worker, candidate: Candidate) -> None:
        try:
            worker.pipe.send(candidate)
        except OSError:
            # it has died since its last trial; its sentinel says so in the next look
            return

    def _ready(self, busy: Mapping[int, Candidate]) -> list[int]:
        signs = {sign: slot for slot in busy if (worker := self._workers[slot]) for sign in worker.signs}
        return sorted({signs[sign] for sign in wait(list(signs))})  # type: ignore[index]

    def _outcome(self, slot: int, *, renew: bool) -> Outcome | None:
        """Return the outcome of a worker; None if it died.

        A dead worker is replaced where candidates are waiting.
        """
        worker = self._workers[slot]
        assert worker is not None
        answer = worker.answer()
        if answer is None:
            worker.end(at_once=True)
            self._workers[slot] = None
            if renew:
                self._workers[slot] = self._start_worker(slot)
                self._await_ready(slot)
            return None
        kind, value = answer
        if kind == "raised":
            raise value
        outcome: Outcome = value
        return outcome


def _work(pipe: Connection, pickled: bytes, environment: Mapping[str, str], driver: int) -> None:
    """Evaluate candidates until the driver closes the pipe or ends.

    What trains on after its driver is charged to nobody, so the process ends with it.
    """
    os.environ.update(environment)
    # the driver alone answers to Ctrl-C, and ends its workers
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(driver,), daemon=True).start()
    try:
        evaluate: Evaluate = pickle.loads(pickled)
    except Exception as error:
        # whatever its module raises is for the driver to say
        pipe.send(("unfit", f"{type(error).__name__}: {error}"))
        return
    pipe.send(("ready", None))
    while True:
        try:
            candidate = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send(("done", safely(evaluate, candidate)))
        except Exception as error:
            # raised again in the driver
            pipe.send(("raised", _portable_error(error)))


def _portable_error(error: Exception) -> Exception:
    """Return an error that survives the pipe, with the worker's traceback as a note."""
    report = "".join(traceback.format_exception(error))
    error.add_note(f"In a worker process:\n{report}")
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        # an exception class may break pickling in any way
        return RuntimeError(report)
    return error


def _end_with(driver: int) -> None:
    while os.getppid() == driver:
        time.sleep(_LOOK)
    os._exit(1)
