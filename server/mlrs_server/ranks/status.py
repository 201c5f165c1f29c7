"""The ranks of a run at present, for people who look at them: who has reported, and who was missing."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from mlrs_server.live.run_groups import LiveRun
from mlrs_server.ranks.barrier import PendingBarrier

MOST_REPORTED = 1000
"""The most ranks that are listed as having reported."""
MOST_MISSES = 100
"""The most ranks that are listed as having been missing."""


@dataclass(frozen=True)
class RankStatus:
    """The ranks of a run at present."""

    step: int
    """The step that they report."""
    reported: Sequence[int]
    """The ranks that have reported it, ascending; the lowest `MOST_REPORTED`."""
    waiting_s: float | None
    """How long the first of them has waited, in seconds; `None`: none waits."""
    misses: Sequence[tuple[int, int]]
    """The ranks that were missing, and in how many steps; the `MOST_MISSES` of most steps, those first."""


def rank_status(live: LiveRun, barrier: PendingBarrier | None, now: float) -> RankStatus | None:
    """Return the ranks of a run; `None`: the run has none.

    Args:
        live: the run.
        barrier: its pending barrier, if it has one.
        now: the time of the event loop's clock.
    """
    if live.row not in live.group.ranked:
        return None
    misses = live.group.misses.get(live.row, Counter[int]())
    return RankStatus(
        step=int(live.record["next_step"]),
        reported=() if barrier is None else heapq.nsmallest(MOST_REPORTED, barrier.reports),
        waiting_s=None if barrier is None or not barrier.ranks_waiting else now - barrier.since,
        misses=heapq.nsmallest(MOST_MISSES, misses.items(), key=lambda one: (-one[1], one[0])),
    )
