"""A run as the memory of its task has it."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass

from mlrs_core.config import Optimizer
from mlrs_core.config.recalled import Measure, Recalled
from mlrs_core.memory.carrying import Setting


class Ending(enum.IntEnum):
    """How a run ended. The numbers are those of the contract."""

    REACHED = 1
    """It reached its horizon."""
    DIVERGED = 2
    STOPPED = 3
    """It was finished before its horizon, or nobody has heard of it for long."""
    UNDER_WAY = 4


@dataclass(frozen=True, kw_only=True)
class PastRun:
    """What a run was advised under, its arm, and how it ended."""

    run_id: str
    ending: Ending
    policy: str
    """What it followed: the kind of a schedule, or the reference of a model."""
    learning_rate: float | None = None
    """The base LR of its schedule; `None` for a model."""
    lr_offset: float = 0.0
    """The octaves by which its learning rates were multiplied."""
    searched: bool = False
    """Whether a search found the learning rate."""
    optimizer: Optimizer = Optimizer.UNSPECIFIED
    momentum: float | None = None
    horizon: int
    batch_size: int | None = None
    metric: float | None = None
    """How well it ended by the caller's own measure."""
    higher_is_better: bool = False
    """Whether a higher `metric` is better."""
    validation_loss: float | None = None
    """Its newest validation loss."""
    training_loss: float | None = None
    """Its mean training loss of the last twentieth."""
    recalled: Recalled | None = None
    """What the memory had decided for it."""
    time: float = 0.0
    """When it ended, or of a run under way, when it was heard of last: seconds since the epoch, UTC."""

    @property
    def setting(self) -> Setting:
        """What its learning rate was for."""
        return Setting(
            optimizer=self.optimizer,
            momentum=self.momentum,
            horizon=self.horizon,
            batch_size=self.batch_size,
        )

    def measured(self, measure: Measure) -> float | None:
        """Return how well it ended by a measure; `None`: not known."""
        if self.ending is not Ending.REACHED:
            return None
        match measure:
            case Measure.METRIC:
                return self.metric
            case Measure.VALIDATION_LOSS:
                return self.validation_loss
            case Measure.TRAINING_LOSS:
                return self.training_loss
            case Measure.UNSPECIFIED:
                return None

    @property
    def best_measure(self) -> Measure:
        """The first of the caller's metric, the validation loss and the training loss that is known."""
        known = (one for one in Measure if self.measured(one) is not None)
        return next(known, Measure.UNSPECIFIED)

    @property
    def is_surprise(self) -> bool:
        """Whether it ended outside of what was expected; where nothing was, it is none."""
        expected = self.recalled
        if expected is None or expected.measure is Measure.UNSPECIFIED:
            return False
        low = -math.inf if expected.expected_low is None else expected.expected_low
        high = math.inf if expected.expected_high is None else expected.expected_high
        if self.ending is Ending.DIVERGED:
            return math.isfinite(low) or math.isfinite(high)
        value = self.measured(expected.measure)
        return value is not None and not low <= value <= high
