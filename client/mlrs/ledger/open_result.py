"""The daemon's answers to opening runs."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from mlrs.values.types import RunConfig, RunInfo


@dataclass(frozen=True, slots=True)
class OpenedRun:
    """The daemon's answer to opening a run."""

    info: RunInfo
    """The run."""
    handle: int
    """Its handle in StreamAdvice."""
    created: bool
    """Whether this call created it."""
    took_over: bool
    """Whether another connected process has sent its observations until now."""


@dataclass(frozen=True, slots=True)
class Opened:
    """The daemon's answers for the runs of a ledger, at least one."""

    runs: tuple[OpenedRun, ...]
    """The runs."""

    @property
    def run_ids(self) -> tuple[str, ...]:
        """Their ids."""
        return tuple(run.info.id for run in self.runs)

    @property
    def handles(self) -> list[int]:
        """The runs' handles in StreamAdvice."""
        return [run.handle for run in self.runs]

    @property
    def created(self) -> bool:
        """Whether this call created every one."""
        return all(run.created for run in self.runs)

    @property
    def took_over(self) -> list[str]:
        """The ids of the runs that were taken over from another connected process."""
        return [run.info.id for run in self.runs if run.took_over]

    @property
    def created_at(self) -> float:
        """When the first run was created, in seconds since the epoch."""
        return self.runs[0].info.create_time.timestamp()

    @property
    def config(self) -> RunConfig:
        """The config of the first run."""
        return self.runs[0].info.config

    @property
    def last_learning_rates(self) -> list[float | None]:
        """The last learning rate of each run, or else what it was told to begin with, if that is known."""
        infos = [run.info for run in self.runs]
        return [
            _first_rate(info.config) if info.last_learning_rate is None else info.last_learning_rate
            for info in infos
        ]

    @property
    def next_step(self) -> int:
        """The smallest next step of all runs."""
        return min(run.info.next_step for run in self.runs)

    @property
    def is_new(self) -> bool:
        """Whether the runs have no observation, and no search has found what to begin with."""
        return self.furthest_step == 0 and self.config.found is None

    @property
    def furthest_step(self) -> int:
        """The largest next step of all runs."""
        return max(run.info.next_step for run in self.runs)

    @property
    def durable_step(self) -> int:
        """Observations of all runs up to and including this step survive a crash; -1: none yet."""
        return min(run.info.durable_step for run in self.runs)

    def completed(self, run: OpenedRun) -> Opened:
        """Return the answer for a single run after its config was completed."""
        (first,) = self.runs
        return Opened((dataclasses.replace(run, created=first.created, took_over=first.took_over),))


def _first_rate(config: RunConfig) -> float | None:
    """Return the learning rate that a run was told to begin with, if it was."""
    rate = config.initial_lr
    if config.found is not None:
        rate = config.found.learning_rate
    elif config.recalled is not None and config.recalled.decided and config.schedule is not None:
        rate = config.schedule.base_lr
    return None if rate is None else rate * config.factor
