"""Opening, finishing, rewinding and deleting runs.

A call that changes a run goes on to its end when its caller goes away (`changes.py`). While it awaits the
store, the run's row is closed or cannot move.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import replace
from typing import TypeVar

import structlog

from mlrs_core.config import RunConfig
from mlrs_core.policy import put
from mlrs_server.changes import Changes
from mlrs_server.errors import AdvisorError, Reason, about, invalid_field, run_not_found
from mlrs_server.failpoints import reach
from mlrs_server.feeders import Feeders
from mlrs_server.ledger import RunStatus
from mlrs_server.live import LiveRuns, RunView
from mlrs_server.models import SHORT_DIGEST, ModelCatalog, ModelsNow
from mlrs_server.names import tenant_of
from mlrs_server.opening import (
    Opened,
    OpenRequest,
    check_batch,
    config_to_resume,
    must_rewind,
    request_to_resume,
    run_to_create,
)
from mlrs_server.owned import owned, owned_places, owned_to_open
from mlrs_server.policies import models_of
from mlrs_server.replay import ReplayedRun
from mlrs_server.shards import shard_of
from mlrs_server.store import NewRun, RunKey, StoredRun
from mlrs_server.takeovers import Takeovers
from mlrs_server.turns import in_turns
from mlrs_server.watchers import Watchers

log = structlog.get_logger()

T = TypeVar("T")

LAST_FLUSH_S = 2.0
"""How long after its deadline the last flush may yet begin, once what the store is doing then has ended."""


def _no_quota(_names: Sequence[str]) -> AbstractAsyncContextManager[None]:
    return nullcontext()


class RunLifecycle:
    """Takes runs from their creation to their end. Used from one event loop."""

    def __init__(
        self,
        live: LiveRuns,
        watchers: Watchers,
        catalog: ModelCatalog,
        quota: Callable[[Sequence[str]], AbstractAsyncContextManager[None]] = _no_quota,
        feeders: Feeders | None = None,
    ) -> None:
        """`watchers` hear of rewinds and ends; `quota` is held as runs begin, and raises if they are many.

        `feeders` are the processes that have streams open.
        """
        self._takeovers = Takeovers(live, feeders or Feeders())
        self._quota = quota
        self._live = live
        self._watchers = watchers
        self._catalog = catalog
        self._changes = Changes()

    async def close(self, *, within_s: float | None = None) -> None:
        """Let changes under way end, and store everything.

        Changes that take longer are cancelled: what of them the store has not begun, it will not do. The
        last flush has a moment more to begin.

        Raises:
            AdvisorError: the store cannot be written, or not in time; it says what is not stored.
        """
        clock = asyncio.get_running_loop().time
        until = math.inf if within_s is None else clock() + within_s
        lost = list[str]()
        if cut := await self._changes.end(until):
            lost.append(f"{cut} calls that change runs were cut off")
        try:
            await self._live.journal.close(begin_within_s=max(until - clock(), 0.0) + LAST_FLUSH_S)
        except AdvisorError as error:
            lost.append(f"{self._live.journal.undurable} answers are not stored: {error}")
        if lost:
            raise AdvisorError(Reason.STORE, "; ".join(lost))

    # ------------------------------------------------------------------------------ opening

    async def open(self, request: OpenRequest) -> Opened:
        """Create or resume a run.

        Raises:
            AdvisorError: as the contract's OpenRun says.
        """
        (opened,) = await self.open_many([request])
        return opened

    async def open_many(self, requests: Sequence[OpenRequest]) -> list[Opened]:
        """Create or resume runs, as opening one after the other would, in their order.

        All that can be checked is checked before anything changes. Then the new runs are created, all or
        none, and those that they replace dropped with it. Then those that exist are rewound and completed,
        up to the first that fails, and taken over from other feeders.

        Raises:
            AdvisorError: as the contract's BatchOpenRuns says; of several runs, about the first.
        """
        check_batch("requests", [request.run_id for request in requests])
        return await self._changes.to_the_end(self._open(requests))

    async def _open(self, requests: Sequence[OpenRequest]) -> list[Opened]:
        shards = {request.run_id: shard_of(request.group or request.run_id) for request in requests}
        to_drop = {request.run_id for request in requests if request.mode == "restart"}
        async with self._live.locked(shards):
            unstored = {run_id for run_id in shards if self._live.is_unstored(run_id)}
            async with owned_to_open(self._live, shards, to_drop) as found:
                return await self._open_owned(requests, found, unstored)

    async def _open_owned(
        self,
        requests: Sequence[OpenRequest],
        found: Mapping[str, StoredRun | RunKey],
        unstored: Collection[str],
    ) -> list[Opened]:
        """Open the runs that were found, and new ones.

        Args:
            requests: how.
            found: those that exist, by id; of those to be dropped only where they are stored.
            unstored: the ids of those that had answers when the call began, none of which was stored.
        """
        runs = {run.run_id: run for run in found.values() if isinstance(run, StoredRun)}
        dropped = [run for run_id, run in found.items() if run_id not in runs]
        taken_over = self._takeovers.from_connected(requests, found)
        models = await self._models(requests, runs)
        replayed = await self._live.replay_unloaded(runs.values())
        existing = [(request, runs[request.run_id]) for request in requests if request.run_id in runs]
        checked = await self._checked(requests, runs, replayed, models, unstored)
        checked = [
            replace(run, shard=found[run.run_id].shard) if run.run_id in found else run for run in checked
        ]
        async with self._quota(self._unfinished_since(checked, found) + self._finished_of(existing)):
            new = await self._create(checked, dropped, among=len(requests))
            runs |= {run.run_id: run for run in new}
            resumed = await self._resume(existing, models, unstored, among=len(requests))
            runs |= {run.run_id: run for run in resumed}
            await self._takeovers.take([(request, runs[run.run_id]) for request, run in existing])
        created = {run.run_id for run in new} | {one.run_id for one in requests if one.mode == "create"}
        opened = []
        async for request in in_turns(requests):
            run_id = request.run_id
            self._takeovers.note(request)
            live = self._live.load(runs[run_id], replayed.get(run_id))
            view = self._live.view(runs[run_id])
            opened.append(Opened(view, live.handle, run_id in created, run_id in taken_over))
        return opened

    async def _models(self, requests: Sequence[OpenRequest], runs: Mapping[str, StoredRun]) -> ModelsNow:
        """Take the models of runs, and those that requests name, into memory; return what references mean."""
        asked = {
            (request.model, tenant_of(request.run_id))
            for request in requests
            if request.model or (request.asked.schedule is None and request.run_id not in runs)
        }
        names = await self._live.in_store(self._catalog.names_in) if asked else self._catalog.names
        wanted = models_of(runs.values())
        for reference, tenant in asked:
            with suppress(AdvisorError):  # raised again for the run that asks
                wanted.add(names.meaning(reference, tenant))
        await self._load(wanted)
        return ModelsNow(self._catalog, names)

    async def _load(self, models: Iterable[tuple[str, str]]) -> None:
        """Take models, by digest and name, into memory."""
        if missing := [model for model in models if not self._catalog.files.is_loaded(model[0])]:
            await asyncio.to_thread(self._catalog.files.load_all, missing)

    def _unfinished_since(self, new: Sequence[NewRun], found: Mapping[str, RunKey]) -> list[str]:
        """Return the ids of new runs, without those that replace unfinished ones."""
        return [
            run.run_id
            for run in new
            if (old := found.get(run.run_id)) is None or old.status == RunStatus.FINISHED
        ]

    def _finished_of(self, existing: Sequence[tuple[OpenRequest, StoredRun]]) -> list[str]:
        """Return the ids of runs that are finished, and taken up again."""
        return [run.run_id for _, run in existing if self._live.status(run) == RunStatus.FINISHED]

    async def _checked(
        self,
        requests: Sequence[OpenRequest],
        runs: Mapping[str, StoredRun],
        replayed: Mapping[str, ReplayedRun],
        models: ModelsNow,
        unstored: Collection[str],
    ) -> list[NewRun]:
        """Check all requests, and take the runs that exist into memory; return those to create."""
        new = []
        async for request in in_turns(requests):
            with about(request.run_id, among=len(requests)):
                if (stored := runs.get(request.run_id)) is None:
                    new.append(run_to_create(request, models))
                    continue
                self._takeovers.check(request, stored)
                asked = self._to_resume(stored, request, unstored)
                config_to_resume(stored, asked, self._live, models)
                if not must_rewind(stored, asked, self._live):  # a rewind makes another state
                    self._live.load(stored, replayed.get(stored.run_id))
        return new

    def _to_resume(self, stored: StoredRun, request: OpenRequest, unstored: Collection[str]) -> OpenRequest:
        return request_to_resume(stored, request, self._live, unstored=stored.run_id in unstored)

    async def handle_of(self, run_id: str) -> int:
        """Return the handle of a run, loading it if it is not in memory.

        Raises:
            AdvisorError: there is no such run.
        """
        if (live := self._live.find(run_id)) and (handle := live.handle):
            return handle
        async with self._live.lock(run_id), owned(self._live, [run_id]) as runs:
            await self._load(models_of(runs.values()))
            replayed = await self._live.replay_unloaded(runs.values())
            live = self._live.load(_of(runs, run_id), replayed.get(run_id))
            return live.handle

    async def _create(
        self, new: Sequence[NewRun], dropped: Sequence[RunKey], *, among: int
    ) -> list[StoredRun]:
        """Create runs in place of those dropped, all or none, with a place in memory for each."""
        if not new:
            return []
        with ExitStack() as reserved:
            places = []
            async for run in in_turns(new):
                with about(run.run_id, among=among):
                    places.append(reserved.enter_context(self._live.reserved_new(run)))
            if dropped:
                await self._live.journal.flush()  # what is to come of them, as they are closed
            for old in dropped:
                reserved.enter_context(self._in_doubt(old.run_id))
            for digest, name in models_of(new):
                if not self._catalog.is_kept(digest):
                    model = self._catalog.by_digest(digest, name)
                    await asyncio.to_thread(self._catalog.keep, model)
            created = await self._live.in_store(lambda store: store.create(new, dropped))
            for old in dropped:
                self._live.drop(old.run_id)
                self._watchers.rewound(old.run_id, 0)
            reach("lifecycle.created")
            async for place, stored in in_turns(zip(places, created, strict=True)):
                self._live.put(place, stored)
        if dropped:
            _log("run_dropped", "runs_dropped", dropped, cause="restart")
        digest = new[0].model_digest[:SHORT_DIGEST]
        _log("run_created", "runs_created", new, policy=new[0].model_name, digest=digest)
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
            async for asked, stored in in_turns(existing):
                with about(asked.run_id, among=among):
                    # The run may have gone on since it was checked.
                    request = self._to_resume(stored, asked, unstored)
                    config = config_to_resume(stored, request, self._live, models)
                    run = stored
                    if request.resume_from is not None and must_rewind(stored, request, self._live):
                        run = await self._rewind(stored, request.resume_from)
                        rewound.append(run)
                    run = run if config == run.config else await self._complete(run, config)
                    resumed.append(await self._regrouped(run, request))
        finally:
            if rewound:
                _log("run_rewound", "runs_rewound", rewound, step=rewound[0].snapshot.next_step)
        return resumed

    async def _complete(self, stored: StoredRun, config: RunConfig) -> StoredRun:
        """Replace the config of a run that has no observation yet, and let none come in between."""
        live = self._live.load(stored)
        with self._live.closed(stored.run_id):
            with self._in_doubt(stored.run_id):
                await self._live.in_store(lambda store: store.complete(stored, config))
            put(live.group.table, live.row, config)
            live.group.share(live.row, config.ranks, max(stored.world_size, 1))
        return replace(stored, config=config, world_size=max(stored.world_size, 1) if config.ranks else 0)

    async def _regrouped(self, stored: StoredRun, request: OpenRequest) -> StoredRun:
        """Have a run have as many ranks as a call says, from the step on that is not answered yet."""
        if stored.config.ranks is None:
            return stored
        size = request.world_size or stored.world_size
        if size != stored.world_size:
            await self._live.in_store(lambda store: store.resize(stored, size))
            log.info("run_resized", run_id=stored.run_id, world_size=size)
        live = self._live.load(stored)
        live.group.share(live.row, stored.config.ranks, size)
        self._live.on_ranks(live.handle, request.resume_from is not None)
        return replace(stored, world_size=size)

    # -------------------------------------------------------------------- rewinding, ending

    async def _rewind(self, stored: StoredRun, step: int) -> StoredRun:
        """Put a run back to where step `step` is next. Its handles so far become stale."""
        with self._live.reserved(stored) as place:
            await self._live.flush([stored.run_id])
            replayed = await self._live.replay(stored, step)
            reach("lifecycle.rewind")
            with self._in_doubt(stored.run_id):
                await self._live.in_store(lambda store: store.rewind(stored, replayed.snapshot))
                reach("lifecycle.rewound")
            rewound = replace(stored, snapshot=replayed.snapshot)
            self._live.put(place, rewound, replayed)
        self._watchers.rewound(stored.run_id, step)
        return rewound

    @contextmanager
    def _in_doubt(self, run_id: str) -> Iterator[None]:
        """Forget a closed run, all of which is stored, if it is not known whether the store changed it.

        The next call reads what the store holds.
        """
        try:
            yield
        except BaseException as error:
            if not isinstance(error, AdvisorError) or error.in_doubt:
                self._live.drop(run_id)
            raise

    async def finish(self, run_id: str, next_step: int | None = None) -> RunView:
        """Mark a run as finished and store all of it; see `finish_many`."""
        (view,) = await self.finish_many([run_id], () if next_step is None else (next_step,))
        return view

    async def finish_many(self, run_ids: Sequence[str], next_steps: Sequence[int] = ()) -> list[RunView]:
        """Mark runs as finished, all or none, and store all of them; return them in the order of the ids.

        Args:
            run_ids: of the runs.
            next_steps: what each must expect; none: whatever it does.

        Raises:
            AdvisorError: there is no run of one of the ids, or an id is there twice, or a run lacks steps, or
                the store fails.
        """
        check_batch("run_ids", run_ids)
        if next_steps and len(next_steps) != len(run_ids):
            raise invalid_field(
                "next_steps", f"must be one for each run or none, are {len(next_steps)} for {len(run_ids)}"
            )
        return await self._changes.to_the_end(self._finish(run_ids, next_steps))

    async def _finish(self, run_ids: Sequence[str], next_steps: Sequence[int]) -> list[RunView]:
        async with self._live.locked(run_ids), owned(self._live, run_ids) as found:
            runs = [_of(found, run_id) for run_id in run_ids]
            going = [run for run in runs if self._live.status(run) != RunStatus.FINISHED]
            for run, step in zip(runs, next_steps, strict=False):
                if run in going:
                    check_reached(run.run_id, self._live.next_step(run), step)
            if going:
                await self._end(going)
                runs = await self._live.required_all(run_ids)
            return await self._live.views(runs)

    async def _end(self, going: Sequence[StoredRun]) -> None:
        """Finish runs that are not finished: no observation comes in once this begins."""
        ids = [run.run_id for run in going if self._live.find(run.run_id)]
        places = [live for run_id in ids if (live := self._live.find(run_id))]
        before = [live.status for live in places]
        for live in places:
            live.status = RunStatus.FINISHED
        try:
            await self._live.flush(ids)
            reach("lifecycle.finish")
            await self._live.in_store(lambda store: store.set_status(going, RunStatus.FINISHED))
            reach("lifecycle.finished")
        except BaseException:
            for live, run_id, status in zip(places, ids, before, strict=True):
                if self._live.find(run_id) is live:  # else it was lost to another replica meanwhile
                    live.status = status
            raise
        self._live.on_ranks(0, False)
        self._watchers.wake([run.run_id for run in going])
        _log("run_finished", "runs_finished", going, steps=self._live.next_step(going[0]))

    async def delete(self, run_id: str) -> None:
        """Delete a run and its record, damaged or not.

        Raises:
            AdvisorError: there is no such run, or the store fails.
        """
        await self._changes.to_the_end(self._delete(run_id))

    async def _delete(self, run_id: str) -> None:
        async with self._live.lock(run_id), owned_places(self._live, [run_id]) as places:
            place = _of(places, run_id)
            with self._live.closed(run_id):
                await self._live.flush([run_id])
                with self._in_doubt(run_id):
                    await self._live.in_store(lambda store: store.delete(place))
                    reach("lifecycle.deleted")
                self._live.drop(run_id)
            self._watchers.deleted(run_id)
            log.info("run_deleted", run_id=run_id)


def _of(runs: Mapping[str, T], run_id: str) -> T:
    """Return a run by id.

    Raises:
        AdvisorError: there is none.
    """
    if run_id not in runs:
        raise run_not_found(run_id)
    return runs[run_id]


def check_reached(run_id: str, at: int, step: int) -> None:
    """Check that a run expects a step, or a later one.

    Raises:
        AdvisorError: it lacks steps before.
    """
    if at < step:
        raise AdvisorError(
            Reason.STEP_AHEAD,
            f"next_step: run {run_id!r} expects step {at}, and was to be finished at {step}; what a daemon "
            "had answered and not stored may have been lost with it: send the steps again first",
            field="next_step",
            expected_step=at,
        )


def _log(of_one: str, of_many: str, runs: Sequence[NewRun | RunKey], **about_one: object) -> None:
    """Log what became of some runs: of one with what there is to say about it, of more how many."""
    if len(runs) == 1:
        log.info(of_one, run_id=runs[0].run_id, **about_one)
    else:
        log.info(of_many, count=len(runs))
