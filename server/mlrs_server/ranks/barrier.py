"""A pending barrier: a step that the ranks of a run report, their losses so far, and the calls that wait."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from mlrs_server.domain.rank_reduction import Ranked, Report
from mlrs_server.errors import AdvisorError
from mlrs_server.live.arrays import RunGroup


class Advised(NamedTuple):
    """The advice that all ranks get for a step."""

    lr: float
    reason: int
    durable_step: int
    reported: int
    """How many ranks' losses were reduced for it."""


Outcome = Advised | Exception
Waiting = asyncio.Future[Outcome]


@dataclass(eq=False)
class PendingBarrier:
    """The next step of a run that some of its ranks have reported, and not enough of them."""

    handle: int
    group: RunGroup
    row: int
    step: int
    late: bool = False
    """Whether the straggler timeout has passed."""
    timer: asyncio.TimerHandle | None = None
    since: float = 0.0
    """When the first rank reported, on the event loop's clock."""
    reports: dict[int, Report] = field(default_factory=dict)
    """By rank."""
    waiting: dict[int, set[Waiting]] = field(default_factory=dict)
    """The calls that wait for the advice, by rank; none for a rank whose stream has ended."""

    @property
    def run_id(self) -> str:
        """The full name of the run."""
        return self.group.run_ids[self.row]

    @property
    def ranked(self) -> Ranked:
        """How the ranks share the run at present."""
        return self.group.ranked[self.row]

    @property
    def ranks_waiting(self) -> int:
        """The number of ranks that wait for the advice. May be read on any thread."""
        return sum(map(bool, list(self.waiting.values())))

    def drop(self, rank: int, error: AdvisorError | None = None) -> None:
        """Discard what a rank reported, and pass an error to the calls that wait for it."""
        del self.reports[rank]
        for waiting in self.waiting.pop(rank, ()):
            if error is not None and not waiting.done():
                waiting.set_result(error)

    def resolve(self, outcome: Outcome) -> None:
        """Pass the outcome to all calls that wait."""
        if self.timer is not None:
            self.timer.cancel()
        for some in self.waiting.values():
            for waiting in some:
                if not waiting.done():
                    waiting.set_result(outcome)

    def listen(self, rank: int) -> Waiting:
        """Return a future of the outcome, for a call of a rank."""
        waiting: Waiting = asyncio.get_running_loop().create_future()
        self.waiting.setdefault(rank, set()).add(waiting)
        return waiting

    def forget(self, ended: Iterable[Waiting]) -> None:
        """Remove the futures of calls that have ended. What their ranks reported stays."""
        gone = set(ended)
        for some in self.waiting.values():
            some.difference_update(gone)
