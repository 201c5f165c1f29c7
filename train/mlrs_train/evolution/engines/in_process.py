"""The engine that needs no workers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar, final

from mlrs_train.evolution.engines.engine import Job, JobOutcome

T = TypeVar("T")


@final
class InThisProcess:
    """`JobEngine` that computes jobs here, one after the other."""

    def compute(self, jobs: Sequence[Job[T]]) -> list[T]:
        """Return what the jobs give, in their order.

        Raises:
            EngineError: a job raised an error.
        """
        return [JobOutcome.of(job).unwrap(job) for job in jobs]

    def close(self) -> None:
        """Do nothing: there are no workers."""
