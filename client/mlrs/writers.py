"""Functions for `on_advice=` that write the learning rate and the loss of each step to an experiment tracker.

    from mlrs import writers

    run = advisor.run("resnet18-cifar10", on_advice=writers.tensorboard(folder))

Each writes `mlrs/learning_rate` and `mlrs/loss` by the run's step. The tracker's library is imported when its
function here is called, and has to be installed. For several trackers at once, call several functions in one
of your own.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from mlrs.errors import InvalidArgumentError, UsageError
from mlrs.types import AdvisedStep

__all__ = ["mlflow", "tensorboard", "wandb"]

LEARNING_RATE, LOSS, STEP = "mlrs/learning_rate", "mlrs/loss", "mlrs/step"
"""What the trackers call them."""


class ScalarWriter(Protocol):
    """What is used of a `SummaryWriter`."""

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> Any:
        """Write a number."""

    def flush(self) -> Any:
        """Write what is still in memory."""


def tensorboard(writer: ScalarWriter | str | os.PathLike[str]) -> Callable[[AdvisedStep], object]:
    """Return a function that writes to TensorBoard.

    Args:
        writer: a `SummaryWriter` of `torch.utils.tensorboard` or of `tensorboardX`, such as the `experiment`
            of Lightning's `TensorBoardLogger`; or the folder for an event file of its own, which needs the
            package `tensorboard` only.

    Raises:
        UsageError: a folder is given, and `tensorboard` is not installed.
        InvalidArgumentError: it is neither a folder nor has `add_scalar`.
    """
    if isinstance(writer, (str, os.PathLike)):
        return _Scalars(_EventFile(writer))
    if not hasattr(writer, "add_scalar"):
        raise InvalidArgumentError(
            f"writer must be a SummaryWriter or a folder; is {writer!r:.100}", field="writer"
        )
    return _Scalars(writer)


def wandb(run: Any = None, *, same_steps: bool = False) -> Callable[[AdvisedStep], object]:
    """Return a function that writes to a run of Weights & Biases.

    Args:
        run: what `wandb.init` returned. Default: the run of this process.
        same_steps: whether your own `run.log` calls pass `step=`, counted as the steps of the run here are.
            They share their rows then. By default each advice is a row of its own, whose x axis is
            `mlrs/step`; W&B's own step counts these rows, too, so it would refuse a `step=` of yours that is
            behind.

    Raises:
        UsageError: `wandb` is not installed, or has no run yet.
    """
    if run is None:
        with _installed("wandb"):
            import wandb as library
        if (run := library.run) is None:
            raise UsageError("wandb has no run yet: call wandb.init() first, or give what it returned")
    if same_steps:
        return lambda told: run.log(
            {LEARNING_RATE: told.learning_rate, LOSS: told.loss},
            step=told.step,
        )
    run.define_metric(STEP, hidden=True)
    for name in (LEARNING_RATE, LOSS):
        run.define_metric(name, step_metric=STEP)
    return lambda told: run.log({LEARNING_RATE: told.learning_rate, LOSS: told.loss, STEP: told.step})


def mlflow(run: Any = None, *, client: Any = None) -> Callable[[AdvisedStep], object]:
    """Return a function that writes to a run of MLflow.

    Args:
        run: a run of MLflow, as `mlflow.start_run` returns it, or its id. Default: the active run.
        client: an `MlflowClient` of the store where that run is. Default: one of the tracking URI that is set
            now.

    Raises:
        UsageError: `mlflow` is not installed, or no run is active.
    """
    with _installed("mlflow"):
        import mlflow as library
        from mlflow.entities import Metric
    if run is None and (run := library.active_run()) is None:
        raise UsageError("mlflow has no active run: call mlflow.start_run() first, or give a run")
    run_id: str = run if isinstance(run, str) else run.info.run_id
    store = library.MlflowClient() if client is None else client

    def write(told: AdvisedStep) -> None:
        now = int(time.time() * 1000)
        numbers = {LEARNING_RATE: told.learning_rate, LOSS: told.loss}
        store.log_batch(run_id, [Metric(name, value, now, told.step) for name, value in numbers.items()])

    return write


class _Scalars:
    """Writes numbers through the interface of a `SummaryWriter`."""

    def __init__(self, writer: ScalarWriter) -> None:
        self._writer = writer

    def __call__(self, told: AdvisedStep) -> None:
        self._writer.add_scalar(LEARNING_RATE, told.learning_rate, told.step)
        self._writer.add_scalar(LOSS, told.loss, told.step)

    def flush(self) -> None:
        """Write what is still in memory; called at the end of a run."""
        self._writer.flush()


class _EventFile:
    """A `ScalarWriter` that needs neither PyTorch nor TensorFlow."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        with _installed("tensorboard"):
            from tensorboard.compat.proto.event_pb2 import Event
            from tensorboard.compat.proto.summary_pb2 import Summary
            from tensorboard.summary.writer.event_file_writer import EventFileWriter
        self._event, self._summary = Event, Summary
        self._file = EventFileWriter(os.fspath(folder))
        self._closing = weakref.finalize(self, self._file.close)

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None:
        """Write a number."""
        value = self._summary.Value(tag=tag, simple_value=_single(scalar_value))
        summary = self._summary(value=[value])
        self._file.add_event(self._event(wall_time=time.time(), step=global_step, summary=summary))

    def flush(self) -> None:
        """Write what is still in memory."""
        self._file.flush()


def _single(value: float) -> float:
    """Return a number that fits into single precision, as TensorBoard keeps it; too large is infinite."""
    return math.copysign(math.inf, value) if abs(value) > 3.4e38 else value


@contextlib.contextmanager
def _installed(package: str) -> Iterator[None]:
    """Say what to install where an import finds nothing."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise UsageError(f"{package} is not installed: pip install {package}") from error
