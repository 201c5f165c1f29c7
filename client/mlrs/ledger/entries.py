"""Observations and their answers: of one run (`Entry`), and the interface that ledgers need (`Observed`)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from mlrs.errors import MlrsError
from mlrs.ledger.answers import Advised
from mlrs.ledger.fallback import checked_lr
from mlrs.values.signals import Signals, Validation, repeats
from mlrs.values.types import Advice, AdviceReason


class Observation(NamedTuple):
    """An observation that is more than a loss."""

    loss: float
    samples: float = 1.0
    """For a rank: the number of samples that the loss is the mean of."""
    signals: Signals | None = None
    """Measures of the optimizer's step before, if there are any."""
    validation: Validation | None = None
    """The validation loss that comes with it, if it is known already."""
    restored: bool = False
    """Whether the training restored a saved state before it."""


class Observed(Protocol):
    """A step in a ledger: an `Entry` of one run, or a `Row` of a sweep."""

    step: int
    """The step."""
    error: MlrsError | None
    """Why there is no answer, if it was refused."""

    @property
    def done(self) -> bool:
        """Whether there is an answer or a refusal."""

    @property
    def steps(self) -> Sequence[int]:
        """The step, once for each run."""

    @property
    def losses(self) -> Sequence[float]:
        """The losses, one for each run."""

    @property
    def is_finite(self) -> bool:
        """Whether no loss is NaN or infinite."""

    @property
    def rates(self) -> Sequence[float] | None:
        """The learning rates of the answer, one for each run; `None`: no answer yet."""

    @property
    def sample_counts(self) -> Sequence[float]:
        """The numbers of samples that the losses are means of; empty for sweeps."""

    @property
    def signals(self) -> Signals | None:
        """Measures of the optimizer's step before, if there are any; none for sweeps."""

    @property
    def validation(self) -> Validation | None:
        """The validation loss that comes with it, if there is one; none for sweeps."""

    @property
    def restored(self) -> bool:
        """Whether the training restored a saved state before it; never for sweeps."""

    @property
    def has_extras(self) -> bool:
        """Whether anything comes with it besides its loss."""

    def observed(self) -> Any:
        """Return the loss with what came with it, or the losses."""

    def other(self, loss: Any) -> str:
        """Return in what it differs from this loss, or these losses; "" if they are the same. NaN equals NaN.

        What is left out is not compared, nor is a validation loss: a call that observes the step again does
        not tell it again.
        """

    def fill(self, columns: Advised, index: int) -> Any:
        """Enter the answer, which begins at an index of the columns, unless it is done; return its LRs."""

    def stand_in(self, learning_rate: Any, durable_step: int) -> None:
        """Take what a fallback answers; the daemon's answer will not change it."""

    def durable_step(self, columns: Advised, index: int) -> int:
        """Return the durable step of an answer, the smallest of all runs."""


@dataclass(slots=True, eq=False)
class Entry:
    """One observation of one run, and its answer."""

    step: int
    """Its step."""
    loss: float
    """Its loss."""
    learning_rate: float | None = None
    """The answer, once there is one."""
    reason: AdviceReason = AdviceReason.FRESH
    """The reason of the answer."""
    durable: int = -1
    """The run's durable step when it was answered."""
    error: MlrsError | None = None
    """Why there will be no answer."""
    samples: float = 1.0
    """For a rank: the number of samples that the loss is the mean of."""
    ranks_reported: int | None = None
    """The number of ranks whose losses were reduced, if that is known."""
    signals: Signals | None = None
    """Measures of the optimizer's step before, if there are any."""
    validation: Validation | None = None
    """The validation loss that comes with it, if there is one."""
    restored: bool = False
    """Whether the training restored a saved state before it."""
    restore: bool = False
    """Whether the answer asks to restore one."""

    @classmethod
    def of(cls, step: int, observed: float | Observation) -> Entry:
        """Return the entry of an observation."""
        if not isinstance(observed, Observation):
            return cls(step, observed)
        return cls(
            step,
            observed.loss,
            samples=observed.samples,
            signals=observed.signals,
            validation=observed.validation,
            restored=observed.restored,
        )

    @property
    def has_extras(self) -> bool:
        """Whether anything comes with it besides its loss."""
        return self.signals is not None or self.validation is not None or self.restored

    @property
    def done(self) -> bool:
        """Whether there is an answer or a refusal."""
        return self.learning_rate is not None or self.error is not None

    @property
    def steps(self) -> Sequence[int]:
        """The step."""
        return (self.step,)

    @property
    def losses(self) -> Sequence[float]:
        """The loss."""
        return (self.loss,)

    @property
    def is_finite(self) -> bool:
        """Whether the loss is neither NaN nor infinite."""
        return math.isfinite(self.loss)

    @property
    def rates(self) -> Sequence[float] | None:
        """The learning rate, once there is one."""
        return None if self.learning_rate is None else (self.learning_rate,)

    @property
    def sample_counts(self) -> Sequence[float]:
        """The number of samples."""
        return (self.samples,)

    def observed(self) -> float | Observation:
        """Return the loss, with what came with it. Observations of ranks are not kept."""
        if not self.has_extras:
            return self.loss
        return Observation(
            self.loss, signals=self.signals, validation=self.validation, restored=self.restored
        )

    def other(self, loss: float | Observation) -> str:
        """Return in what it differs from this observation; "" if it is the same."""
        told = loss if isinstance(loss, Observation) else Observation(loss)
        if not (self.loss == told.loss or (math.isnan(self.loss) and math.isnan(told.loss))):
            return f"another loss than {told.loss!r}"
        if self.samples != told.samples:
            return f"another number of samples than {told.samples:g}"
        if told.restored and not self.restored:
            return "no restored state"
        return "" if repeats(self.signals, told.signals) else f"other signals than {told.signals}"

    def fill(self, columns: Advised, index: int) -> float:
        """Enter the answer at an index of the columns, unless it is done; return its learning rate."""
        learning_rate = columns.learning_rates[index]
        if self.learning_rate is None and self.error is None:
            self.durable = columns.durable_steps[index]
            reasons, reported = columns.reasons, columns.ranks_reported
            self.ranks_reported = (reported[index] or None) if reported else None
            self.reason = columns.read_reason(reasons[index]) if reasons else AdviceReason.FRESH
            self.restore = bool(columns.restores) and index in columns.restores
            self.learning_rate = learning_rate  # the last: now it is done
        return learning_rate

    def stand_in(self, learning_rate: Any, durable_step: int) -> None:
        """Enter the fallback's answer."""
        rate = checked_lr(learning_rate)
        self.reason, self.durable = AdviceReason.FALLBACK, durable_step
        self.learning_rate = rate

    def durable_step(self, columns: Advised, index: int) -> int:
        """Return the durable step of an answer."""
        return columns.durable_steps[index]

    def lr(self) -> float:
        """Return the learning rate of an entry that is done; raises its refusal."""
        if self.error is not None:
            raise self.error.with_traceback(None)
        if self.learning_rate is None:
            raise AssertionError("asked before it was done")
        return self.learning_rate

    def result(self) -> Advice:
        """Return the advice of an entry that is done; raises as `lr`."""
        return Advice(self.step, self.lr(), self.reason, self.durable, self.ranks_reported, self.restore)
