"""Reading runs: one, a list, a record as it grows, and answers given long ago."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import numpy.typing as npt

from mlrs_core.policy import Rows, Steps
from mlrs_server.adapting.updates import MetaUpdate
from mlrs_server.answers import Answer, same_losses, stale_handle, stale_step
from mlrs_server.entries import ANSWERED, Entries, Table, find_answers
from mlrs_server.errors import AdvisorError, draining, moved_elsewhere, record_lacking, run_not_found
from mlrs_server.ledger import AdviceReason, RunStatus
from mlrs_server.live import LiveRuns, RunView
from mlrs_server.replay import PAGE
from mlrs_server.runs import RunGroup
from mlrs_server.store import Observations, Recency, Store, StoredRun
from mlrs_server.store.chunks import NO_RECORD
from mlrs_server.watchers import Watchers


class RunRecords:
    """Reads runs and their records. Used from one event loop."""

    def __init__(self, live: LiveRuns, watchers: Watchers) -> None:
        """`watchers` is where followers of runs wait."""
        self._live = live
        self._watchers = watchers

    def drain(self) -> None:
        """Let every follower go, once it has what there is."""
        self._watchers.drain()

    async def get(self, run_id: str) -> RunView:
        """Return a run.

        Raises:
            AdvisorError: there is no such run.
        """
        (view,) = await self._live.views([await self._live.required(run_id)])
        return view

    async def list(
        self, *, prefix: str, status: RunStatus | None, after: str | Recency, limit: int, tenant: str = ""
    ) -> list[RunView]:
        """Return a tenant's runs: ordered by id, beyond the id `after`, or by recency; ids are bare."""

        def read(store: Store) -> Sequence[StoredRun]:
            if isinstance(after, Recency):
                return store.list_recent(
                    prefix=prefix, status=status, after=after, limit=limit, tenant=tenant
                )
            return store.list(prefix=prefix, status=status, after=after, limit=limit, tenant=tenant)

        # What was answered last may have changed both.
        if isinstance(after, Recency) or status in {RunStatus.ACTIVE, RunStatus.DIVERGED}:
            await self._live.flush(await self._live.undurable(tenant, prefix))
        stored = await self._live.in_store(read)
        await self._live.flush([run.run_id for run in stored])
        return await self._live.views(stored)

    async def recall(self, answer: Answer) -> None:
        """Answer, in place, the entries that were answered before: from memory, else from the store."""
        recalls, answer.recalls = answer.recalls, []
        for group, places in recalls:
            entries = Entries(answer.entries.table[places])
            try:
                given = await self._given(group, entries)
            except AdvisorError as error:
                answer.errors |= dict.fromkeys(places.tolist(), error)
                continue
            gathers = group.records["gathers"][entries.rows] != 0  # then each rank has a loss of its own
            right = (given["reason"] != 0) & (gathers | same_losses(given["loss"], entries.losses))
            answer.entries.lrs[places[right]] = given["lr"][right]
            answer.entries.reasons[places[right]] = AdviceReason.REPLAYED
            for index in np.flatnonzero(~right).tolist():
                problem = await self._problem(group, entries.table[index], given[index])
                answer.errors[int(places[index])] = problem

    async def _given(self, group: RunGroup, entries: Entries) -> Table:
        """Return what was answered for entries of runs that are open, (k,) of `ANSWERED`.

        The reason is 0 where that cannot be read, or where the run has gone meanwhile.

        Raises:
            AdvisorError: the store fails.
        """
        given = np.zeros(len(entries), ANSWERED)
        rows, steps = np.ascontiguousarray(entries.rows), np.ascontiguousarray(entries.steps)
        keys = group.records["key"][rows]
        unstored = group.log.unstored()  # what is not among it is stored
        await asyncio.to_thread(_find, unstored, rows, steps, given)
        missing = np.flatnonzero((given["reason"] == 0) & (group.records["handle"][rows] == entries.handles))
        for start in range(0, len(missing), PAGE):
            some = missing[start : start + PAGE]
            record = await self._live.in_store(partial(_recalled, keys=keys[some], steps=steps[some]))
            given["loss"][some], given["lr"][some] = record.losses, record.lrs
            given["reason"][some] = record.reasons
        return given

    async def _problem(self, group: RunGroup, entry: np.void, given: np.void) -> AdvisorError:
        """Return why an entry that was answered before gets no answer."""
        row, step = int(entry["row"]), int(entry["step"])
        if group.records["handle"][row] != entry["handle"]:  # it was rewound, or is gone, since it was asked
            return stale_handle()
        run_id, record = group.run_ids[row], group.records[row]
        if given["reason"] != 0:
            return stale_step(run_id, step, float(given["loss"]), int(record["next_step"]))
        key = int(record["key"])
        try:
            await self._live.in_store(lambda store: store.read(key, step, 1))
        except AdvisorError as error:  # which says what is wrong
            return error
        return record_lacking(run_id, step)

    async def watch(
        self, run_id: str, from_step: int, *, follow: bool
    ) -> AsyncIterator[tuple[RunView, int, Observations]]:
        """Yield a run's record from a step on, and with `follow` as it grows until the run is finished.

        A follower gets what is durable, and never makes the store write. Without `follow`, what was answered
        of the run before the call is stored first.

        With each stretch come the meta updates made since the one before, of steps up to its last: that of
        the last step may come with the next.

        Steps that a rewind drops are sent again once they are observed again.

        Yields:
            The run, the first step of the stretch, and the stretch; first of all an empty stretch.

        Raises:
            AdvisorError: there is no such run (any more), or a follower must go as the daemon drains.
        """
        with self._watchers.following(run_id, from_step) as watcher:
            if follow:  # only the run's owner hears of news
                stored = await self._live.durable(run_id)
                async with self._live.ownership.using({stored.shard}):
                    pass
                (view,) = await self._live.views([stored])
            else:
                view = await self.get(run_id)
            yield view, from_step, NO_RECORD
            told = max(from_step - 1, 0)  # the first step whose meta update was not told yet
            while True:
                watcher.grown.clear()
                watcher.rewound = False
                told = min(told, watcher.step)  # updates that a rewind dropped are told again, too
                stored = await self._live.durable(run_id)
                first, end = watcher.step, stored.snapshot.next_step
                record = await self._live.in_store(partial(_read, stored.key, first))
                updates = await self._updates(stored, max(told, first - 1), first + len(record))
                if watcher.gone:
                    raise run_not_found(run_id)
                if watcher.moved and follow:  # the store has what there is
                    raise moved_elsewhere(run_id)
                if watcher.rewound:  # what was read may be of before
                    continue
                if len(record) or updates:
                    watcher.step += len(record)
                    told = updates[-1].step + 1 if updates else told
                    yield self._live.view(stored), first, replace(record, updates=updates)
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
        return await self._live.in_store(lambda store: store.read_updates(stored.key, first, end - first))


def _find(unstored: Sequence[Table], rows: Rows, steps: Steps, given: Table) -> None:
    """Fill what was answered for steps of rows, (k,) each, where it is in a log that is not stored yet."""
    for answers in unstored:
        places = np.empty_like(steps)
        find_answers(answers, rows, steps, np.zeros(rows.max() + 1, np.int64), places)
        found = places >= 0
        given[found] = answers[places[found]]


def _read(key: int, first: int, store: Store) -> Observations:
    return store.read(key, first, PAGE)


def _recalled(store: Store, keys: npt.NDArray[np.int64], steps: Steps) -> Observations:
    return store.recall(keys, steps)
