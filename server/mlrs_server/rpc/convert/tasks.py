"""Conversion of tasks, and of what is remembered of them."""

from __future__ import annotations

from mlrs_core.config import Measure
from mlrs_core.memory import Expected, PastRun
from mlrs_proto import v1 as pb
from mlrs_server.rpc.convert.configs import recalled_to_proto
from mlrs_server.rpc.convert.runs import time_to_proto
from mlrs_server.runs.remembering import TaskView
from mlrs_server.storage import RememberedTask

_PLAIN = (
    "run_id",
    "policy",
    "learning_rate",
    "lr_offset",
    "searched",
    "momentum",
    "horizon",
    "batch_size",
    "metric",
    "higher_is_better",
    "validation_loss",
    "training_loss",
)
"""The fields of a past run that the contract has by the same names."""


def task_to_proto(task: RememberedTask) -> pb.Task:
    """Return a task as a message."""
    return pb.Task(name=task.name, runs=task.runs, update_time=time_to_proto(task.time))


def view_to_proto(view: TaskView) -> pb.GetTaskResponse:
    """Return what is remembered of a task as a message."""
    fit = view.fit
    return pb.GetTaskResponse(
        task=task_to_proto(view.task),
        runs=map(_past_run_to_proto, view.runs),
        measure=pb.Measure.ValueType(Measure.UNSPECIFIED if fit is None else fit.evidence.measure),
        curve=map(_expected_to_proto, view.curve),
        best=None if fit is None else _expected_to_proto(fit.expected(fit.best)),
        next=recalled_to_proto(view.next.recalled),
        next_arm=None if view.next.expected is None else _expected_to_proto(view.next.expected),
    )


def _past_run_to_proto(past: PastRun) -> pb.PastRun:
    return pb.PastRun(
        time=time_to_proto(past.time),
        ending=pb.Ending.ValueType(past.ending),
        optimizer=past.optimizer.name.lower(),
        recalled=recalled_to_proto(past.recalled),
        **{name: getattr(past, name) for name in _PLAIN},
    )


def _expected_to_proto(expected: Expected) -> pb.Expected:
    return pb.Expected(
        policy=expected.arm.policy,
        learning_rate=expected.arm.learning_rate,
        lr_offset=expected.arm.lr_offset,
        value=expected.value,
        low=expected.low,
        high=expected.high,
    )
