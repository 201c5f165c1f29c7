"""Opening, finishing, rewinding and deleting runs.

A call that changes a run goes on to its end when its caller goes away: what is in memory and what is
stored must not part half-way. While it awaits the store, the run's row is closed or cannot move.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

import structlog

from mlrs_core.config import RunConfig
from mlrs_core.policy import put
from mlrs_server.answers import finished_run
from mlrs_server.errors import AdvisorError, Reason, invalid_field, run_not_found
from mlrs_server.ledger import RunStatus
from mlrs_server.live import LiveRuns, RunView, check_run_id
from mlrs_server.models import SHORT_DIGEST, ModelCatalog
from mlrs_server.policies import (
    check_config,
    check_same_policy,
    config_mismatch,
    keep_model,
    new_run,
    policy_of,
)
from mlrs_server.runs import Replay, RunSnapshot
from mlrs_server.store import StoredRun
from mlrs_server.watchers import Watchers

log = structlog.get_logger()

T = TypeVar("T")

OpenMode = Literal["open", "create", "resume"]
"""What opening may do: whichever applies, create only, or resume only."""


@dataclass(frozen=True)
class Opened:
    """What opening a run gave."""

    view: RunView
    handle: int
    created: bool


class RunLifecycle:
    """Takes runs from their creation to their end. Used from one event loop."""

    def __init__(self, live: LiveRuns, watchers: Watchers, catalog: ModelCatalog) -> None:
        """`watchers` hear of rewinds and ends."""
        self._live = live
        self._watchers = watchers
        self._catalog = catalog
        self._changes: set[asyncio.Task[Any]] = set()

    async def close(self) -> None:
        """Let changes under way end, and store everything.

        Raises:
            AdvisorError: the store cannot be written.
        """
        while self._changes:
            await asyncio.wait(self._changes)
        await self._live.journal.close()

    async def _to_the_end(self, change: Coroutine[Any, Any, T]) -> T:
        """Return what a change of a run returns; if the caller goes away, the change goes on."""
        task = asyncio.get_running_loop().create_task(change)
        self._changes.add(task)
        task.add_done_callback(self._changes.discard)
        return await asyncio.shield(task)

    # ------------------------------------------------------------------------------ opening

    async def open(
        self, run_id: str, asked: RunConfig, *, model: str, mode: OpenMode, resume_from: int | None
    ) -> Opened:
        """Create or resume a run.

        Args:
            run_id: the user's id.
            asked: the config asked for; fields not given take the run's.
            model: a model's name, alias or reference; "" is the default, or the run's.
            mode: what is allowed.
            resume_from: rewind to this step, dropping the record from there on.

        Raises:
            AdvisorError: as the contract's CreateRun says.
        """
        check_run_id(run_id)
        return await self._to_the_end(
            self._open(run_id, asked, model=model, mode=mode, resume_from=resume_from)
        )

    async def _open(
        self, run_id: str, asked: RunConfig, *, model: str, mode: OpenMode, resume_from: int | None
    ) -> Opened:
        async with self._live.lock(run_id):
            stored = await self._live.stored(run_id)
            created = stored is None
            if stored is None:
                stored = await self._create(run_id, asked, model=model, mode=mode, resume_from=resume_from)
            else:
                stored = await self._resume(stored, asked, model=model, mode=mode, resume_from=resume_from)
            live = self._live.load(stored)
            return Opened(self._live.view(stored), live.handle, created)

    async def handle_of(self, run_id: str) -> int:
        """Return the handle of a run, loading it if it is not in memory.

        Raises:
            AdvisorError: there is no such run.
        """
        if (live := self._live.find(run_id)) and (handle := live.handle):
            return handle
        async with self._live.lock(run_id):
            live = self._live.find(run_id) or self._live.load(await self._live.required(run_id))
            return live.handle

    async def _create(
        self, run_id: str, asked: RunConfig, *, model: str, mode: OpenMode, resume_from: int | None
    ) -> StoredRun:
        if mode == "resume":
            raise run_not_found(run_id)
        if resume_from:
            raise invalid_field(
                "resume_from", f"run {run_id!r} does not exist, so it has no step {resume_from}"
            )
        new = new_run(run_id, asked, model, self._catalog)
        with self._live.reserved(new) as place:
            keep_model(new, self._catalog)
            stored = await self._live.in_store(lambda store: store.create(new))
            self._live.put(place, stored)
        log.info("run_created", run_id=run_id, policy=new.model_name, digest=new.model_digest[:SHORT_DIGEST])
        return stored

    async def _resume(
        self, stored: StoredRun, asked: RunConfig, *, model: str, mode: OpenMode, resume_from: int | None
    ) -> StoredRun:
        if mode == "create":
            raise AdvisorError(
                Reason.RUN_EXISTS,
                f"run_id: run {stored.run_id!r} exists, at step {stored.snapshot.next_step}; "
                "resume it, or use another run_id",
                field="run_id",
            )
        if self._live.status(stored) == RunStatus.FINISHED and resume_from is None:
            raise finished_run(stored.run_id)
        check_same_policy(stored, asked, model, self._catalog)
        config = self._reconciled(stored, asked, rewinds_to_start=resume_from == 0)
        if resume_from is not None:
            stored = await self._rewind(stored, resume_from)
        if config != stored.config:
            stored = await self._complete(stored, config)
        return stored

    def _reconciled(self, stored: StoredRun, asked: RunConfig, *, rewinds_to_start: bool) -> RunConfig:
        """Check the fields asked for against the run's; return its config with those it lacked."""
        begun = self._live.next_step(stored) > 0 and not rewinds_to_start
        has = stored.config.values()
        for name, want in asked.values().items():
            if (have := has.get(name)) != want and (begun or name in has):
                raise config_mismatch(stored, f"config.{name}", have, want)
        config = stored.config.completed_by(asked)
        if config != stored.config:
            check_config(stored, config, self._catalog)
        return config

    async def _complete(self, stored: StoredRun, config: RunConfig) -> StoredRun:
        """Replace the config of a run that has no observation yet, and let none come in between."""
        live = self._live.load(stored)
        with self._live.closed(stored.run_id):
            await self._live.in_store(lambda store: store.complete(stored.key, config))
            put(live.group.table, live.row, config)
        return replace(stored, config=config)

    # -------------------------------------------------------------------- rewinding, ending

    async def _rewind(self, stored: StoredRun, step: int) -> StoredRun:
        """Put a run back to where step `step` is next. Its handles so far become stale."""
        at = self._live.next_step(stored)
        if step > at:
            raise invalid_field("resume_from", f"run {stored.run_id!r} has {at} steps, so none is {step}")
        if step == at and self._live.status(stored) != RunStatus.FINISHED:
            return stored
        with self._live.reserved(stored) as place:
            await self._live.journal.flush()
            snapshot = await self._replayed(stored, step)
            await self._live.in_store(lambda store: store.rewind(stored.key, snapshot))
            rewound = replace(stored, snapshot=snapshot)
            self._live.put(place, rewound)
        self._watchers.rewound(stored.run_id, step)
        log.info("run_rewound", run_id=stored.run_id, step=step)
        return rewound

    async def _replayed(self, stored: StoredRun, step: int) -> RunSnapshot:
        """Return a run's snapshot before `step`, recomputed from its losses."""
        replay = Replay(policy_of(stored, self._catalog), stored.config)
        async for first, record in self._live.pages(stored, 0, step):
            lrs = await asyncio.to_thread(replay.feed, record.losses)
            if lrs.tobytes() != record.lrs.tobytes():
                log.warning("replay_differs", run_id=stored.run_id, from_step=first)
        return replay.snapshot()

    async def finish(self, run_id: str) -> RunView:
        """Mark a run as finished and store all of it.

        Raises:
            AdvisorError: there is no such run, or the store fails.
        """
        return await self._to_the_end(self._finish(run_id))

    async def _finish(self, run_id: str) -> RunView:
        async with self._live.lock(run_id):
            stored = await self._live.required(run_id)
            before = self._live.status(stored)
            if before == RunStatus.FINISHED:
                return self._live.view(stored)
            live = self._live.find(run_id)
            if live:
                live.group.records["status"][live.row] = RunStatus.FINISHED
            try:
                await self._live.journal.flush()
                await self._live.in_store(lambda store: store.set_status(stored.key, RunStatus.FINISHED))
            except BaseException:
                if live:
                    live.group.records["status"][live.row] = before
                raise
            self._watchers.wake([run_id])
            log.info("run_finished", run_id=run_id, steps=self._live.next_step(stored))
            return self._live.view(await self._live.required(run_id))

    async def delete(self, run_id: str) -> None:
        """Delete a run and its record.

        Raises:
            AdvisorError: there is no such run, or the store fails.
        """
        await self._to_the_end(self._delete(run_id))

    async def _delete(self, run_id: str) -> None:
        async with self._live.lock(run_id):
            stored = await self._live.required(run_id)
            with self._live.closed(run_id):
                await self._live.journal.flush()
                await self._live.in_store(lambda store: store.delete(stored.key))
                self._live.drop(run_id)
            self._watchers.deleted(run_id)
            log.info("run_deleted", run_id=run_id)
