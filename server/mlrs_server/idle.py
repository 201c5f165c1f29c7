"""Runs that nobody observes leave memory: the store has them, and they come back when they are asked for."""

from __future__ import annotations

import asyncio

import structlog

from mlrs_server.live import LiveRuns
from mlrs_server.memory import give_back
from mlrs_server.runs import RunGroup

log = structlog.get_logger()

LAPS = 4
"""How often in the idle time is looked: a run leaves after it, and at most a quarter of it later."""
AT_ONCE = 1024
"""Runs that leave between two turns of the event loop: some milliseconds."""


async def drop_idle_runs(live: LiveRuns, idle_after_s: float) -> None:
    """Have runs leave memory that were not observed for so long; goes on until cancelled.

    Their handles are stale from then on. A client that opens such a run again, as it does on a stale handle,
    finds it where it was.
    """
    while True:
        await asyncio.sleep(idle_after_s / LAPS)
        try:
            dropped = sum([await _drop_idle(live, group) for group in list(live.groups)])
        except Exception as error:  # a defect: the next lap may fare better
            log.error("idle_runs_stay", exc_info=error)
            continue
        if dropped:
            live.shrink()
            give_back()
            log.info("idle_runs_left_memory", count=dropped)


async def _drop_idle(live: LiveRuns, group: RunGroup) -> int:
    """Begin the next lap of a group; return how many of its runs left."""
    group.lap += 1
    dropped, last = 0, -1
    while True:
        idle = group.idle_rows(group.lap - LAPS)
        rows = idle[idle > last][:AT_ONCE]
        if not len(rows):
            group.shrink()
            return dropped
        dropped += live.drop_rows(group, rows)
        last = rows[-1]
        await asyncio.sleep(0)
