"""The memory of a task: how its runs ended, and what the next run begins with because of it."""

from __future__ import annotations

import datetime as dt
import enum
from dataclasses import dataclass


class Measure(enum.StrEnum):
    """What the measure of how a run ended is."""

    METRIC = "metric"
    """The caller's own: `metric` of `Run.finish`."""
    VALIDATION_LOSS = "validation_loss"
    """The newest validation loss."""
    TRAINING_LOSS = "training_loss"
    """The mean training loss of the last twentieth."""

    @property
    def words(self) -> str:
        """Its name for people."""
        return self.value.replace("_", " ")


class Ending(enum.StrEnum):
    """How a run ended."""

    REACHED = "reached"
    """It reached its horizon."""
    DIVERGED = "diverged"
    """It diverged."""
    STOPPED = "stopped"
    """It was finished before its horizon, or has not been heard of for long."""
    UNDER_WAY = "under_way"
    """It has not ended."""


@dataclass(frozen=True, kw_only=True)
class Recalled:
    """What the memory of a task decided for a run when it was created."""

    why: str
    """Why, in a sentence."""
    decided: bool
    """Whether it decided anything; otherwise the run begins as one without memory does."""
    measure: Measure | None = None
    """What `expected_low` and `expected_high` measure. `None`: nothing can be expected."""
    expected_low: float | None = None
    """The run is expected to end at this or above; `None`: there is no such bound."""
    expected_high: float | None = None
    """The run is expected to end at this or below; `None`: there is no such bound."""

    def __str__(self) -> str:
        """Return the reason, and what is expected of the run, in one line."""
        low, high = self.expected_low, self.expected_high
        if self.measure is None or (low is None and high is None):
            return self.why
        if high is None:
            range_ = f"at least {low:.4g}"
        else:
            range_ = f"at most {high:.4g}" if low is None else f"{low:.4g} to {high:.4g}"
        return f"{self.why}; expected {self.measure.words} {range_}"


@dataclass(frozen=True, kw_only=True)
class TaskInfo:
    """The daemon's report of a task."""

    name: str
    """Its name."""
    runs: int
    """How many of its runs are remembered, those under way included."""
    update_time: dt.datetime
    """When the last of them ended, or was created, in UTC."""


@dataclass(frozen=True, kw_only=True)
class PastRun:
    """A run as the memory of its task has it. The run itself may be gone."""

    id: str
    """The run's id."""
    time: dt.datetime
    """When it ended, in UTC; of a run under way, when it was heard of last."""
    ending: Ending | None
    """How it ended; `None`: this client does not know the kind of ending."""
    policy: str
    """What it followed: the kind of a schedule, or the reference of a model."""
    learning_rate: float | None
    """The learning rate that it started from; `None`: its model chose it."""
    lr_offset: float
    """The octaves by which a model's learning rates were multiplied."""
    searched: bool
    """Whether a search found the learning rate."""
    optimizer: str
    """Its optimizer, such as `adamw`; empty: not stated."""
    momentum: float | None
    """The optimizer's momentum, if that is known."""
    horizon: int
    """Its horizon, in steps; 0: it had none."""
    batch_size: int | None
    """Its batch size, if that is known."""
    metric: float | None
    """How good it came out by the caller's measure, if that was told."""
    higher_is_better: bool
    """Whether a higher `metric` is better."""
    validation_loss: float | None
    """Its newest validation loss, if there was one."""
    training_loss: float | None
    """Its mean training loss of the last twentieth, if that is known."""
    recalled: Recalled | None
    """What the memory decided for it; `None`: it took no part in the memory."""

    def measured(self, measure: Measure | None) -> float | None:
        """Return how it ended by a measure; `None`: not known."""
        values = {
            Measure.METRIC: self.metric,
            Measure.VALIDATION_LOSS: self.validation_loss,
            Measure.TRAINING_LOSS: self.training_loss,
        }
        return None if measure is None else values[measure]


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What is expected of a learning rate and of what follows it."""

    policy: str
    """The kind of a schedule, or the reference of a model."""
    learning_rate: float | None
    """The learning rate to start from; `None`: the model chooses it."""
    lr_offset: float
    """The octaves by which a model's learning rates are multiplied."""
    value: float
    """How a run is expected to end, by the task's measure."""
    low: float
    """The value one standard deviation below, without the noise of a single run."""
    high: float
    """The value one standard deviation above."""
