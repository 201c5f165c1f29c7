"""Reading runs: one, a list, a record as it grows, and answers given long ago."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

import numpy as np

from mlrs_server.adapting.updates import MetaUpdate
from mlrs_server.answers import Answer, Recall, same_losses, stale_step
from mlrs_server.errors import AdvisorError, draining, moved_elsewhere, record_lacking, run_not_found
from mlrs_server.ledger import AdviceReason, RunStatus
from mlrs_server.live import PAGE, LiveRuns, RunView
from mlrs_server.store import Observations, Recency, Store, StoredRun
from mlrs_server.watchers import Watchers

_NO_RECORD = Observations(np.empty(0), np.empty(0), np.empty(0, np.uint8))


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
        """Answer, in place, the entries whose answers are in the store."""
        recalls, answer.recalls = answer.recalls, []
        by_run: dict[str, list[Recall]] = {}
        for entry in sorted(recalls, key=lambda entry: entry.step):
            by_run.setdefault(entry.run_id, []).append(entry)
        for run_id, entries in by_run.items():
            try:
                await self._recall_run(run_id, entries, answer)
            except AdvisorError as error:
                unanswered = [entry.index for entry in entries if not answer.entries.reasons[entry.index]]
                answer.errors = {**dict.fromkeys(unanswered, error), **answer.errors}

    async def _recall_run(self, run_id: str, entries: Sequence[Recall], answer: Answer) -> None:
        """Answer entries of one run, in the order of their steps, reading its record in pages."""
        stored = await self._live.required(run_id)
        first, record = 0, _NO_RECORD
        for entry in entries:
            if entry.step >= first + len(record):
                first, limit = entry.step, min(PAGE, entries[-1].step - entry.step + 1)
                record = await self._live.read(stored, first, limit)
                if not len(record):
                    raise record_lacking(run_id, first)
            at = entry.step - first
            if entry.loss is None or same_losses(record.losses[at : at + 1], np.array([entry.loss]))[0]:
                answer.entries.lrs[entry.index] = record.lrs[at]
                answer.entries.reasons[entry.index] = AdviceReason.REPLAYED
            else:
                answer.errors[entry.index] = stale_step(
                    run_id, entry.step, float(record.losses[at]), self._live.next_step(stored)
                )

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
            yield view, from_step, _NO_RECORD
            told = max(from_step - 1, 0)  # the first step whose meta update was not told yet
            while True:
                watcher.grown.clear()
                watcher.rewound = False
                told = min(told, watcher.step)  # updates that a rewind dropped are told again, too
                stored = await self._live.durable(run_id)
                first, end = watcher.step, stored.snapshot.next_step
                record = await self._live.read(stored, first, PAGE)
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
