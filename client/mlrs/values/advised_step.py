"""What `on_advice` of a run is told about each step."""

from __future__ import annotations

from dataclasses import dataclass

from mlrs.values.types import AdviceReason


@dataclass(frozen=True, slots=True)
class AdvisedStep:
    """A step of a run, with its advice."""

    run_id: str
    """The run's id."""
    step: int
    """The step, from 0."""
    loss: float
    """The loss that was observed; NaN and infinities are possible."""
    learning_rate: float
    """The learning rate for the update of the step."""
    reason: AdviceReason
    """Where the learning rate comes from."""
