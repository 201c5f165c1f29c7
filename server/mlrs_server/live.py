"""Which runs are in memory and where, and the way to the store.

Calls about one run take turns (a lock per run id); the store's thread does all reading and writing.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from typing import TypeVar

import numpy as np

from mlrs_core.adapting import MetaCounters, counters_of
from mlrs_core.config import RunConfig
from mlrs_server.adapting.updates import MetaUpdate
from mlrs_server.errors import DamagedError, run_not_found
from mlrs_server.journal import MAX_UNDURABLE, Journal
from mlrs_server.ledger import RunStatus
from mlrs_server.models import ModelCatalog
from mlrs_server.names import bare, check_full_name, full_name, number_of
from mlrs_server.ownership import Ownership, SoleOwner
from mlrs_server.places import LiveRun, Places
from mlrs_server.policies import model_ref, policy_of
from mlrs_server.replay import ReplayedRun, StoreThreadReading, replay_stored
from mlrs_server.runs import ClosedRows, RunGroup, RunSnapshot, adaptive
from mlrs_server.store import NewRun, RunKey, Store, StoredRun
from mlrs_server.turns import in_turns

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class RunView:
    """A run as the outside sees it."""

    run_id: str
    config: RunConfig
    model_ref: str
    """`name@digest`; "" where the config has a schedule."""
    snapshot: RunSnapshot
    durable_step: int
    create_time: float
    update_time: float
    meta: MetaCounters | None = None
    """What became of its meta updates; `None` for a run without, and for one that is not in memory and was
    created before `NewRun.counters_at` was kept."""
    last_update: MetaUpdate | None = None
    """The newest of them, where it was asked for."""
    world_size: int = 0
    """The number of its ranks; 0 without `config.ranks`."""
    task: str = ""
    """What is trained, in the words of the run's tenant."""


