"""A daemon's answers in a stream as values, independent of protobuf messages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

from mlrs.errors import MlrsError, StepError
from mlrs.values.meta_types import Adaptation
from mlrs.values.reasons import PASSING_REASONS, error_class
from mlrs.values.types import AdviceReason


@dataclass(frozen=True, slots=True)
class Refusal:
    """The refusal of one entry of a message."""

    index: int
    """The index of the entry in the message."""
    reason: str
    """The contract's name of the reason, without its prefix."""
    message: str
    """The daemon's message; may be empty."""
    next_step: int | None
    """The step that the run expects, where the refusal is about the step."""

    @property
    def may_pass(self) -> bool:
        """Whether it may succeed after joining and sending again."""
        return self.reason in PASSING_REASONS

    def error(self, run_id: str) -> MlrsError:
        """Return it as the exception of a run."""
        kind = error_class(self.reason)
        message = f"run {run_id!r}: {self.message or self.reason}"
        if issubclass(kind, StepError):
            return kind(message, next_step=self.next_step, reason=self.reason)
        return kind(message, reason=self.reason)


@dataclass(slots=True, eq=False)
class Advised:
    """The answer to a message of observations, in columns of one value for each observation of each run."""

    learning_rates: Sequence[float]
    """The learning rates."""
    durable_steps: Sequence[int]
    """Observations of the run up to and including this step survive a crash; -1: none yet."""
    reasons: Sequence[Any]
    """The reason of each learning rate, for `read_reason`; empty: all are fresh."""
    ranks_reported: Sequence[int]
    """The number of ranks whose losses were reduced, for each; empty or 0: no ranks, or not known."""
    read_reason: Callable[[Any], AdviceReason]
    """Converts a reason."""
    refusals: Sequence[Refusal] = ()
    """The entries that have no answer."""
    restores: Sequence[int] = ()
    """The indexes of the entries whose advice asks to restore a saved state."""

    def fits(self, count: int) -> bool:
        """Return whether it answers so many entries."""
        return (
            len(self.learning_rates) == len(self.durable_steps) == count
            and (len(self.reasons) or count) == count
        )


@dataclass(slots=True, eq=False)
class Adapted:
    """The answer to a message of meta updates."""

    results: Sequence[Any]
    """The result of each update, for `read_result`."""
    read_result: Callable[[Any, int], Adaptation]
    """Converts a result, given the step of its update."""
    refusals: Sequence[Refusal] = ()
    """The updates that have no answer."""

    def fits(self, count: int) -> bool:
        """Return whether it answers so many updates."""
        return len(self.results) == count


class Draining(NamedTuple):
    """The daemon is stopping, and answers nothing that is sent from now on."""

    message: str


Answer: TypeAlias = Advised | Adapted | Draining
"""A message that a daemon sends in a stream."""
