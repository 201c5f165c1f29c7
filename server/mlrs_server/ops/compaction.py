"""Records of runs that rest are made compact: a flush leaves a chunk a run, and reading wants few."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection
from functools import partial

import structlog

from mlrs_server.errors import AdvisorError
from mlrs_server.live.live import LiveRuns
from mlrs_server.live.stored_runs import StoredRuns
from mlrs_server.storage import Store, StoredRun

log = structlog.get_logger()

ROUND_S = 30.0
"""How often is looked."""
WORTHWHILE = 16
"""Chunks that a run has at least."""
AT_ONCE = 64
"""Runs that are looked up at a time."""
REST = 4
"""So many times as long as a transaction took, the store rests after it: flushes go first."""


async def compact_resting_runs(
    live: LiveRuns,
    stored: StoredRuns,
    idle_after_s: float,
    *,
    owned: Callable[[], Collection[int]] | None = None,
    round_s: float = ROUND_S,
) -> None:
    """Merge the chunks of runs that are finished, or not observed for so long; goes on until cancelled.

    Args:
        live: the runs in memory.
        stored: the way to the store.
        idle_after_s: how long.
        owned: returns the shards whose runs may be written; without it, all may.
        round_s: how often is looked.
    """
    while True:
        await asyncio.sleep(round_s)
        try:
            await compact_round(live, stored, time.time() - idle_after_s, owned and owned())
        except AdvisorError as error:  # the journal says so too, and louder
            log.warning("compaction_waits", problem=str(error))
        except Exception as error:  # a defect: the next lap may fare better
            log.error("compaction_failed", exc_info=error)


async def compact_round(
    live: LiveRuns, stored: StoredRuns, before: float, shards: Collection[int] | None = None
) -> int:
    """Merge the chunks of runs that rest since before a time; return of how many."""
    compacted = 0
    while found := await stored.in_store(
        lambda store: store.loose(at_least=WORTHWHILE, before=before, shards=shards, limit=AT_ONCE)
    ):
        done = sum([await _compact(live, stored, run) for run in found])
        compacted += done
        if done < AT_ONCE:  # those that cannot be merged would be found again, for ever
            break
    if compacted:
        log.debug("runs_compacted", count=compacted)
    return compacted


async def _compact(live: LiveRuns, stored: StoredRuns, run: StoredRun) -> bool:
    """Merge the chunks of a run, a transaction a large chunk; return whether that went well."""
    step: int | None = 0
    while step is not None:
        if live.has_unflushed(run.run_id):  # it may be stored already, and be stored again
            return False
        began = time.monotonic()
        try:
            step = await stored.in_store(partial(_merge, run, step))
        except AdvisorError as error:
            log.warning("run_not_compacted", run_id=run.run_id, problem=str(error))
            return False
        await asyncio.sleep(REST * (time.monotonic() - began))
    return True


def _merge(run: StoredRun, step: int, store: Store) -> int | None:
    return store.merge(run, step)
