"""Runs that are not observed leave memory. The store has them, and a call that needs one loads it again."""

from __future__ import annotations

import asyncio
import ctypes
import gc

import structlog

from mlrs_server.live.arrays import RunGroup
from mlrs_server.live.live_runs import LiveRuns

log = structlog.get_logger()

GENERATIONS = 4
"""The number of checks within the idle time, so that a run leaves at most a quarter of it later."""
AT_ONCE = 1024
"""The number of runs dropped before other tasks may run: a few milliseconds of work."""


async def drop_idle_runs(live: LiveRuns, idle_after_s: float) -> None:
    """Drop runs from memory that were not observed for `idle_after_s` seconds, until cancelled.

    Their handles become stale. A client opens a run again when its handle is stale, and continues where the
    run was.
    """
    while True:
        await asyncio.sleep(idle_after_s / GENERATIONS)
        try:
            dropped = sum([await _drop_idle(live, group) for group in list(live.groups)])
        except Exception as error:  # a defect: the next check may succeed
            log.error("idle_runs_stay", exc_info=error)
            continue
        if dropped:
            live.shrink()
            _give_memory_back()
            log.info("idle_runs_left_memory", count=dropped)


async def _drop_idle(live: LiveRuns, group: RunGroup) -> int:
    """Begin the next generation of a group; return how many of its runs were dropped."""
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
    """Return free memory to the system. It takes milliseconds, so it is worth it only after many drops."""
    gc.collect()
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):  # another C library, or a system without such a handle
        return
    trim(0)
