"""Runs as stored, of shards that are this daemon's while a call works on them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TypeVar

from mlrs_server.live import LiveRuns
from mlrs_server.store import RunKey, StoredRun

K = TypeVar("K", bound=RunKey)


def owned(live: LiveRuns, run_ids: Sequence[str]) -> AbstractAsyncContextManager[dict[str, StoredRun]]:
    """Yield runs by id, with all that was answered before; without those not there.

    Raises:
        AdvisorError: another replica has one of them (`Reason.NOT_OWNER`), an id is malformed, or the store
            fails, or has a damaged one.
    """
    return _owned(live, lambda: live.stored(run_ids), {})


def owned_to_open(
    live: LiveRuns, shards: Mapping[str, int], to_drop: Collection[str]
) -> AbstractAsyncContextManager[dict[str, StoredRun | RunKey]]:
    """Yield runs as `owned` does, but of those that are to be dropped only where they are stored.

    Args:
        live: the runs.
        shards: those in which the call would create them, by id.
        to_drop: the ids of runs that are to be dropped, damaged or not.

    Raises:
        AdvisorError: as `owned`.
    """
    return _owned(live, lambda: live.stored_or_places(list(shards), to_drop), shards)


def owned_places(live: LiveRuns, run_ids: Sequence[str]) -> AbstractAsyncContextManager[dict[str, RunKey]]:
    """Yield where runs are stored, as `owned` does; also those that are damaged."""
    return _owned(live, lambda: live.places(run_ids), {})


@asynccontextmanager
async def _owned(
    live: LiveRuns, read: Callable[[], Awaitable[dict[str, K]]], new: Mapping[str, int]
) -> AsyncIterator[dict[str, K]]:
    while True:
        before = live.ownership.epochs
        runs = await read()
        shards = {run.shard for run in runs.values()}
        shards |= {shard for run_id, shard in new.items() if run_id not in runs}
        async with live.ownership.using(shards):
            now = live.ownership.epochs
            if all(before.get(shard) == now.get(shard) for shard in shards):
                yield runs
                return
        # Claimed since: the owner before may have stored more after they were read.
