"""The runs in memory: how they are found, loaded, closed and dropped.

Calls about one run exclude each other: each holds the lock of the run's id.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt

from mlrs_server.domain.ledger import RunStatus
from mlrs_server.errors import AdvisorError, DamagedError
from mlrs_server.live.arrays import RunGroup
from mlrs_server.live.journal import Journal
from mlrs_server.live.machine_code import MachineCode
from mlrs_server.live.replay import ReplayedRun
from mlrs_server.live.run_groups import LiveRun, RunGroups
from mlrs_server.models.catalog import ModelCatalog
from mlrs_server.storage import NewRun, StoredRun
from mlrs_server.system.cooperative import cooperatively
from mlrs_server.tenancy import full_name, number_of


class LiveRuns:
    """The runs in memory. Used from one event loop."""

    def __init__(self, catalog: ModelCatalog, journal: Journal) -> None:
        """Serve runs with the models of `catalog`; `journal` stores their answers."""
        self._run_groups = RunGroups(catalog, self._drop_done)
        self.groups = self._run_groups.groups
        self.at = self._run_groups.at
        self.journal = journal
        self.code = MachineCode(catalog)
        """Whoever loads a run waits first until the code for it is ready."""
        self.on_ranks: Callable[[int, bool], None] = lambda _handle, _restarted: None
        """Called when a run is closed or finished, or its ranks change, with its handle (0 for any number of
        runs) and whether it continues from a checkpoint."""
        self._live: dict[str, LiveRun] = {}
        self._locks: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()

    def find(self, run_id: str) -> LiveRun | None:
        """Return the slot of a run, if it is in memory."""
        return self._live.get(run_id)

    def count(self) -> int:
        """Return how many runs are in memory. May be called on any thread."""
        return len(self._live)

    # -------------------------------------------------------------------------------- locks

    def lock(self, run_id: str) -> asyncio.Lock:
        """Return the lock of a run's id, which a call about the run holds."""
        lock = self._locks.get(run_id)
        if lock is None:
            lock = self._locks[run_id] = asyncio.Lock()
        return lock

    @asynccontextmanager
    async def locked(self, run_ids: Iterable[str]) -> AsyncIterator[None]:
        """Hold the locks of different runs, acquired in the order of the ids to avoid deadlock."""
        async with AsyncExitStack() as held:
            for run_id in sorted(run_ids):
                await held.enter_async_context(self.lock(run_id))
            yield

    def _is_locked(self, run_id: str) -> bool:
        lock = self._locks.get(run_id)
        return lock is not None and lock.locked()

    # ------------------------------------------------------------------------------ storing

    async def flush(self, run_ids: Iterable[str]) -> None:
        """Store everything answered of some runs before this call, and nothing of other runs.

        Raises:
            AdvisorError: the store cannot be written.
        """
        live = (self._live.get(run_id) for run_id in run_ids)
        await self.journal.flush_rows((run.group, run.row) for run in live if run and run.has_unflushed())

    async def unflushed(self, tenant: str, prefix: str) -> list[str]:
        """Return the ids of a tenant's runs that begin with a prefix and have answers that are not stored."""
        first, number, found = full_name(tenant, prefix), number_of(tenant), list[str]()
        for group in list(self.groups):
            records = group.records
            rows = (records["tenant"] == number) & (records["durable_step"] < records["next_step"] - 1)
            async for row in cooperatively(np.flatnonzero(rows).tolist()):
                if row < len(group.run_ids) and (run_id := group.run_ids[row]).startswith(first):
                    found.append(run_id)
        return found

    def has_unflushed(self, run_id: str) -> bool:
        """Return whether a run has answers that are not known to be stored."""
        live = self._live.get(run_id)
        return live is not None and live.has_unflushed()

    def is_unstored(self, run_id: str) -> bool:
        """Return whether a run has answers, none of which is known to be stored."""
        live = self._live.get(run_id)
        return live is not None and bool(live.record["durable_step"] < 0 < live.record["next_step"])

    def next_step(self, stored: StoredRun) -> int:
        """Return the step that a run expects."""
        live = self._live.get(stored.run_id)
        return int(live.record["next_step"]) if live else stored.snapshot.next_step

    def status(self, stored: StoredRun) -> RunStatus:
        """Return the status of a run."""
        live = self._live.get(stored.run_id)
        return live.status if live else stored.snapshot.status

    # --------------------------------------------------------------------- loading, dropping

    def load(self, stored: StoredRun, replayed: ReplayedRun | None = None) -> LiveRun:
        """Return the slot of a run, loading it if it is not in memory; a run in meta mode as replayed.

        Raises:
            AdvisorError: its model or its state is damaged, or memory is full.
        """
        if live := self._live.get(stored.run_id):
            return live
        with self.reserved(stored) as slot:
            if len(stored.snapshot.state) != slot.group.policy.state_size:
                raise DamagedError(f"the stored state of run {stored.run_id!r} does not fit its model")
            self.put(slot, stored, replayed)
        return slot

    @contextmanager
    def reserved(self, run: NewRun) -> Iterator[LiveRun]:
        """Reserve a slot for a run that is about to be stored: its own, closed meanwhile, or a new one.

        The block ends with `put`. If the block fails, nothing has changed.

        Raises:
            AdvisorError: its model is damaged, or memory is full.
        """
        if live := self._live.get(run.run_id):
            with self.closed(run.run_id):
                yield live
            return
        with self.reserved_new(run) as slot:
            yield slot

    @contextmanager
    def reserved_new(self, run: NewRun) -> Iterator[LiveRun]:
        """Reserve a new slot as `reserved` does. A run of the same id is closed meanwhile.

        The block drops that run before `put`.
        """
        with self.closed(run.run_id):
            slot = self._run_groups.reserve(run)
            try:
                yield slot
            except BaseException:
                slot.group.free(slot.row)
                raise

    def put(self, slot: LiveRun, stored: StoredRun, replayed: ReplayedRun | None = None) -> None:
        """Put a run, as stored, into the slot reserved for it, under a new handle."""
        slot.group.put(
            slot.row,
            stored.run_id,
            stored.key,
            stored.config,
            stored.snapshot,
            shard=stored.shard,
            network=replayed.network if replayed else None,
            world_size=stored.world_size,
        )
        if replayed is not None:
            slot.group.meta.begin(
                slot.row, replayed.network_step, replayed.updates_since, lost=replayed.network_damaged
            )
        self._live[stored.run_id] = slot

    @contextmanager
    def closed(self, run_id: str) -> Iterator[None]:
        """Keep a run from taking observations while the block runs.

        Its handle is restored afterwards if the run is still in memory and has no other handle.
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
        """Give a run a new handle, if it is in memory. Its old handles become stale."""
        if (live := self._live.get(run_id)) and live.handle:
            self.on_ranks(live.group.renew(live.row), False)

    def drop(self, run_id: str) -> None:
        """Drop a closed run from memory, if it is there."""
        if live := self._live.pop(run_id, None):
            live.group.free(live.row)

    @contextmanager
    def dropped_if_ambiguous(self, run_id: str) -> Iterator[None]:
        """Drop a closed run, all of which is stored, if the block fails and the store may have changed it.

        The next call loads it from the store.
        """
        try:
            yield
        except BaseException as error:
            if not isinstance(error, AdvisorError) or error.ambiguous:
                self.drop(run_id)
            raise

    def drop_rows(self, group: RunGroup, rows: Iterable[int], limit: int | None = None) -> int:
        """Drop runs of a group that are stored, at most `limit`; return how many were dropped.

        Runs whose lock is held stay: a call may be changing them.
        """
        dropped = 0
        free = (row for row in map(int, rows) if not self._is_locked(group.run_ids[row]))
        for row in islice(free, limit):
            group.close(row)
            self.drop(group.run_ids[row])
            dropped += 1
        self.on_ranks(0, False)
        return dropped

    def _drop_done(self, group: RunGroup, limit: int | None) -> None:
        """Drop runs of a group that are finished and stored."""
        self.drop_rows(group, group.done_rows(), limit)

    def shrink(self) -> None:
        """Free the memory of dropped runs: a dictionary never shrinks by itself."""
        self._live = dict(self._live)
        self._locks = weakref.WeakValueDictionary(self._locks)

    # ------------------------------------------------------------------------------- shards

    def close_shards(self, shards: Collection[int]) -> list[ClosedRows]:
        """Close the runs of some shards; return what reopens them."""
        closed = [ClosedRows.of(group, group.rows_of(shards)) for group in self.groups]
        self.on_ranks(0, False)
        return closed

    def forget_shards(self, shards: Collection[int]) -> None:
        """Close the runs of some shards, and discard what is not stored of them."""
        for closed in self.close_shards(shards):
            self.journal.forget(closed.group, closed.rows)

    async def drop_shards(self, shards: Collection[int]) -> list[str]:
        """Drop the runs of some shards, and what is not stored of them; return their ids.

        No call may be changing one of them meanwhile.
        """
        dropped = list[str]()
        async with self.journal.between_flushes():
            for group in list(self.groups):
                rows = group.rows_of(shards)
                self.journal.forget(group, rows)
                group.records["handle"][rows] = 0
                async for row in cooperatively(map(int, rows)):
                    if run_id := group.run_ids[row]:  # else it was idle, and was dropped meanwhile
                        self.drop(run_id)
                        dropped.append(run_id)
        self.on_ranks(0, False)
        return dropped


@dataclass(frozen=True)
class ClosedRows:
    """Rows of a group that were closed together, which `reopen` opens again."""

    group: RunGroup
    rows: npt.NDArray[np.intp]
    """(k,)."""
    keys: npt.NDArray[np.int64]
    """The keys of their runs, (k,)."""
    handles: npt.NDArray[np.uint64]
    """The handles of the rows, (k,); 0 where a row was closed before."""

    @classmethod
    def of(cls, group: RunGroup, rows: npt.NDArray[np.intp]) -> ClosedRows:
        """Close rows of a group."""
        keys, handles = group.records["key"][rows], group.records["handle"][rows]
        group.records["handle"][rows] = 0
        return cls(group, rows, keys, handles)

    def reopen(self) -> None:
        """Restore the handles of rows that still hold the same runs."""
        records = self.group.records
        same = records["key"][self.rows] == self.keys
        records["handle"][self.rows[same]] = self.handles[same]
