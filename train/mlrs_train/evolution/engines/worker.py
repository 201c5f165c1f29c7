"""A process that computes one job after the other, and its handle in the process that gives them."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import signal
import threading
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from typing import Any, TypeVar, final

import torch

from mlrs_train.evolution.engines.engine import Job, JobOutcome

T = TypeVar("T")

SPAWN = multiprocessing.get_context("spawn")
"""A forked child would inherit locks that torch's threads hold."""


class WorkerDiedError(Exception):
    """The worker ended before it answered."""


@final
class WorkerProcess:
    """A worker process. What goes to and fro is pickled: both ends are this program's.

    It has a pipe of its own, so that its death is the end of a stream, whatever it was doing.
    """

    def __init__(self) -> None:
        """Start the process; it is ready after it has imported torch."""
        self.connection, theirs = SPAWN.Pipe()
        self._process = SPAWN.Process(target=_serve, args=(theirs,), name="mlrs-worker", daemon=True)
        resource_tracker.ensure_running()  # the first start would unblock the signal
        default = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            # A terminal sends Ctrl-C to all processes. Who is born with the signal blocked never sees it.
            self._process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, default)
            theirs.close()

    def give(self, job: Job[Any]) -> None:
        """Hand it a job. If it is dead, `take` will say so."""
        with contextlib.suppress(OSError):
            # Not `send`: torch teaches that to pass tensors as shared memory, which dies with a worker.
            self.connection.send_bytes(pickle.dumps(job))

    def take(self, job: Job[T]) -> T:
        """Return what the job that it was given gave; wait for it.

        Raises:
            WorkerDiedError: it died over it.
            EngineError: the job raised an error.
        """
        try:
            data = self.connection.recv_bytes()
        except (EOFError, OSError) as error:
            raise WorkerDiedError(self._epitaph()) from error
        outcome: JobOutcome[T] = pickle.loads(data)  # noqa: S301 - from our own child, over a private pipe  # nosec B301
        return outcome.unwrap(job)

    def end(self) -> None:
        """End it, whatever it is doing."""
        self._process.kill()
        self._process.join()
        self._process.close()
        self.connection.close()

    def _epitaph(self) -> str:
        self._process.join()
        code = self._process.exitcode or 0
        return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"


def _serve(connection: Connection) -> None:
    """Compute jobs until the parent is gone."""
    torch.set_num_threads(1)  # as the parent does: more would sum in another order
    threading.Thread(target=_end_with_parent, daemon=True).start()
    while True:
        try:
            data = connection.recv_bytes()
        except EOFError:
            return
        job = pickle.loads(data)  # noqa: S301 - from our own parent, over a private pipe  # nosec B301
        connection.send_bytes(pickle.dumps(JobOutcome.of(job)))


def _end_with_parent() -> None:
    """End this process when its parent has ended, in the middle of a job too."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
    os._exit(1)
