"""What an engine does, and what it is given to do."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from mlrs_train.errors import TrainError

T = TypeVar("T")

ATTEMPTS = 5
"""How often a job is given to a worker. A job that outlives no worker is the likely cause itself."""


class EngineError(TrainError):
    """A job raised an error, or no worker survived it, or the workers cannot be reached."""


@dataclass(frozen=True)
class Job(Generic[T]):
    """A call of a pure function. Function, arguments and result can be pickled."""

    name: str
    """What it is, for messages."""
    function: Callable[..., T]
    """A function of a module, so that a worker can import it."""
    arguments: tuple[Any, ...]
    """Its arguments."""


class JobEngine(Protocol):
    """Computes jobs. What they give depends on the jobs alone."""

    def compute(self, jobs: Sequence[Job[T]]) -> list[T]:
        """Return what the jobs give, in their order.

        Raises:
            EngineError: a job raised an error, or no worker survived it.
        """
        ...

    def close(self) -> None:
        """End all workers, at once. The engine can be used again, and then starts new ones."""
        ...


@dataclass(frozen=True)
class JobOutcome(Generic[T]):
    """What became of a job."""

    result: T | None
    """What it gave."""
    error: str | None = None
    """The traceback, if it raised."""

    @classmethod
    def of(cls, job: Job[T]) -> JobOutcome[T]:
        """Compute a job here."""
        try:
            return cls(job.function(*job.arguments))
        except Exception:  # noqa: BLE001 - whatever it is, the message names the job
            return cls(None, traceback.format_exc())

    def unwrap(self, job: Job[T]) -> T:
        """Return the result.

        Raises:
            EngineError: there is none.
        """
        if self.error is not None:
            raise EngineError(f"{job.name} failed:\n{self.error}")
        return self.result  # type: ignore[return-value]  # T itself may be None
