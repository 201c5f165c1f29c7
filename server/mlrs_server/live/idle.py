"""Runs that nobody observes leave memory: the store has them, and they come back when they are asked for."""

from __future__ import annotations

import asyncio
import ctypes
import gc

import structlog

from mlrs_server.live.arrays import RunGroup
from mlrs_server.live.live import LiveRuns

log = structlog.get_logger()

GENERATIONS = 4
"""How often in the idle time is looked: a run leaves after it, and at most a quarter of it later."""
AT_ONCE = 1024
"""Runs that leave between two turns of the event loop: some milliseconds."""


async def drop_idle_runs(live: LiveRuns, idle_after_s: float) -> None:
    """Have runs leave memory that were not observed for so long; goes on until cancelled.

    Their handles are stale from then on. A client that opens such a run again, as it does on a stale handle,
    finds it where it was.
    """
    while True:
        await asyncio.sleep(idle_after_s / GENERATIONS)
        try:
            dropped = sum([await _drop_idle(live, group) for group in list(live.groups)])
        except Exception as error:  # a defect: the next generation may fare better
            log.error("idle_runs_stay", exc_info=error)
            continue
        if dropped:
            live.shrink()
            _give_memory_back()
            log.info("idle_runs_left_memory", count=dropped)


async def _drop_idle(live: LiveRuns, group: RunGroup) -> int:
    """Begin the next generation of a group; return how many of its runs left."""
    group.generation += 1
    dropped, last = 0, -1
    while True:
        idle = group.idle_rows(group.generation - GENERATIONS)
        rows = idle[idle > last][:AT_ONCE]
        if not len(rows):
            group.shrink()
            return dropped
        dropped += live.drop_rows(group, rows)
        last = rows[-1]
        await asyncio.sleep(0)


def _give_memory_back() -> None:
    """Give free memory back to the system: some milliseconds, so to be done after much was let go of."""
    gc.collect()
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):  # another C library, or a system without such a handle
        return
    trim(0)
