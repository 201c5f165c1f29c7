"""A step of a run that its ranks report: what came in, and who waits for its advice."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from mlrs_server.domain.rank_reduction import Ranked, Report
from mlrs_server.errors import AdvisorError
from mlrs_server.live.arrays import RunGroup


class Advised(NamedTuple):
    """What all ranks of a step get."""

    lr: float
    reason: int
    durable_step: int
    reported: int
    """Of how many ranks' losses it was made."""


Outcome = Advised | Exception
Waiting = asyncio.Future[Outcome]


@dataclass(eq=False)
class OpenStep:
    """The step of a run that its ranks report."""

    handle: int
    group: RunGroup
    row: int
    step: int
    late: bool = False
    """Whether the straggler timeout has passed."""
    timer: asyncio.TimerHandle | None = None
    reports: dict[int, Report] = field(default_factory=dict)
    """By rank."""
    waiting: dict[int, set[Waiting]] = field(default_factory=dict)
    """Who waits, by rank: nobody, once a rank's stream is gone."""

    @property
    def ranked(self) -> Ranked:
        """How the ranks share the run, now."""
        return self.group.ranked[self.row]

    @property
    def ranks_waiting(self) -> int:
        """How many ranks wait for its advice; on any thread."""
        return sum(map(bool, list(self.waiting.values())))

    def drop(self, rank: int, error: AdvisorError | None = None) -> None:
        """Forget what a rank reported, and tell those who wait why."""
        del self.reports[rank]
        for waiting in self.waiting.pop(rank, ()):
            if error is not None and not waiting.done():
                waiting.set_result(error)

    def resolve(self, outcome: Outcome) -> None:
        """Give everybody who waits what came of it."""
        if self.timer is not None:
            self.timer.cancel()
        for some in self.waiting.values():
            for waiting in some:
                if not waiting.done():
                    waiting.set_result(outcome)

    def listen(self, rank: int) -> Waiting:
        """Return what hears, as a rank, what comes of it."""
        waiting: Waiting = asyncio.get_running_loop().create_future()
        self.waiting.setdefault(rank, set()).add(waiting)
        return waiting

    def forget(self, heard: Iterable[Waiting]) -> None:
        """Let some listen no more; what their ranks reported stays."""
        gone = set(heard)
        for some in self.waiting.values():
            some.difference_update(gone)
