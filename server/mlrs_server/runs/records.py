"""Reading runs: one, a list, and a record as it grows."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from functools import partial

from mlrs_server.domain.ledger import RunStatus
from mlrs_server.domain.run_events import RecordedEvent
from mlrs_server.domain.updates import MetaUpdate
from mlrs_server.errors import (
    draining,
    moved_elsewhere,
    record_lacking,
    run_not_found,
)
from mlrs_server.live.live_runs import LiveRuns
from mlrs_server.live.replay import PAGE, PAGE_CHUNKS
from mlrs_server.live.stored_runs import StoredRuns
from mlrs_server.live.views import RunView, view_of
from mlrs_server.runs.watchers import Watchers
from mlrs_server.storage import ANY, Observations, Position, Recency, RunTraits, Store, StoredRun
from mlrs_server.storage.chunks import NO_RECORD


class RunRecords:
    """Reads runs and their records. Used from one event loop."""

    def __init__(self, live: LiveRuns, stored: StoredRuns, watchers: Watchers) -> None:
        """Read runs from `live` and `stored`; followers of runs wait in `watchers`."""
        self._live = live
        self._stored = stored
        self._watchers = watchers

    def drain(self) -> None:
        """End every follower once it has read what is stored."""
        self._watchers.drain()

    async def get(self, run_id: str) -> RunView:
        """Return a run.

        Raises:
            AdvisorError: there is no such run.
        """
        (view,) = await self._stored.views([await self._stored.get(run_id)])
        return view

    async def events(self, run_id: str, after: int) -> Sequence[RecordedEvent]:
        """Return the events of a run beyond a number, in order.

        Raises:
            AdvisorError: there is no such run.
        """
        run = await self._stored.get_durable(run_id)
        return await self._stored.in_store(lambda store: store.run_events(run.key, after))

    async def list(
        self,
        *,
        prefix: str,
        status: RunStatus | None,
        after: Position,
        limit: int,
        tenant: str = "",
        traits: RunTraits = ANY,
    ) -> list[RunView]:
        """Return a tenant's runs beyond a position, in its order; ids lack the tenant."""

        def read(store: Store) -> Sequence[StoredRun]:
            return store.list(
                prefix=prefix, status=status, after=after, limit=limit, tenant=tenant, traits=traits
            )

        # Answers that are not stored may have changed the status and the time of the last update.
        if isinstance(after, Recency) or status in {RunStatus.ACTIVE, RunStatus.DIVERGED}:
            await self._live.flush(await self._live.unflushed(tenant, prefix))
        stored = await self._stored.in_store(read)
        await self._live.flush([run.run_id for run in stored])
        return await self._stored.views(stored)

    async def watch(
        self, run_id: str, from_step: int, *, follow: bool
    ) -> AsyncIterator[tuple[RunView, int, Observations]]:
        """Yield a run's record from a step on, and with `follow` as it grows until the run is finished.

        A follower gets only what is durable, and never causes a flush. Without `follow`, what was answered of
        the run before the call is stored first.

        Each stretch carries the meta updates of steps up to its last that were not sent before. The update of
        its last step may come with the next stretch.

        Steps that a rewind drops are sent again once they are observed again.

        Yields:
            The run, the first step of the stretch, and the stretch. The first stretch is empty.

        Raises:
            AdvisorError: there is no such run, it was deleted, or the daemon drains.
        """
        with self._watchers.following(run_id, from_step) as watcher:
            if follow:  # only the run's owner wakes its followers
                stored = await self._stored.get_durable(run_id)
                async with self._stored.ownership.acquired({stored.shard}):
                    pass
                (view,) = await self._stored.views([stored])
            else:
                view = await self.get(run_id)
            yield view, from_step, NO_RECORD
            sent = max(from_step - 1, 0)  # the first step whose meta update was not sent yet
            stretches = _Stretches(self._stored)
            while True:
                watcher.grown.clear()
                anew, watcher.rewound = watcher.rewound, False
                sent = min(sent, watcher.step)  # the updates that a rewind dropped are sent again, too
                stored = await self._stored.get_durable(run_id)
                first, end = watcher.step, stored.snapshot.next_step
                record = await stretches.read(stored.key, first, anew=anew)
                updates = await self._updates(stored, max(sent, first - 1), first + len(record))
                if watcher.gone:
                    raise run_not_found(run_id)
                if watcher.moved and follow:  # without `follow`, the store has all of it
                    raise moved_elsewhere(run_id)
                if watcher.rewound:  # what was read may be from before the rewind
                    continue
                if len(record) or updates:
                    watcher.step += len(record)
                    sent = updates[-1].step + 1 if updates else sent
                    yield view_of(stored, self._live.find(run_id)), first, replace(record, updates=updates)
                elif first < end:
                    raise record_lacking(run_id, first)
                elif not follow or stored.snapshot.status == RunStatus.FINISHED:
                    return
                elif self._watchers.draining:
                    raise draining()
                else:
                    await watcher.grown.wait()

    async def _updates(self, stored: StoredRun, first: int, end: int) -> Sequence[MetaUpdate]:
        """Return a run's meta updates of [first, end), if it is in meta mode."""
        if stored.config.meta is None or end <= first:
            return ()
        return await self._stored.in_store(lambda store: store.read_updates(stored.key, first, end - first))


class _Stretches:
    """Reads a record in stretches that fit into messages: each chunk once, which may be larger than those."""

    def __init__(self, stored: StoredRuns) -> None:
        self._stored = stored
        self._ahead = NO_RECORD

    async def read(self, key: int, first: int, *, anew: bool) -> Observations:
        """Return the steps from `first` on, which follow those of the last call unless they are read anew."""
        if anew or not len(self._ahead):
            self._ahead = await self._stored.in_store(partial(_read, key, first))
        stretch, self._ahead = self._ahead.cut(0, PAGE), self._ahead.cut(PAGE, len(self._ahead))
        return stretch


def _read(key: int, first: int, store: Store) -> Observations:
    return store.read(key, first, PAGE, most_chunks=PAGE_CHUNKS)
