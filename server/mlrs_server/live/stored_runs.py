"""Access to stored runs. All reading and writing is done on the store's one thread."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from typing import TypeVar

from mlrs_server.domain.ownership import Ownership
from mlrs_server.domain.sole_owner import SoleOwner
from mlrs_server.errors import run_not_found
from mlrs_server.live.live_runs import LiveRuns
from mlrs_server.live.policies import policy_of
from mlrs_server.live.replay import ReplayedRun, StoreThreadReading, replay_stored
from mlrs_server.live.views import RunView, view_of
from mlrs_server.models.catalog import ModelCatalog
from mlrs_server.storage import RunKey, Store, StoredRun
from mlrs_server.system.cooperative import cooperatively
from mlrs_server.tenancy import check_full_name

T = TypeVar("T")
K = TypeVar("K", bound=RunKey)


class StoredRuns:
    """Access to the store. Used from one event loop.

    A call that reads a run first stores what was answered before the call, so it reads all of it.
    """

    def __init__(
        self,
        store: Store,
        executor: Executor,
        catalog: ModelCatalog,
        live: LiveRuns,
        ownership: Ownership | None = None,
    ) -> None:
        """`executor` is the store's one thread. Without an `ownership`, this daemon owns every run."""
        self.ownership: Ownership = ownership or SoleOwner()
        self._store = store
        self._executor = executor
        self._catalog = catalog
        self._live = live
        self._replaying = asyncio.Lock()  # one replay at a time: replays occupy a core

    async def in_store(self, work: Callable[[Store], T]) -> T:
        """Run a function of the store on the store's thread, and return its result."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, work, self._store)

    # ------------------------------------------------------------------------------ reading

    async def find_all(self, run_ids: Sequence[str]) -> dict[str, StoredRun]:
        """Return the runs that exist of some ids, by id.

        Raises:
            AdvisorError: an id is malformed, or the store fails, or has a damaged one.
        """
        return await self._after_flush(run_ids, lambda store: store.get(run_ids))

    async def get_all(self, run_ids: Sequence[str]) -> list[StoredRun]:
        """Return runs in the order of the ids.

        Raises:
            AdvisorError: as `find_all`, or there is no run of one of the ids.
        """
        found = await self.find_all(run_ids)
        return [required(found, run_id) for run_id in run_ids]

    async def get(self, run_id: str) -> StoredRun:
        """Return a run as `get_all` does."""
        (stored,) = await self.get_all([run_id])
        return stored

    async def get_durable(self, run_id: str) -> StoredRun:
        """Return a run as it is stored, without flushing newer answers first.

        Raises:
            AdvisorError: the id is malformed, there is no run of it, or the store fails.
        """
        check_full_name(run_id)
        return required(await self.in_store(lambda store: store.get([run_id])), run_id)

    async def count_unfinished(self, tenant: str) -> int:
        """Return how many runs of a tenant are not finished."""
        return await self.in_store(lambda store: store.count_unfinished(tenant))

    async def _after_flush(self, run_ids: Sequence[str], read: Callable[[Store], T]) -> T:
        for run_id in run_ids:
            check_full_name(run_id)
        await self._live.flush(run_ids)
        return await self.in_store(read)

    async def views(self, runs: Sequence[StoredRun]) -> list[RunView]:
        """Return runs as `view_of` does, each with its newest stored meta update.

        Raises:
            AdvisorError: the store fails.
        """
        views = [view_of(run, self._live.find(run.run_id)) async for run in cooperatively(runs)]
        keys = [run.key for run in runs if run.config.meta is not None]
        if not keys:
            return views
        last = await self.in_store(lambda store: store.last_updates(keys))
        return [replace(view, last_update=last.get(run.key)) for view, run in zip(views, runs, strict=True)]

    # ---------------------------------------------------------------------------- ownership
    def acquired(self, run_ids: Sequence[str]) -> AbstractAsyncContextManager[dict[str, StoredRun]]:
        """Yield runs as `find_all` does, and keep their shards owned by this daemon while the block runs.

        Raises:
            AdvisorError: another replica owns one of them (`Reason.NOT_OWNER`), or as `find_all`.
        """
        return self._acquired(lambda: self.find_all(run_ids), {})

    def acquired_keys(self, run_ids: Sequence[str]) -> AbstractAsyncContextManager[dict[str, RunKey]]:
        """Yield the keys of runs as `acquired` does, also of runs that are damaged."""
        return self._acquired(lambda: self._after_flush(run_ids, lambda store: store.find(run_ids)), {})

    def acquired_to_open(
        self, shards: Mapping[str, int], to_drop: Collection[str]
    ) -> AbstractAsyncContextManager[dict[str, StoredRun | RunKey]]:
        """Yield runs as `acquired` does, but only the keys of runs that are to be dropped, damaged or not.

        Args:
            shards: the shards in which the call would create the runs, by id.
            to_drop: the ids of runs that are to be dropped.

        Raises:
            AdvisorError: as `acquired`.
        """
        others, dropped = [one for one in shards if one not in to_drop], list(to_drop)

        def read(store: Store) -> dict[str, StoredRun | RunKey]:
            return {**store.get(others), **(store.find(dropped) if dropped else {})}

        return self._acquired(lambda: self._after_flush(list(shards), read), shards)

    @asynccontextmanager
    async def _acquired(
        self, read: Callable[[], Awaitable[dict[str, K]]], new: Mapping[str, int]
    ) -> AsyncIterator[dict[str, K]]:
        while True:
            before = self.ownership.epochs
            runs = await read()
            shards = {run.shard for run in runs.values()}
            shards |= {shard for run_id, shard in new.items() if run_id not in runs}
            async with self.ownership.acquired(shards):
                now = self.ownership.epochs
                if all(before.get(shard) == now.get(shard) for shard in shards):
                    yield runs
                    return
            # A shard was acquired since the read: its previous owner may have stored more after it.

    # ------------------------------------------------------------------------------ replays

    async def replay_unloaded(self, runs: Iterable[StoredRun]) -> dict[str, ReplayedRun]:
        """Replay the runs that are in meta mode and not in memory, as loading them needs; return them by id.

        Raises:
            AdvisorError: the store fails, or a record is damaged.
        """
        return {
            run.run_id: await self.replay(run)
            for run in runs
            if run.config.meta is not None and self._live.find(run.run_id) is None
        }

    async def replay(self, run: StoredRun, before_step: int | None = None) -> ReplayedRun:
        """Return a run as it was before a step, by default its next; replays run one at a time.

        Raises:
            AdvisorError: as `replay_unloaded`.
        """
        await self._live.code.ready_for([run])
        policy = policy_of(run, self._catalog)
        reading = StoreThreadReading(self._store, self._executor)
        try:
            async with self._replaying:
                return await asyncio.to_thread(replay_stored, reading, run, policy, before_step)
        finally:
            reading.cancelled.set()


def required(runs: Mapping[str, T], run_id: str) -> T:
    """Return a run by id.

    Raises:
        AdvisorError: there is none.
    """
    if run_id not in runs:
        raise run_not_found(run_id)
    return runs[run_id]
