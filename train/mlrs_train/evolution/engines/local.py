"""The engine that uses several cores of this machine."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from multiprocessing import connection
from typing import Any, TypeVar, final

from mlrs_train.evolution.engines.engine import ATTEMPTS, EngineError, Job
from mlrs_train.evolution.engines.worker import WorkerDiedError, WorkerProcess

T = TypeVar("T")


@final
class LocalProcesses:
    """`JobEngine` of worker processes, which start when they are first needed and end with this process.

    A worker that dies is replaced, and its job computed again. As jobs are pure, nothing is lost.
    """

    def __init__(self, workers: int) -> None:
        """Use up to this many processes, 1 or more."""
        self.workers = workers
        self._idle: list[WorkerProcess] = []
        self._busy: dict[Any, tuple[WorkerProcess, int]] = {}

    def compute(self, jobs: Sequence[Job[T]]) -> list[T]:
        """Return what the jobs give, in their order.

        Raises:
            EngineError: a job raised an error, or no worker survived it.
        """
        try:
            return self._compute(jobs)
        except BaseException:
            self.close()  # a worker that is still busy would answer the next call
            raise

    def _compute(self, jobs: Sequence[Job[T]]) -> list[T]:
        waiting, deaths = deque(range(len(jobs))), [0] * len(jobs)
        results: dict[int, T] = {}
        while len(results) < len(jobs):
            while waiting and len(self._busy) < self.workers:
                index = waiting.popleft()
                self._give(jobs[index], index)
            for ready in connection.wait(list(self._busy)):
                worker, index = self._busy[ready]
                try:
                    results[index] = worker.take(jobs[index])
                except WorkerDiedError as death:
                    deaths[index] += 1
                    _check(jobs[index], deaths[index], death)
                    worker.end()
                    waiting.appendleft(index)
                else:
                    self._idle.append(worker)
                del self._busy[ready]
        return [results[index] for index in range(len(jobs))]

    def _give(self, job: Job[Any], index: int) -> None:
        """Hand a job to an idle worker or to a new one."""
        worker = self._idle.pop() if self._idle else WorkerProcess()
        self._busy[worker.connection] = worker, index
        worker.give(job)

    def close(self) -> None:
        """End all workers, at once."""
        for worker in [*self._idle, *(worker for worker, _ in self._busy.values())]:
            worker.end()
        self._idle, self._busy = [], {}


def _check(job: Job[Any], deaths: int, last: WorkerDiedError) -> None:
    """Give up on a job that no worker survives."""
    if deaths >= ATTEMPTS:
        raise EngineError(
            f"{job.name} was given to {deaths} workers, and each died over it (the last: {last}); "
            "if memory ran out, take fewer workers or a smaller population"
        )
