"""Conversion of messages about the memory of a task to the client's values and back."""

from __future__ import annotations

import datetime as dt

from mlrs.ledger.open_request import Explored
from mlrs.values.task_memory import TaskMemory
from mlrs.values.task_types import Ending, Expected, Measure, PastRun, Recalled, TaskInfo
from mlrs_proto import v1 as pb

_MEASURES: dict[pb.Measure.ValueType, Measure] = {
    pb.MEASURE_METRIC: Measure.METRIC,
    pb.MEASURE_VALIDATION_LOSS: Measure.VALIDATION_LOSS,
    pb.MEASURE_TRAINING_LOSS: Measure.TRAINING_LOSS,
}
_ENDINGS: dict[pb.Ending.ValueType, Ending] = {
    pb.ENDING_REACHED: Ending.REACHED,
    pb.ENDING_DIVERGED: Ending.DIVERGED,
    pb.ENDING_STOPPED: Ending.STOPPED,
    pb.ENDING_UNDER_WAY: Ending.UNDER_WAY,
}
_EXPLORED: dict[Explored | None, pb.Explore.ValueType] = {
    None: pb.EXPLORE_UNSPECIFIED,
    "careful": pb.EXPLORE_CAREFUL,
    "full": pb.EXPLORE_FULL,
    "none": pb.EXPLORE_NONE,
}


def explored_to_proto(explored: Explored | None) -> pb.Explore.ValueType:
    """Return the number of what a run takes from the memory of its task; `None`: it leaves it out."""
    return _EXPLORED[explored]


def recalled_from_proto(message: pb.Recalled) -> Recalled:
    """Return what the memory decided for a run."""
    return Recalled(
        why=message.why,
        decided=message.decided,
        measure=_MEASURES.get(message.measure),
        expected_low=message.expected_low if message.HasField("expected_low") else None,
        expected_high=message.expected_high if message.HasField("expected_high") else None,
    )


def task_from_proto(message: pb.Task) -> TaskInfo:
    """Return the task in a message."""
    return TaskInfo(
        name=message.name, runs=message.runs, update_time=message.update_time.ToDatetime(tzinfo=dt.UTC)
    )


def memory_from_proto(message: pb.GetTaskResponse) -> TaskMemory:
    """Return what is remembered of a task."""
    return TaskMemory(
        task=task_from_proto(message.task),
        runs=tuple(map(_past_run_from_proto, message.runs)),
        measure=_MEASURES.get(message.measure),
        curve=tuple(map(_expected_from_proto, message.curve)),
        best=_expected_from_proto(message.best) if message.HasField("best") else None,
        next=recalled_from_proto(message.next) if message.HasField("next") else None,
        next_arm=_expected_from_proto(message.next_arm) if message.HasField("next_arm") else None,
    )


def _past_run_from_proto(message: pb.PastRun) -> PastRun:
    return PastRun(
        id=message.run_id,
        time=message.time.ToDatetime(tzinfo=dt.UTC),
        ending=_ENDINGS.get(message.ending),
        policy=message.policy,
        learning_rate=message.learning_rate if message.HasField("learning_rate") else None,
        lr_offset=message.lr_offset,
        searched=message.searched,
        optimizer=message.optimizer,
        momentum=message.momentum if message.HasField("momentum") else None,
        horizon=message.horizon,
        batch_size=message.batch_size if message.HasField("batch_size") else None,
        metric=message.metric if message.HasField("metric") else None,
        higher_is_better=message.higher_is_better,
        validation_loss=message.validation_loss if message.HasField("validation_loss") else None,
        training_loss=message.training_loss if message.HasField("training_loss") else None,
        recalled=recalled_from_proto(message.recalled) if message.HasField("recalled") else None,
    )


def _expected_from_proto(message: pb.Expected) -> Expected:
    return Expected(
        policy=message.policy,
        learning_rate=message.learning_rate if message.HasField("learning_rate") else None,
        lr_offset=message.lr_offset,
        value=message.value,
        low=message.low,
        high=message.high,
    )
