"""Opening, finishing, rewinding, deleting, listing and watching runs.

Calls about one run take turns (a lock per run id); the store's thread does all reading and writing.
A call that changes a run goes on to its end when its caller goes away: what is in memory and what is
stored must not part half-way. While it awaits the store, the run's row is closed or cannot move.
"""

from __future__ import annotations

import asyncio
import re
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal, TypeVar

import numpy as np
import structlog

from mlrs_core.config import RunConfig
from mlrs_server.engine import Answer, Recall, finished_run, same_losses, stale_step
from mlrs_server.errors import AdvisorError, Reason, draining, invalid_field, run_not_found
from mlrs_server.journal import Journal
from mlrs_server.models import SHORT_DIGEST, CatalogModel, ModelCatalog
from mlrs_server.runs import (
    GROUP_BITS,
    AdviceReason,
    Replay,
    RunGroup,
    RunSnapshot,
    RunStatus,
    first_snapshot,
)
from mlrs_server.store import NewRun, Observations, Store, StoredRun

log = structlog.get_logger()

T = TypeVar("T")
RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._\-/:+=@]{0,255}")
"""What a run's id looks like."""
PAGE = 8192
"""Steps read from the store at a time."""

_NO_RECORD = Observations(np.empty(0), np.empty(0), np.empty(0, np.uint8))

OpenMode = Literal["open", "create", "resume"]
"""What opening may do: whichever applies, create only, or resume only."""


@dataclass(frozen=True, kw_only=True)
class RunView:
    """A run as the outside sees it."""

    run_id: str
    config: RunConfig
    model_ref: str
    snapshot: RunSnapshot
    durable_step: int
    create_time: float
    update_time: float


@dataclass(frozen=True)
class Opened:
    """What opening a run gave."""

    view: RunView
    handle: int
    created: bool


@dataclass
class _Live:
    """Where a run that is in memory lives."""

    group: RunGroup
    row: int
    key: int


@dataclass(eq=False)
class _Watcher:
    """A follower of a run: the step it wants next, whether the run was deleted, what wakes it."""

    step: int
    gone: bool = False
    grown: asyncio.Event = field(default_factory=asyncio.Event)


