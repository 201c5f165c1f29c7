"""A step of a sweep, in arrays of one value for each run. No other module of the client imports NumPy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from mlrs.errors import InvalidArgumentError, MlrsError
from mlrs.ledger.answers import Advised
from mlrs.ledger.fallback import wrong_rate

Floats: TypeAlias = npt.NDArray[np.float64]


@dataclass(slots=True, eq=False)
class Row:
    """A step of every run of a sweep, and its answer."""

    step: int
    """The step."""
    values: Floats
    """The losses, (runs,)."""
    learning_rates: Floats | None = None
    """The answer, (runs,), once there is one."""
    error: MlrsError | None = None
    """Why there is no answer, if it was refused."""
    _steps: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self._steps = [self.step] * len(self.values)

    @property
    def done(self) -> bool:
        """Whether there is an answer or a refusal."""
        return self.learning_rates is not None or self.error is not None

    @property
    def steps(self) -> Sequence[int]:
        """The step, once for each run."""
        return self._steps

    @property
    def losses(self) -> Sequence[float]:
        """The losses, one for each run."""
        losses: list[float] = self.values.tolist()
        return losses

    @property
    def is_finite(self) -> bool:
        """Whether no loss is NaN or infinite."""
        return bool(np.isfinite(self.values).all())

    @property
    def rates(self) -> Sequence[float] | None:
        """The learning rates, one for each run, once there are any."""
        rates: list[float] | None = None if self.learning_rates is None else self.learning_rates.tolist()
        return rates

    @property
    def signals(self) -> None:
        """None: sweeps send no signals."""
        return None

    @property
    def validation(self) -> None:
        """None: sweeps send no validation losses."""
        return None

    @property
    def restored(self) -> bool:
        """False: sweeps restore no state."""
        return False

    @property
    def has_extras(self) -> bool:
        """False: nothing comes with the losses of a sweep."""
        return False

    def observed(self) -> Floats:
        """Return the losses."""
        return self.values

    @property
    def sample_counts(self) -> Sequence[float]:
        """Empty: runs of sweeps have no ranks."""
        return ()

    def other(self, loss: Floats) -> str:
        """Return in what it differs from these losses; "" if they are the same."""
        same = np.array_equal(self.values, loss, equal_nan=True)
        return "" if same else f"another loss than {loss!r}"

    def fill(self, columns: Advised, index: int) -> Floats:
        """Enter the answer, which begins at an index of the columns, unless it is done; return its LRs."""
        learning_rates = np.array(columns.learning_rates, np.float64)[index : index + len(self.values)]
        if not self.done:
            self.learning_rates = learning_rates
        return learning_rates

    def stand_in(self, learning_rate: Any, durable_step: int) -> None:  # noqa: ARG002 # of the protocol
        """Enter the fallback's answer: one learning rate for all runs, or one for each."""
        try:
            rates = np.broadcast_to(np.asarray(learning_rate, np.float64), self.values.shape).copy()
        except (TypeError, ValueError) as error:
            raise wrong_rate(learning_rate) from error
        if not (np.isfinite(rates) & (rates >= 0.0)).all():
            raise wrong_rate(learning_rate)
        self.learning_rates = rates

    def durable_step(self, columns: Advised, index: int) -> int:
        """Return the durable step of an answer, the smallest of all runs."""
        return int(np.array(columns.durable_steps, np.int64)[index : index + len(self.values)].min())

    def lrs(self) -> Floats:
        """Return the learning rates of a row that is done, (runs,), a copy; raises its refusal."""
        if self.error is not None:
            raise self.error.with_traceback(None)
        if self.learning_rates is None:
            raise AssertionError("asked before it was done")
        return self.learning_rates.copy()


def losses_of(value: Any, count: int) -> Floats:
    """Return the losses of a sweep's runs, (count,) float64; a copy."""
    return _column_of("losses", value, count)


def metrics_of(value: Any, count: int) -> list[float]:
    """Return how good a sweep's runs came out, one number for each; NaN: the run has no metric."""
    column = _column_of("metrics", value, count)
    metrics: list[float] = np.where(np.isfinite(column), column, np.nan).tolist()
    return metrics


def _column_of(name: str, value: Any, count: int) -> Floats:
    if hasattr(value, "detach"):  # a tensor of PyTorch, on whatever device it is
        value = value.detach().cpu()
    try:
        array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InvalidArgumentError(f"{name} cannot be read as an array: {error}", field=name) from error
    if array.shape != (count,):
        raise InvalidArgumentError(
            f"{name} must be one number for each of the {count} runs, is of shape {array.shape}", field=name
        )
    if array.dtype.kind not in "fiu":
        raise InvalidArgumentError(
            f"{name} must be real numbers, are {array.dtype}; NaN stands for a run that has none", field=name
        )
    return array.astype(np.float64)
