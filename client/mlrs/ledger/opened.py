"""What a daemon says of the runs that it opened."""

from __future__ import annotations

from dataclasses import dataclass

from mlrs.values.types import RunConfig, RunInfo


@dataclass(frozen=True, slots=True)
class OpenedRun:
    """What the daemon says of a run that it opened."""

    info: RunInfo
    """The run."""
    handle: int
    """Its name in StreamAdvice."""
    created: bool
    """Whether this call created it."""
    took_over: bool
    """Whether another process that is connected sent its observations until now."""


@dataclass(frozen=True, slots=True)
class Opened:
    """What the daemon says of the runs of a ledger, at least one."""

    runs: tuple[OpenedRun, ...]
    """The runs."""

    @property
    def run_ids(self) -> tuple[str, ...]:
        """Their ids."""
        return tuple(run.info.id for run in self.runs)

    @property
    def handles(self) -> list[int]:
        """Their names in StreamAdvice."""
        return [run.handle for run in self.runs]

    @property
    def created(self) -> bool:
        """Whether this call created every one."""
        return all(run.created for run in self.runs)

    @property
    def took_over(self) -> list[str]:
        """The ids of those that were taken over from another process which is connected."""
        return [run.info.id for run in self.runs if run.took_over]

    @property
    def created_at(self) -> float:
        """When the first was created, in seconds since the epoch."""
        return self.runs[0].info.create_time.timestamp()

    @property
    def config(self) -> RunConfig:
        """The config of the first."""
        return self.runs[0].info.config

    @property
    def last_learning_rates(self) -> list[float | None]:
        """The last advice of each, or else the learning rate that it was given to start from."""
        infos = [run.info for run in self.runs]
        return [
            info.config.initial_lr if info.last_learning_rate is None else info.last_learning_rate
            for info in infos
        ]

    @property
    def next_step(self) -> int:
        """The step that the run expects that is the furthest behind."""
        return min(run.info.next_step for run in self.runs)

    @property
    def furthest_step(self) -> int:
        """The step that the run expects that is the furthest ahead."""
        return max(run.info.next_step for run in self.runs)

    @property
    def durable_step(self) -> int:
        """Observations of all runs up to and including this step survive a crash; -1: none yet."""
        return min(run.info.durable_step for run in self.runs)