class RunRegistry:
    """Knows every run, in memory or stored. Used from one event loop."""

    def __init__(
        self, store: Store, executor: Executor, catalog: ModelCatalog, *, flush_interval_s: float
    ) -> None:
        """`executor` is the store's one thread."""
        self.groups: list[RunGroup] = []
        self.journal = Journal(store, executor, interval_s=flush_interval_s, on_flushed=self._notify)
        self._store = store
        self._executor = executor
        self._catalog = catalog
        self._live: dict[str, _Live] = {}
        self._locks: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()
        self._watchers: dict[str, set[_Watcher]] = {}
        self._changes: set[asyncio.Task[Any]] = set()
        self._draining = False

    def drain(self) -> None:
        """Let every follower go, once it has what there is."""
        self._draining = True
        for run_id in self._watchers:
            self._notify([run_id])

    async def close(self) -> None:
        """Let changes under way end, and store everything.

        Raises:
            AdvisorError: the store cannot be written.
        """
        while self._changes:
            await asyncio.wait(self._changes)
        await self.journal.close()

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
        async with self._lock(run_id):
            stored = await self._stored(run_id)
            created = stored is None
            if stored is None:
                stored = await self._create(run_id, asked, model=model, mode=mode, resume_from=resume_from)
            else:
                stored = await self._resume(stored, asked, model=model, mode=mode, resume_from=resume_from)
            live = self._live.get(run_id) or self._load(stored)
            return Opened(self._view(stored), int(live.group.handles[live.row]), created)

    async def handle_of(self, run_id: str) -> int:
        """Return the handle of a run, loading it if it is not in memory.

        Raises:
            AdvisorError: there is no such run.
        """
        if (live := self._live.get(run_id)) and (handle := int(live.group.handles[live.row])):
            return handle
        async with self._lock(run_id):
            if (live := self._live.get(run_id)) is None:
                live = self._load(await self._required(run_id))
            return int(live.group.handles[live.row])

    async def _create(
        self, run_id: str, asked: RunConfig, *, model: str, mode: OpenMode, resume_from: int | None
    ) -> StoredRun:
        if mode == "resume":
            raise run_not_found(run_id)
        if resume_from:
            raise invalid_field(
                "resume_from", f"run {run_id!r} does not exist, so it has no step {resume_from}"
            )
        found = self._catalog.find(model)
        _check_snapshot(asked, found)
        self._catalog.keep(found)
        new = NewRun(
            run_id=run_id,
            config=asked,
            model_name=found.name,
            model_digest=found.digest,
            snapshot=first_snapshot(found.policy),
        )
        stored = await self._in_store(lambda: self._store.create(new))
        log.info("run_created", run_id=run_id, model=found.ref)
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
        if self._status(stored) == RunStatus.FINISHED and resume_from is None:
            raise finished_run(stored.run_id)
        self._check_model(stored, model)
        config = self._reconciled(stored, asked, rewinds_to_start=resume_from == 0)
        if resume_from is not None:
            stored = await self._rewind(stored, resume_from)
        if config != stored.config:
            stored = await self._complete(stored, config)
        return stored

    def _check_model(self, stored: StoredRun, model: str) -> None:
        if model and (found := self._catalog.find(model)).digest != stored.model_digest:
            raise _mismatch(stored, "model", _ref(stored), found.ref)

    def _reconciled(self, stored: StoredRun, asked: RunConfig, *, rewinds_to_start: bool) -> RunConfig:
        """Check the fields asked for against the run's; return its config with those it lacked."""
        begun = self._next_step(stored) > 0 and not rewinds_to_start
        has = stored.config.given()
        for name in asked.given():
            have, want = getattr(stored.config, name), getattr(asked, name)
            if have != want and (begun or name in has):
                raise _mismatch(stored, f"config.{name}", have if name in has else "no value", want)
        config = stored.config.completed_by(asked)
        if config != stored.config:
            _check_snapshot(config, self._catalog.by_digest(stored.model_digest, stored.model_name))
        return config

    async def _complete(self, stored: StoredRun, config: RunConfig) -> StoredRun:
        """Replace the config of a run that has no observation yet, and let none come in between."""
        with self._closed(stored.run_id):
            await self._in_store(lambda: self._store.complete(stored.key, config))
            if live := self._live.get(stored.run_id):
                live.group.columns.put(live.row, config)
        return replace(stored, config=config)

    # -------------------------------------------------------------------- rewinding, ending

    async def _rewind(self, stored: StoredRun, step: int) -> StoredRun:
        """Put a run back to where step `step` is next. Its handles so far become stale."""
        at = self._next_step(stored)
        if step > at:
            raise invalid_field("resume_from", f"run {stored.run_id!r} has {at} steps, so none is {step}")
        if step == at and self._status(stored) != RunStatus.FINISHED:
            return stored
        with self._closed(stored.run_id):
            await self.journal.flush()
            snapshot = await self._replayed(stored, step)
            await self._in_store(lambda: self._store.rewind(stored.key, snapshot))
            self._drop(stored.run_id)
        for watcher in self._watchers.get(stored.run_id, ()):
            watcher.step = min(watcher.step, step)
        log.info("run_rewound", run_id=stored.run_id, step=step)
        return replace(stored, snapshot=snapshot)

    async def _replayed(self, stored: StoredRun, step: int) -> RunSnapshot:
        """Return a run's snapshot before `step`, recomputed from its losses."""
        policy = self._catalog.by_digest(stored.model_digest, stored.model_name).policy
        replay = Replay(policy, stored.config)
        async for first, record in self._records(stored.key, 0, step):
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
        async with self._lock(run_id):
            stored = await self._required(run_id)
            before = self._status(stored)
            if before == RunStatus.FINISHED:
                return self._view(stored)
            live = self._live.get(run_id)
            if live:
                live.group.status[live.row] = RunStatus.FINISHED
            try:
                await self.journal.flush()
                await self._in_store(lambda: self._store.set_status(stored.key, RunStatus.FINISHED))
                stored = await self._required(run_id)
            except BaseException:
                if live:
                    live.group.status[live.row] = before
                raise
            log.info("run_finished", run_id=run_id, steps=stored.snapshot.next_step)
            self._notify([run_id])
            return self._view(stored)

    async def delete(self, run_id: str) -> None:
        """Delete a run and its record.

        Raises:
            AdvisorError: there is no such run, or the store fails.
        """
        await self._to_the_end(self._delete(run_id))

    async def _delete(self, run_id: str) -> None:
        async with self._lock(run_id):
            stored = await self._required(run_id)
            with self._closed(run_id):
                await self.journal.flush()
                await self._in_store(lambda: self._store.delete(stored.key))
                self._drop(run_id)
            for watcher in self._watchers.get(run_id, ()):
                watcher.gone = True
            self._notify([run_id])
            log.info("run_deleted", run_id=run_id)

    # ------------------------------------------------------------------------------ reading

    async def get(self, run_id: str) -> RunView:
        """Return a run.

        Raises:
            AdvisorError: there is no such run.
        """
        return self._view(await self._required(run_id))

    async def list(self, *, prefix: str, status: RunStatus | None, after: str, limit: int) -> list[RunView]:
        """Return runs ordered by id, from the first id beyond `after`."""
        await self.journal.flush()
        stored = await self._in_store(
            lambda: self._store.list(prefix=prefix, status=status, after=after, limit=limit)
        )
        return [self._view(run) for run in stored]

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
                unanswered = [entry.index for entry in entries if not answer.reasons[entry.index]]
                answer.errors = {**dict.fromkeys(unanswered, error), **answer.errors}

    async def _recall_run(self, run_id: str, entries: Sequence[Recall], answer: Answer) -> None:
        """Answer entries of one run, in the order of their steps, reading its record in pages."""
        stored = await self._required(run_id)
        first, record = 0, _NO_RECORD
        for entry in entries:
            if entry.step >= first + len(record):
                first, limit = entry.step, min(PAGE, entries[-1].step - entry.step + 1)
                record = await self._in_store(partial(self._store.read, stored.key, first, limit))
                if not len(record):
                    raise AdvisorError(Reason.STORE, f"the store has no step {first} of run {run_id!r}")
            at = entry.step - first
            if same_losses(record.losses[at : at + 1], np.array([entry.loss]))[0]:
                answer.lrs[entry.index] = record.lrs[at]
                answer.reasons[entry.index] = AdviceReason.REPLAYED
            else:
                answer.errors[entry.index] = stale_step(
                    run_id, entry.step, float(record.losses[at]), self._next_step(stored)
                )

    async def watch(
        self, run_id: str, from_step: int, *, follow: bool
    ) -> AsyncIterator[tuple[RunView, int, Observations]]:
        """Yield a run's record from a step on, and with `follow` as it grows until the run is finished.

        Steps that a rewind drops are sent again once they are observed again.

        Yields:
            The run, the first step of the stretch, and the stretch; first of all an empty stretch.

        Raises:
            AdvisorError: there is no such run (any more), or a follower must go as the daemon drains.
        """
        watcher = _Watcher(from_step)
        self._watchers.setdefault(run_id, set()).add(watcher)
        try:
            yield await self.get(run_id), from_step, _NO_RECORD
            while True:
                watcher.grown.clear()
                stored = await self._required(run_id)
                first, end = watcher.step, stored.snapshot.next_step
                record = await self._in_store(partial(self._store.read, stored.key, first, PAGE))
                if watcher.gone:
                    raise run_not_found(run_id)
                if watcher.step != first:  # rewound since
                    continue
                if len(record):
                    watcher.step += len(record)
                    yield self._view(stored), first, record
                elif first < end:
                    raise AdvisorError(Reason.STORE, f"the store lacks the record from step {first} on")
                elif not follow or stored.snapshot.status == RunStatus.FINISHED:
                    return
                elif self._draining:
                    raise draining()
                else:
                    await watcher.grown.wait()
        finally:
            self._watchers[run_id].discard(watcher)
            if not self._watchers[run_id]:
                del self._watchers[run_id]

    async def _records(self, key: int, start: int, end: int) -> AsyncIterator[tuple[int, Observations]]:
        """Yield the record of [start, end) in pages, each with its first step."""
        step = start
        while step < end:
            record = await self._in_store(partial(self._store.read, key, step, min(PAGE, end - step)))
            if not len(record):
                raise AdvisorError(Reason.STORE, f"the store lacks the record from step {step} on")
            yield step, record
            step += len(record)

    # ---------------------------------------------------------------------------- machinery

    def _lock(self, run_id: str) -> asyncio.Lock:
        lock = self._locks.get(run_id)
        if lock is None:
            lock = self._locks[run_id] = asyncio.Lock()
        return lock

    async def _in_store(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)

    async def _to_the_end(self, change: Coroutine[Any, Any, T]) -> T:
        """Return what a change of a run returns; if the caller goes away, the change goes on."""
        task = asyncio.get_running_loop().create_task(change)
        self._changes.add(task)
        task.add_done_callback(self._changes.discard)
        return await asyncio.shield(task)

    @contextmanager
    def _closed(self, run_id: str) -> Iterator[None]:
        """Let a run take no observation meanwhile; its handle is good again after, if it is still there."""
        live = self._live.get(run_id)
        if live is None:
            yield
            return
        handle = live.group.close(live.row)
        try:
            yield
        finally:
            if self._live.get(run_id) is live:
                live.group.reopen(live.row, handle)

    def _next_step(self, stored: StoredRun) -> int:
        live = self._live.get(stored.run_id)
        return int(live.group.next_step[live.row]) if live else stored.snapshot.next_step

    def _status(self, stored: StoredRun) -> RunStatus:
        live = self._live.get(stored.run_id)
        return RunStatus(int(live.group.status[live.row])) if live else stored.snapshot.status

    async def _stored(self, run_id: str) -> StoredRun | None:
        await self.journal.flush()
        return await self._in_store(lambda: self._store.get(run_id))

    async def _required(self, run_id: str) -> StoredRun:
        check_run_id(run_id)
        stored = await self._stored(run_id)
        if stored is None:
            raise run_not_found(run_id)
        return stored

    def _load(self, stored: StoredRun) -> _Live:
        """Take a stored run into memory."""
        group = self._group_of(stored)
        if len(stored.snapshot.state) != group.policy.state_size:
            raise AdvisorError(
                Reason.STORE, f"the stored state of run {stored.run_id!r} does not fit its model"
            )
        row = group.add(stored.run_id, stored.key, stored.config, stored.snapshot)
        live = self._live[stored.run_id] = _Live(group, row, stored.key)
        return live

    def _group_of(self, stored: StoredRun) -> RunGroup:
        for group in self.groups:
            if group.model_digest == stored.model_digest:
                return group
        if len(self.groups) >= 2**GROUP_BITS:
            raise AdvisorError(
                Reason.QUEUE_FULL,
                f"model: the daemon serves {2**GROUP_BITS} models at once, and all are taken",
            )
        model = self._catalog.by_digest(stored.model_digest, stored.model_name)
        group = RunGroup(len(self.groups), model.digest, model.policy)
        self.groups.append(group)
        return group

    def _drop(self, run_id: str) -> None:
        if live := self._live.pop(run_id, None):
            live.group.free(live.row)

    def _view(self, stored: StoredRun) -> RunView:
        """Return a run as it is now: what moves, from memory where it is there."""
        live = self._live.get(stored.run_id)
        snapshot = live.group.snapshot(live.row) if live else stored.snapshot
        durable = int(live.group.durable_step[live.row]) if live else snapshot.next_step - 1
        return RunView(
            run_id=stored.run_id,
            config=stored.config,
            model_ref=_ref(stored),
            snapshot=snapshot,
            durable_step=durable,
            create_time=stored.create_time,
            update_time=stored.update_time,
        )

    def _notify(self, run_ids: Sequence[str]) -> None:
        if self._watchers:
            for run_id in run_ids:
                for watcher in self._watchers.get(run_id, ()):
                    watcher.grown.set()


def check_run_id(run_id: str) -> None:
    """Check a run's id.

    Raises:
        AdvisorError: it is malformed.
    """
    if not RUN_ID.fullmatch(run_id):
        raise invalid_field(
            "run_id",
            "must be 1 to 256 characters: letters, digits and any of ._-/:+=@, beginning with a letter "
            f"or digit; is {run_id[:300]!r}",
        )


def _check_snapshot(config: RunConfig, model: CatalogModel) -> None:
    count = len(model.model.snapshots)
    if config.snapshot is not None and config.snapshot >= count:
        raise invalid_field(
            "config.snapshot",
            f"must be 0 to {count - 1}, as {model.ref} has {count} snapshots, is {config.snapshot}",
        )


def _ref(stored: StoredRun) -> str:
    return f"{stored.model_name}@{stored.model_digest[:SHORT_DIGEST]}"


def _mismatch(stored: StoredRun, field: str, have: object, want: object) -> AdvisorError:
    return AdvisorError(
        Reason.CONFIG_MISMATCH,
        f"{field}: run {stored.run_id!r} was opened with {have}, and this call asks for {want}; leave the "
        "field out to keep the run's value, or use another run_id",
        field=field,
    )
