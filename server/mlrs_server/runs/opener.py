"""Opening runs: creating, resuming and rewinding them, and loading those that are not in memory.

While a call awaits the store, the rows of its runs are closed or cannot move.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, ExitStack, nullcontext
from dataclasses import replace

import structlog

from mlrs_core.config import RunConfig
from mlrs_core.memory import PastRun
from mlrs_core.policy import put
from mlrs_server.domain.ledger import RunStatus
from mlrs_server.domain.run_events import RunEvent, RunEventKind
from mlrs_server.domain.run_snapshot import first_snapshot
from mlrs_server.domain.shards import shard_of
from mlrs_server.errors import about
from mlrs_server.failpoints import reach
from mlrs_server.live.live_runs import LiveRuns
from mlrs_server.live.policies import models_of, policy_key, policy_of
from mlrs_server.live.replay import ReplayedRun
from mlrs_server.live.stored_runs import StoredRuns, required
from mlrs_server.live.views import view_of
from mlrs_server.models.catalog import ModelCatalog, ModelsNow
from mlrs_server.models.files import SHORT_DIGEST
from mlrs_server.runs.changes import RunChanges, log_runs
from mlrs_server.runs.events import fallback_event, rewound_event
from mlrs_server.runs.feeders import Feeders
from mlrs_server.runs.needs import RunNeeds
from mlrs_server.runs.open_request import (
    Opened,
    OpenRequest,
    check_batch,
    config_to_resume,
    must_rewind,
    request_to_resume,
    run_to_create,
)
from mlrs_server.runs.remembering import Leaving, TaskMemory, begun_again, keeps_decision
from mlrs_server.runs.takeovers import Takeovers
from mlrs_server.runs.watchers import Watchers
from mlrs_server.storage import NewRun, RunKey, StoredRun
from mlrs_server.system.cooperative import cooperatively

log = structlog.get_logger()


def _no_quota(_names: Sequence[str]) -> AbstractAsyncContextManager[None]:
    return nullcontext()


class RunOpener:
    """Opens runs. Used from one event loop."""

    def __init__(
        self,
        live: LiveRuns,
        stored: StoredRuns,
        watchers: Watchers,
        catalog: ModelCatalog,
        changes: RunChanges,
        *,
        memory: TaskMemory | None = None,
        quota: Callable[[Sequence[str]], AbstractAsyncContextManager[None]] = _no_quota,
        feeders: Feeders | None = None,
    ) -> None:
        """Open runs of `live` and `stored`, with the models of `catalog`; notify `watchers` of rewinds.

        `quota` is entered while runs begin, and raises if there are too many; `feeders` are the connected
        processes.
        """
        self._live = live
        self._stored = stored
        self._watchers = watchers
        self._catalog = catalog
        self._changes = changes
        self._needs = RunNeeds(stored, catalog, live.code)
        self._memory = memory or TaskMemory(stored, catalog)
        self._quota = quota
        self._takeovers = Takeovers(live, stored, feeders or Feeders())

    async def handle_of(self, run_id: str) -> int:
        """Return the handle of a run, loading it if it is not in memory.

        Raises:
            AdvisorError: there is no such run.
        """
        if (live := self._live.find(run_id)) and (handle := live.handle):
            return handle
        async with self._live.lock(run_id), self._stored.acquired([run_id]) as runs:
            await self._needs.load(models_of(runs.values()))
            await self._live.code.ready_for(runs.values())
            replayed = await self._stored.replay_unloaded(runs.values())
            return self._live.load(required(runs, run_id), replayed.get(run_id)).handle

    async def open_many(self, requests: Sequence[OpenRequest]) -> list[Opened]:
        """Create or resume runs, with the same result as opening one after the other in order.

        First all requests are checked as far as possible. Then the new runs are created, all or none, and the
        runs that they replace are dropped with them. Then existing runs are rewound and completed, up to the
        first that fails, and taken over from other feeders.

        Raises:
            AdvisorError: as the contract's BatchOpenRuns says; of several errors, that of the first run.
        """
        check_batch("requests", [request.run_id for request in requests])
        await self._needs.prepare_code(requests)
        return await self._changes.to_the_end(self._open(requests))

    async def _open(self, requests: Sequence[OpenRequest]) -> list[Opened]:
        shards = {request.run_id: shard_of(request.group or request.run_id) for request in requests}
        to_drop = {request.run_id for request in requests if request.mode == "restart"}
        async with self._live.locked(shards):
            unstored = {run_id for run_id in shards if self._live.is_unstored(run_id)}
            async with (
                self._stored.acquired_to_open(shards, to_drop) as found,
                self._memory.deciding(requests, found),
            ):
                return await self._open_acquired(requests, found, unstored)

    async def _open_acquired(
        self,
        requests: Sequence[OpenRequest],
        found: Mapping[str, StoredRun | RunKey],
        unstored: Collection[str],
    ) -> list[Opened]:
        """Open the runs that were found, and new ones.

        Args:
            requests: what the call asks for.
            found: the runs that exist, by id; only the keys of runs that are to be dropped.
            unstored: the ids of runs that had answers when the call began, none of them known to be stored.
        """
        runs = {run.run_id: run for run in found.values() if isinstance(run, StoredRun)}
        dropped = [run for run_id, run in found.items() if run_id not in runs]
        taken_over = self._takeovers.from_connected(requests, found)
        models = await self._needs.models(requests, runs)
        await self._live.code.ready_for(runs.values())
        replayed = await self._stored.replay_unloaded(runs.values())
        existing = [(request, runs[request.run_id]) for request in requests if request.run_id in runs]
        asked = await self._checked(requests, runs, replayed, models, unstored)
        replaced = await self._memory.leaving({run.run_id for run in dropped})
        new = await self._remembered(asked, replaced, models)
        await self._live.code.ready_for(new)
        new = [replace(run, shard=found[run.run_id].shard) if run.run_id in found else run for run in new]
        async with self._quota(self._begun_by(new, found, existing)):
            ended = [one for leaving in replaced.values() for one in leaving.ended]
            created = await self._create(new, dropped, ended, among=len(requests))
            resumed = await self._resume(existing, models, unstored, among=len(requests))
            runs |= {run.run_id: run for run in (*created, *resumed)}
            reopened = [(request, runs[run.run_id]) for request, run in existing]
            await self._takeovers.take(reopened, taken_over)
            await self._record_fallbacks(requests, runs)
        is_new = {run.run_id for run in created} | {one.run_id for one in requests if one.mode == "create"}
        opened = []
        async for request in cooperatively(requests):
            run_id = request.run_id
            self._takeovers.note(request)
            live = self._live.load(runs[run_id], replayed.get(run_id))
            view = view_of(runs[run_id], live)
            opened.append(Opened(view, live.handle, run_id in is_new, run_id in taken_over))
        return opened

    # ----------------------------------------------------------------------------- checking

    def _begun_by(
        self,
        new: Sequence[NewRun],
        found: Mapping[str, RunKey],
        existing: Sequence[tuple[OpenRequest, StoredRun]],
    ) -> list[str]:
        """Return the ids of the runs that a call begins or resumes though they are finished."""
        done = RunStatus.FINISHED
        return [
            *(run.run_id for run in new if run.run_id not in found or found[run.run_id].status == done),
            *(run.run_id for _, run in existing if self._live.status(run) == done),
        ]

    async def _checked(
        self,
        requests: Sequence[OpenRequest],
        runs: Mapping[str, StoredRun],
        replayed: Mapping[str, ReplayedRun],
        models: ModelsNow,
        unstored: Collection[str],
    ) -> list[tuple[OpenRequest, NewRun]]:
        """Check all requests, and load the runs that exist into memory; return the runs to create."""
        new = []
        async for request in cooperatively(requests):
            with about(request.run_id, among=len(requests)):
                if (stored := runs.get(request.run_id)) is None:
                    new.append((request, run_to_create(request, models)))
                    continue
                self._takeovers.check(request, stored)
                asked = request_to_resume(stored, request, self._live, unstored=stored.run_id in unstored)
                config_to_resume(stored, asked, self._live, models)
                if not must_rewind(stored, asked, self._live):  # a rewound run is loaded with another state
                    self._live.load(stored, replayed.get(stored.run_id))
        return new

    async def _remembered(
        self,
        new: Sequence[tuple[OpenRequest, NewRun]],
        replaced: Mapping[str, Leaving],
        models: ModelsNow,
    ) -> list[NewRun]:
        """Return new runs with what the memory decides for them: for one that is begun again, what it did."""
        decided, others = dict[str, NewRun](), list[tuple[OpenRequest, NewRun]]()
        for request, run in new:
            before = replaced.get(run.run_id)
            if before is not None and keeps_decision(request, run, before):
                decided[run.run_id] = begun_again(run, before.run, models)
            else:
                others.append((request, run))
        decided |= {run.run_id: run for run in await self._memory.recalled(others, models)}
        return [decided[run.run_id] for _, run in new]

    # ----------------------------------------------------------------------------- changing

    async def _create(
        self,
        new: Sequence[NewRun],
        dropped: Sequence[RunKey],
        ended: Sequence[tuple[RunKey, PastRun]],
        *,
        among: int,
    ) -> list[StoredRun]:
        """Create runs that replace those dropped, which `ended`, all or none, with a slot for each."""
        if not new:
            return []
        with ExitStack() as reserved:
            slots = []
            async for run in cooperatively(new):
                with about(run.run_id, among=among):
                    slots.append(reserved.enter_context(self._live.reserved_new(run)))
            if dropped:
                await self._live.journal.flush()  # the last answers of runs that are closed now
            for old in dropped:
                reserved.enter_context(self._live.dropped_if_ambiguous(old.run_id))
            for digest, name in models_of(new):
                if not self._catalog.is_stored(digest):
                    model = self._catalog.by_digest(digest, name)
                    await asyncio.to_thread(self._catalog.store_shipped, model)
            created = await self._stored.in_store(lambda store: store.create(new, dropped, ended))
            for old in dropped:
                self._live.drop(old.run_id)
                self._watchers.rewound(old.run_id, 0)
            reach("lifecycle.created")
            async for slot, stored in cooperatively(zip(slots, created, strict=True)):
                self._live.put(slot, stored)
        if dropped:
            log_runs("run_dropped", "runs_dropped", dropped, cause="restart")
        digest = new[0].model_digest[:SHORT_DIGEST]
        log_runs("run_created", "runs_created", new, policy=new[0].model_name, digest=digest)
        return created

    async def _resume(
        self,
        existing: Sequence[tuple[OpenRequest, StoredRun]],
        models: ModelsNow,
        unstored: Collection[str],
        *,
        among: int,
    ) -> list[StoredRun]:
        """Rewind runs and complete their configs, one after the other, up to the first that fails."""
        resumed, rewound = list[StoredRun](), list[StoredRun]()
        try:
            async for asked, stored in cooperatively(existing):
                with about(asked.run_id, among=among):
                    # The run may have advanced since it was checked.
                    request = request_to_resume(stored, asked, self._live, unstored=stored.run_id in unstored)
                    config = config_to_resume(stored, request, self._live, models)
                    run = stored
                    if request.resume_from is not None and must_rewind(stored, request, self._live):
                        run = await self._rewind(stored, request.resume_from)
                        rewound.append(run)
                    if config != run.config:
                        run = await self._completed(run, request, config, models)
                        config_to_resume(stored, request, self._live, models)  # it may have begun meanwhile
                        run = await self._complete(stored, run)
                    resumed.append(await self._regrouped(run, request))
        finally:
            if rewound:
                log_runs("run_rewound", "runs_rewound", rewound, step=rewound[0].snapshot.next_step)
        return resumed

    async def _record_fallbacks(self, requests: Sequence[OpenRequest], runs: Mapping[str, StoredRun]) -> None:
        """Record which steps the fallbacks of clients have answered, as far as these say so."""
        events = list[tuple[RunKey, RunEvent | None]]()
        for request in requests:
            run = runs[request.run_id]
            if (event := fallback_event(request, self._live.next_step(run))) is not None:
                events.append((run, event))
        if events:
            await self._stored.in_store(lambda store: store.add_events(events))

    async def _rewind(self, stored: StoredRun, step: int) -> StoredRun:
        """Rewind a run so that `step` is its next step. Its handles become stale."""
        with self._live.reserved(stored) as slot:
            await self._live.flush([stored.run_id])
            replayed = await self._stored.replay(stored, step)
            event = rewound_event(self._live.next_step(stored), step)
            reach("lifecycle.rewind")
            with self._live.dropped_if_ambiguous(stored.run_id):
                await self._stored.in_store(lambda store: store.rewind(stored, replayed.snapshot, event))
                reach("lifecycle.rewound")
            rewound = replace(stored, snapshot=replayed.snapshot)
            self._live.put(slot, rewound, replayed)
        self._watchers.rewound(stored.run_id, step)
        return rewound

    async def _completed(
        self, stored: StoredRun, request: OpenRequest, config: RunConfig, models: ModelsNow
    ) -> StoredRun:
        """Return a run with a more complete config, with which the memory may decide more for it."""
        size = max(stored.world_size, 1)
        run = replace(stored, config=config, world_size=size if config.ranks else 0)
        if config.recalled is not None and not config.recalled.decided:
            (decided,) = await self._memory.recalled([(request, run)], models)
            changed = ("config", "model_name", "model_digest", "snapshot")
            run = replace(run, **{name: getattr(decided, name) for name in changed})
        await self._live.code.ready_for([run])
        return run

    async def _complete(self, stored: StoredRun, run: StoredRun) -> StoredRun:
        """Replace the config of a run that has no observation yet; it takes none meanwhile."""
        if policy_key(run) != policy_key(stored):  # with rescue, it has another state
            run = replace(run, snapshot=first_snapshot(policy_of(run, self._catalog)))
            with self._live.reserved_new(run) as slot:
                with self._live.dropped_if_ambiguous(run.run_id):
                    await self._stored.in_store(lambda store: store.complete(run))
                self._live.drop(run.run_id)
                self._live.put(slot, run)
            return run
        live = self._live.load(stored)
        with self._live.closed(run.run_id):
            with self._live.dropped_if_ambiguous(run.run_id):
                await self._stored.in_store(lambda store: store.complete(run))
            put(live.group.table, live.row, run.config)
            live.group.share(live.row, run.config.ranks, max(run.world_size, 1))
        return run

    async def _regrouped(self, stored: StoredRun, request: OpenRequest) -> StoredRun:
        """Set the world size of a run, if a request gives one, from its next step on."""
        if stored.config.ranks is None:
            return stored
        size = request.world_size or stored.world_size
        if size != stored.world_size:
            event = RunEvent(kind=RunEventKind.RESIZED, step=self._live.next_step(stored), count=size)
            await self._stored.in_store(lambda store: store.resize(stored, size, event))
            log.info("run_resized", run_id=stored.run_id, world_size=size)
        live = self._live.load(stored)
        live.group.share(live.row, stored.config.ranks, size)
        self._live.on_ranks(live.handle, request.resume_from is not None)
        return replace(stored, world_size=size)
