"""The ranks of a run at present, for people who look at them: who is missing, and who was."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import filterfalse, islice
from operator import neg

from mlrs_server.live.run_groups import LiveRun
from mlrs_server.ranks.barrier import PendingBarrier

MOST_MISSING = 100
"""The most ranks that are listed as missing."""
MOST_MISSES = 100
"""The most ranks that are listed as having been missing."""


@dataclass(frozen=True)
class RankStatus:
    """The ranks of a run at present."""

    step: int
    """The step that they report."""
    reported: int
    """How many ranks have reported it."""
    missing: Sequence[int]
    """The ranks that have not, once one has reported, ascending; the lowest `MOST_MISSING`."""
    waiting_s: float | None
    """How long the first of them has waited, in seconds; `None`: none waits."""
    misses: Sequence[tuple[int, int]]
    """The ranks that were missing, and in how many steps; the `MOST_MISSES` of most steps, those first."""


def rank_status(live: LiveRun, barrier: PendingBarrier | None, now: float) -> RankStatus | None:
    """Return the ranks of a run; `None`: the run has none.

    It takes some milliseconds for a run of the most ranks, 65,536, and answers of advice wait meanwhile.

    Args:
        live: the run.
        barrier: its pending barrier, if it has one.
        now: the time of the event loop's clock.
    """
    if live.row not in live.group.ranked:
        return None
    reports = {} if barrier is None else barrier.reports
    ranks = range(live.group.ranked[live.row].world_size if reports else 0)
    misses = live.group.misses.get(live.row, Counter[int]())
    often = heapq.nsmallest(MOST_MISSES, zip(map(neg, misses.values()), misses, strict=True))
    return RankStatus(
        step=int(live.record["next_step"]),
        reported=len(reports),
        missing=list(islice(filterfalse(reports.__contains__, ranks), MOST_MISSING)),
        waiting_s=now - barrier.since if barrier is not None and any(barrier.waiting.values()) else None,
        misses=[(rank, -steps) for steps, rank in often],
    )
