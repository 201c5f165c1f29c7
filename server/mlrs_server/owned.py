"""Runs as stored, of shards that are this daemon's while a call works on them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

from mlrs_server.live import LiveRuns
from mlrs_server.store import StoredRun


@asynccontextmanager
async def owned(
    live: LiveRuns, run_ids: Sequence[str], new: Mapping[str, int] | None = None
) -> AsyncIterator[dict[str, StoredRun]]:
    """Yield runs by id, with all that was answered before; without those not there.

    Args:
        live: the runs.
        run_ids: their ids.
        new: the shards of runs that the call may create.

    Raises:
        AdvisorError: another replica has one of them (`Reason.NOT_OWNER`), an id is malformed, or the store
            fails.
    """
    while True:
        before = live.ownership.epochs
        runs = await live.stored(run_ids)
        shards = {run.shard for run in runs.values()}
        shards |= {shard for run_id, shard in (new or {}).items() if run_id not in runs}
        async with live.ownership.using(shards):
            now = live.ownership.epochs
            if all(before.get(shard) == now.get(shard) for shard in shards):
                yield runs
                return
        # Claimed since: the owner before may have stored more after they were read.
