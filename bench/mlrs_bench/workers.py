"""Processes that train, one training at a time each, with one thread each."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self, TypeVar

import mlrs
from mlrs_bench.cell import Cell, CellKey
from mlrs_bench.daemon import Address
from mlrs_bench.errors import BenchError, TrainingError
from mlrs_bench.models import ModelFile

if TYPE_CHECKING:  # torch is for the workers
    from mlrs_bench.task import Splits, Task

CONNECT_S = 60.0
"""How long a call of the daemon may take: machines that train may be busy."""


@dataclass(frozen=True, kw_only=True)
class Workshop:
    """What a worker builds its tasks and methods from. Travels to other processes."""

    cache: Path
    cifar10: Path | None
    task_file: Path | None
    models: Mapping[str, ModelFile]
    daemon: Address


R_co = TypeVar("R_co", covariant=True)


class Job(Protocol[R_co]):
    """Work for a worker, which comes to an `R_co`."""

    @property
    def digest(self) -> str:
        """Under which the result is kept."""
        ...

    def label(self) -> str:
        """Return what messages call it."""
        ...

    def done_by(self, trainer: Trainer) -> R_co:
        """Do it; in a worker's process."""
        ...


@dataclass(frozen=True)
class CellJob:
    """A training to do."""

    key: CellKey
    digest: str
    """Under which its cell is kept."""

    def label(self) -> str:
        """Return what messages call it."""
        key = self.key
        return f"{key.task} / {key.optimizer}, {key.method}, seed {key.seed}"

    def done_by(self, trainer: Trainer) -> Cell:
        """Train."""
        return trainer.train(self.key, self.digest)


R = TypeVar("R")


class Workers:
    """Worker processes. A context manager."""

    def __init__(self, workshop: Workshop, count: int) -> None:
        """Start up to `count` processes, as they are needed."""
        self._count = count
        self._pool = ProcessPoolExecutor(
            count,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_begin,
            initargs=(workshop,),
        )

    def run(self, jobs: Sequence[Job[R]], keep: Callable[[str, R], None]) -> None:
        """Do these jobs, and hand each result on as it comes.

        On an interrupt or an error, jobs under way are finished and handed on, others not begun.

        Raises:
            TrainingError: one failed by a defect; after that.
            KeyboardInterrupt: after that.
        """
        running: dict[Future[R], Job[R]] = {}
        try:
            for job in jobs:
                if len(running) == self._count:
                    _collect(running, wait(running, return_when=FIRST_COMPLETED).done, keep)
                running[self._pool.submit(_work, job)] = job
            while running:
                _collect(running, wait(running, return_when=FIRST_COMPLETED).done, keep)
        except (KeyboardInterrupt, BenchError):
            with suppress(BenchError):  # the first error is the one to tell
                _collect(running, wait(running).done, keep)
            raise

    def __enter__(self) -> Self:
        """Return the workers."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait for trainings under way, and end the processes."""
        self._pool.shutdown(cancel_futures=True)


def _collect(
    running: dict[Future[R], Job[R]], done: Iterable[Future[R]], keep: Callable[[str, R], None]
) -> None:
    """Hand on what these came to.

    Raises:
        TrainingError: one failed; after all the others were handed on.
    """
    failed: TrainingError | None = None
    for future in done:
        job = running.pop(future)
        try:
            result = future.result()
        except TrainingError as error:
            failed = error
        except Exception as error:  # noqa: BLE001  # the process ended, or its answer cannot be read
            failed = _failure(job, error)
        else:
            keep(job.digest, result)
    if failed is not None:
        raise failed


def _failure(job: Job[object], error: Exception) -> TrainingError:
    return TrainingError(f"{job.label()}: {type(error).__name__}: {error}")


# What follows runs in the workers' processes.

_trainer: list[Trainer | Exception] = []
"""The one of this process, or why there is none."""


class Trainer:
    """What a worker keeps between trainings: the tasks' data, and the connection to the daemon."""

    def __init__(self, workshop: Workshop) -> None:
        import torch

        from mlrs_bench.methods import all_methods
        from mlrs_bench.tasks import collect_tasks

        torch.set_num_threads(1)
        tasks = collect_tasks(cache=workshop.cache, cifar10=workshop.cifar10, task_file=workshop.task_file)
        self.tasks = {task.name: task for task in tasks}
        """The tasks, by name."""
        self._methods = {method.name: method for method in all_methods(workshop.models)}
        self.advisor = mlrs.connect(workshop.daemon.target, timeout_s=CONNECT_S)
        self._splits: dict[str, Splits] = {}

    def train(self, key: CellKey, run_id: str) -> Cell:
        """Train with one of the benchmark's methods."""
        from mlrs_bench.training import train

        task = self.tasks[key.task]
        return train(key, task, self.splits(task), self._methods[key.method], self.advisor, run_id)

    def splits(self, task: Task) -> Splits:
        """Return the data of a task, kept until another task's is wanted."""
        if task.name not in self._splits:
            self._splits = {task.name: task.load()}
        return self._splits[task.name]


def _begin(workshop: Workshop) -> None:
    """Prepare a worker: signals are for the process that started it, and without that one it ends."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ["MLRS_QUIET"] = "1"  # the table says how each training ended
    try:
        _trainer.append(Trainer(workshop))
    except Exception as error:  # noqa: BLE001  # raised by the first training: from here, none would read it
        _trainer.append(error)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _work(job: Job[R]) -> R:
    """Do a job.

    Raises:
        TrainingError: it failed; as text, since not every exception can travel between processes.
    """
    (trainer,) = _trainer
    try:
        if isinstance(trainer, Exception):
            raise trainer
        return job.done_by(trainer)
    except Exception as error:
        raise _failure(job, error) from error