class LiveRuns:
    """The runs in memory, beside the store they come from. Used from one event loop."""

    def __init__(
        self,
        store: Store,
        executor: Executor,
        catalog: ModelCatalog,
        *,
        flush_interval_s: float,
        on_flushed: Callable[[list[str]], None],
        max_undurable: int = MAX_UNDURABLE,
        ownership: Ownership | None = None,
    ) -> None:
        """`executor` is the store's one thread; `on_flushed` hears the ids of the runs stored.

        Without an ownership, every run is this daemon's.
        """
        self.ownership: Ownership = ownership or SoleOwner()
        self._places = Places(catalog, self._drop_done)
        self.groups = self._places.groups
        self.at = self._places.at
        self.journal = Journal(
            store,
            executor,
            interval_s=flush_interval_s,
            on_flushed=on_flushed,
            max_undurable=max_undurable,
        )
        self.on_ranks: Callable[[int, bool], None] = lambda _handle, _restarted: None
        """Hears when a run, by its handle, or any number of them, by 0, is closed or finished, or its ranks
        change; and whether it goes on from a checkpoint."""
        self._store = store
        self._catalog = catalog
        self._executor = executor
        self._live: dict[str, LiveRun] = {}
        self._replaying = asyncio.Lock()  # one at a time: they compute, and others need the cores
        self._locks: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()

    def lock(self, run_id: str) -> asyncio.Lock:
        """Return the lock under which calls about a run take turns."""
        lock = self._locks.get(run_id)
        if lock is None:
            lock = self._locks[run_id] = asyncio.Lock()
        return lock

    @asynccontextmanager
    async def locked(self, run_ids: Iterable[str]) -> AsyncIterator[None]:
        """Hold the locks of some runs, all different.

        They are taken in the order of the ids, so of two calls about overlapping runs one waits for the
        other, and never each for the other.
        """
        async with AsyncExitStack() as held:
            for run_id in sorted(run_ids):
                await held.enter_async_context(self.lock(run_id))
            yield

    def count(self) -> int:
        """Return how many runs are in memory; on any thread."""
        return len(self._live)

    # ---------------------------------------------------------------------------- the store

    async def in_store(self, work: Callable[[Store], T]) -> T:
        """Do something with the store, on its thread."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, work, self._store)

    async def stored(self, run_ids: Sequence[str]) -> dict[str, StoredRun]:
        """Return runs as stored, by id, with all that was answered before this call; without those not there.

        Raises:
            AdvisorError: an id is malformed, or the store fails.
        """
        return await self._after_flush(run_ids, lambda store: store.get(run_ids))

    async def places(self, run_ids: Sequence[str]) -> dict[str, RunKey]:
        """Return where runs are stored, as `stored` does; also those that are damaged."""
        return await self._after_flush(run_ids, lambda store: store.find(run_ids))

    async def stored_or_places(
        self, run_ids: Sequence[str], to_drop: Collection[str]
    ) -> dict[str, StoredRun | RunKey]:
        """Return runs as `stored` does, but of those that are to be dropped only their places."""
        kept = [run_id for run_id in run_ids if run_id not in to_drop]
        dropped = [run_id for run_id in run_ids if run_id in to_drop]
        return await self._after_flush(
            run_ids, lambda store: {**store.get(kept), **(store.find(dropped) if dropped else {})}
        )

    async def _after_flush(self, run_ids: Sequence[str], read: Callable[[Store], T]) -> T:
        for run_id in run_ids:
            check_full_name(run_id)
        await self.flush(run_ids)
        return await self.in_store(read)

    async def flush(self, run_ids: Iterable[str]) -> None:
        """Store everything answered about some runs before this call, and nothing of others.

        Raises:
            AdvisorError: the store cannot be written.
        """
        live = (self._live.get(run_id) for run_id in run_ids)
        await self.journal.flush_rows((run.group, run.row) for run in live if run and run.has_undurable())

    async def undurable(self, tenant: str, prefix: str) -> list[str]:
        """Return the ids of a tenant's runs that begin with a prefix and have more than is stored."""
        first, number, found = full_name(tenant, prefix), number_of(tenant), list[str]()
        for group in list(self.groups):
            records = group.records
            rows = (records["tenant"] == number) & (records["durable_step"] < records["next_step"] - 1)
            async for row in in_turns(np.flatnonzero(rows).tolist()):
                if row < len(group.run_ids) and (run_id := group.run_ids[row]).startswith(first):
                    found.append(run_id)
        return found

    async def durable(self, run_id: str) -> StoredRun:
        """Return a run as it is stored, without what was answered since.

        Raises:
            AdvisorError: the id is malformed, there is no run of it, or the store fails.
        """
        check_full_name(run_id)
        found = await self.in_store(lambda store: store.get([run_id]))
        if run_id not in found:
            raise run_not_found(run_id)
        return found[run_id]

    async def count_unfinished(self, tenant: str) -> int:
        """Return how many runs of a tenant are not finished."""
        return await self.in_store(lambda store: store.count_unfinished(tenant))

    async def required(self, run_id: str) -> StoredRun:
        """Return a run as `required_all` does."""
        (stored,) = await self.required_all([run_id])
        return stored

    async def required_all(self, run_ids: Sequence[str]) -> list[StoredRun]:
        """Return runs as `stored` does, in the order of the ids.

        Raises:
            AdvisorError: as `stored`, or there is no run of one of the ids.
        """
        stored = await self.stored(run_ids)
        for run_id in run_ids:
            if run_id not in stored:
                raise run_not_found(run_id)
        return [stored[run_id] for run_id in run_ids]

    # ------------------------------------------------------------------------------- memory

    def find(self, run_id: str) -> LiveRun | None:
        """Return where a run is, if it is in memory."""
        return self._live.get(run_id)

    async def replay_unloaded(self, runs: Iterable[StoredRun]) -> dict[str, ReplayedRun]:
        """Return the runs, by id, that are in meta mode and not in memory, replayed: `load` needs it.

        Raises:
            AdvisorError: the store fails, or a record is damaged.
        """
        return {
            run.run_id: await self.replay(run)
            for run in runs
            if run.config.meta is not None and run.run_id not in self._live
        }

    async def replay(self, run: StoredRun, before_step: int | None = None) -> ReplayedRun:
        """Return a run as it was before a step, by default its next; replays run one at a time.

        Raises:
            AdvisorError: as `replay_unloaded`.
        """
        policy = policy_of(run, self._catalog)
        reading = StoreThreadReading(self._store, self._executor)
        try:
            async with self._replaying:
                return await asyncio.to_thread(replay_stored, reading, run, policy, before_step)
        finally:
            reading.cancelled.set()

    def load(self, stored: StoredRun, replayed: ReplayedRun | None = None) -> LiveRun:
        """Return where a run is, taking it into memory if it is not there; one in meta mode as replayed.

        Raises:
            AdvisorError: its model or its state is damaged, or there is no room.
        """
        if live := self._live.get(stored.run_id):
            return live
        with self.reserved(stored) as place:
            if len(stored.snapshot.state) != place.group.policy.state_size:
                raise DamagedError(f"the stored state of run {stored.run_id!r} does not fit its model")
            self.put(place, stored, replayed)
        return place

    @contextmanager
    def reserved(self, run: NewRun) -> Iterator[LiveRun]:
        """Keep a place for a run that is about to be stored: its own, closed meanwhile, or a new one.

        The block ends with `put`. If it fails, all is as before.

        Raises:
            AdvisorError: its model is damaged, or there is no room.
        """
        if live := self._live.get(run.run_id):
            with self.closed(run.run_id):
                yield live
            return
        with self.reserved_new(run) as place:
            yield place

    @contextmanager
    def reserved_new(self, run: NewRun) -> Iterator[LiveRun]:
        """Keep a new place for a run as `reserved` does; one of its id that it replaces is closed meanwhile.

        That one is dropped before `put`.
        """
        with self.closed(run.run_id):
            place = self._places.new_place(run)
            try:
                yield place
            except BaseException:
                place.group.free(place.row)
                raise

    def put(self, place: LiveRun, stored: StoredRun, replayed: ReplayedRun | None = None) -> None:
        """Put a run, as stored, where a place is reserved for it, under a new handle."""
        place.group.put(
            place.row,
            stored.run_id,
            stored.key,
            stored.config,
            stored.snapshot,
            shard=stored.shard,
            network=replayed.network if replayed else None,
            world_size=stored.world_size,
        )
        if replayed is not None:
            place.group.meta.begin(
                place.row, replayed.network_step, replayed.updates_since, lost=replayed.network_damaged
            )
        self._live[stored.run_id] = place

    def drop(self, run_id: str) -> None:
        """Forget a closed run, if it is in memory."""
        if live := self._live.pop(run_id, None):
            live.group.free(live.row)

    @contextmanager
    def closed(self, run_id: str) -> Iterator[None]:
        """Let a run take no observation meanwhile.

        Its handle is good again after, if it is still there and was given no other.
        """
        live = self._live.get(run_id)
        if live is None:
            yield
            return
        handle = live.group.close(live.row)
        self.on_ranks(handle, False)
        try:
            yield
        finally:
            if self._live.get(run_id) is live and not live.handle:
                live.group.reopen(live.row, handle)

    def renew(self, run_id: str) -> None:
        """Give a run another handle, if it is in memory: those that it had become stale."""
        if (live := self._live.get(run_id)) and live.handle:
            self.on_ranks(live.group.renew(live.row), False)

    def drop_rows(self, group: RunGroup, rows: Iterable[int], limit: int | None = None) -> int:
        """Forget runs of a group that are stored, and return how many; they are loaded again when asked for.

        Those that a call is about stay: it may be changing them.
        """
        dropped = 0
        free = (row for row in map(int, rows) if not self._is_locked(group.run_ids[row]))
        for row in islice(free, limit):
            group.close(row)
            self.drop(group.run_ids[row])
            dropped += 1
        self.on_ranks(0, False)
        return dropped

    def close_shards(self, shards: Collection[int]) -> list[ClosedRows]:
        """Let the runs of some shards take no more observations; return what reopens them."""
        closed = [ClosedRows.of(group, group.rows_of(shards)) for group in self.groups]
        self.on_ranks(0, False)
        return closed

    def forget_shards(self, shards: Collection[int]) -> None:
        """Store nothing more of the runs of some shards, and let them take no more observations."""
        for closed in self.close_shards(shards):
            self.journal.forget(closed.group, closed.rows)

    async def drop_shards(self, shards: Collection[int]) -> list[str]:
        """Forget the runs of some shards, and what was not stored of them; return their ids.

        No call may be changing one of them meanwhile.
        """
        dropped = list[str]()
        async with self.journal.between_flushes():
            for group in list(self.groups):
                rows = group.rows_of(shards)
                self.journal.forget(group, rows)
                group.records["handle"][rows] = 0
                async for row in in_turns(map(int, rows)):
                    if run_id := group.run_ids[row]:  # else it was idle, and has left just now
                        self.drop(run_id)
                        dropped.append(run_id)
        self.on_ranks(0, False)
        return dropped

    def shrink(self) -> None:
        """Give back the memory of runs that were dropped: a dictionary keeps the size that it once had."""
        self._live = dict(self._live)
        self._locks = weakref.WeakValueDictionary(self._locks)

    def _drop_done(self, group: RunGroup, limit: int | None) -> None:
        """Forget runs of a group that are finished and stored."""
        self.drop_rows(group, group.done_rows(), limit)

    def _is_locked(self, run_id: str) -> bool:
        lock = self._locks.get(run_id)
        return lock is not None and lock.locked()

    # ------------------------------------------------------------------------ a run as it is

    def next_step(self, stored: StoredRun) -> int:
        """Return the step that a run expects."""
        live = self._live.get(stored.run_id)
        return int(live.group.records["next_step"][live.row]) if live else stored.snapshot.next_step

    def status(self, stored: StoredRun) -> RunStatus:
        """Return where a run stands."""
        live = self._live.get(stored.run_id)
        return live.status if live else stored.snapshot.status

    def has_undurable(self, run_id: str) -> bool:
        """Return whether a run has answers of which it is not known that they are stored."""
        live = self._live.get(run_id)
        return live is not None and live.has_undurable()

    def is_unstored(self, run_id: str) -> bool:
        """Return whether a run has answers, and it is not known of any of them that it is stored."""
        if (live := self._live.get(run_id)) is None:
            return False
        record = live.group.records[live.row]
        return bool(record["durable_step"] < 0 < record["next_step"])

    def view(self, stored: StoredRun) -> RunView:
        """Return a run as it is now: what moves, from memory where it is there."""
        live = self._live.get(stored.run_id)
        snapshot = live.group.snapshot(live.row) if live else stored.snapshot
        durable = int(live.group.records["durable_step"][live.row]) if live else snapshot.next_step - 1
        return RunView(
            run_id=stored.run_id,
            config=stored.config,
            model_ref=model_ref(stored),
            snapshot=snapshot,
            durable_step=durable,
            create_time=stored.create_time,
            update_time=stored.update_time,
            meta=_counters(stored, snapshot, live),
            world_size=stored.world_size,
            task=stored.task or bare(stored.run_id),
        )

    async def views(self, runs: Sequence[StoredRun]) -> list[RunView]:
        """Return runs as `view` does, each with the newest of its meta updates that is stored.

        Raises:
            AdvisorError: the store fails.
        """
        views = [self.view(run) async for run in in_turns(runs)]
        keys = [run.key for run in runs if run.config.meta is not None]
        if not keys:
            return views
        last = await self.in_store(lambda store: store.last_updates(keys))
        return [replace(view, last_update=last.get(run.key)) for view, run in zip(views, runs, strict=True)]


def _counters(stored: StoredRun, snapshot: RunSnapshot, live: LiveRun | None) -> MetaCounters | None:
    """Return what became of a run's meta updates, if there can be any; without its model."""
    if stored.config.meta is None:
        return None
    place = adaptive(live.group.policy).counters_at if live else stored.counters_at
    return counters_of(snapshot.state, place) if place else None
