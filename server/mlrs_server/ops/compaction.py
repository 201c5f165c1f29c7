"""Compaction of the records of idle runs: each flush writes a chunk per run; reading few is faster."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection
from functools import partial

import structlog

from mlrs_server.errors import AdvisorError
from mlrs_server.live.live_runs import LiveRuns
from mlrs_server.live.stored_runs import StoredRuns
from mlrs_server.storage import Store, StoredRun

log = structlog.get_logger()

ROUND_S = 30.0
"""The interval between rounds."""
WORTHWHILE = 16
"""The fewest chunks of a run that is compacted."""
AT_ONCE = 64
"""The number of runs of a query."""
REST = 4
"""The pause after a transaction, as a multiple of its duration: flushes have priority."""


async def compact_resting_runs(
    live: LiveRuns,
    stored: StoredRuns,
    idle_after_s: float,
    *,
    held_shards: Callable[[], Collection[int]] | None = None,
    round_s: float = ROUND_S,
) -> None:
    """Merge the chunks of runs that are finished, or idle for `idle_after_s`; until cancelled.

    Args:
        live: the runs in memory.
        stored: the runs in the store.
        idle_after_s: how long a run was not observed before it is compacted.
        held_shards: returns the shards whose runs may be written; `None`: all.
        round_s: the interval between rounds.
    """
    while True:
        await asyncio.sleep(round_s)
        try:
            await compact_round(live, stored, time.time() - idle_after_s, held_shards and held_shards())
        except AdvisorError as error:  # the journal logs the failing store as an error
            log.warning("compaction_waits", problem=str(error))
        except Exception as error:  # a defect: the next round may succeed
            log.error("compaction_failed", exc_info=error)


async def compact_round(
    live: LiveRuns, stored: StoredRuns, before: float, shards: Collection[int] | None = None
) -> int:
    """Merge the chunks of runs that were last observed before a time; return the number of runs."""
    compacted = 0
    while found := await stored.in_store(
        lambda store: store.loose(at_least=WORTHWHILE, before=before, shards=shards, limit=AT_ONCE)
    ):
        done = sum([await _compact(live, stored, run) for run in found])
        compacted += done
        if done < AT_ONCE:  # runs that cannot be merged would be found again for ever
            break
    if compacted:
        log.debug("runs_compacted", count=compacted)
    return compacted


async def _compact(live: LiveRuns, stored: StoredRuns, run: StoredRun) -> bool:
    """Merge the chunks of a run, one large chunk per transaction; return whether all were merged."""
    step: int | None = 0
    while step is not None:
        if live.has_unflushed(run.run_id):  # answers may be stored already, and be stored again
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
