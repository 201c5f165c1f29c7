"""The client for asyncio: the interface of `mlrs` with methods to await.

    async with mlrs.aio.connect() as advisor:
        run = await advisor.run("resnet18-cifar10", horizon=10_000, num_classes=10, optimizer="sgd")
        for step in range(10_000):
            pending = run.observe(step, train_batch(step))   # returns at once
            lr = await pending.lr()
        await run.finish()

An advisor belongs to the event loop that it was made in. Arguments, errors and results are those of
the methods of the same names in `mlrs`.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, Unpack

from mlrs.api.aio_run import Opening, Pending, PendingAdaptation, Run
from mlrs.api.pushing import pushed
from mlrs.api.views import AdvisorView
from mlrs.local.target import target_of
from mlrs.protocol.joining import deleted
from mlrs.protocol.routing import Call
from mlrs.transport.access import TLS, access_of
from mlrs.transport.aio_connection import Connection
from mlrs.values import arguments as check
from mlrs.values.alias_types import AliasChange
from mlrs.values.daemon_types import DaemonInfo, DaemonStatus
from mlrs.values.meta_types import Adaptation
from mlrs.values.notes import Order
from mlrs.values.options import (
    DEFAULT_TIMEOUT_S,
    RECORD_TIMEOUT_S,
    UPLOAD_TIMEOUT_S,
    RunOptions,
    SweepOptions,
)
from mlrs.values.record_types import RecordSample, RecordSummary, RunEvent
from mlrs.values.search_types import Search
from mlrs.values.task_memory import TaskMemory
from mlrs.values.task_types import TaskInfo
from mlrs.values.types import ModelInfo, RecordChunk, RunInfo, RunPage, RunStatus
from mlrs.wire import calls
from mlrs.wire.alias_calls import list_alias_changes
from mlrs.wire.daemon_calls import get_daemon, get_daemon_status
from mlrs.wire.list_calls import RunListing, run_page, update_run
from mlrs.wire.meta_calls import adapt, adapt_gradients
from mlrs.wire.record_calls import list_events, sample, summarize
from mlrs.wire.search_calls import get_search
from mlrs.wire.task_calls import forget_task, get_task, list_tasks
from mlrs.wire.unsent import default_folder

if TYPE_CHECKING:
    from mlrs.api.aio_sweep import Sweep

__all__ = ["Advisor", "Pending", "PendingAdaptation", "Run", "connect"]

T = TypeVar("T")


def connect(
    target: str | Sequence[str] | None = None,
    *,
    timeout_s: float = DEFAULT_TIMEOUT_S,
    token: str | None = None,
    tls: TLS | bool | None = None,
    allow_insecure_token: bool = False,
    unsent_dir: str | os.PathLike[str] | None = None,
) -> Advisor:
    """Return an advisor of a daemon; to be called while an event loop runs.

    See `mlrs.connect`. If this user's daemon has to be started, the first call that is awaited waits for it.
    """
    found = target_of(target)
    access = access_of(found.addresses, token, tls, allow_insecure_token=allow_insecure_token)
    folder = default_folder() if unsent_dir is None else os.fspath(unsent_dir)
    start = None if found.starter is None else found.starter.start
    return Advisor(Connection(found.known(), access, check.timeout_s(timeout_s), folder, start))


class Advisor(AdvisorView[Connection]):
    """A connection to a daemon. May be shared by the tasks of one event loop.

    Close it, or use it as an asynchronous context manager. See `mlrs.Advisor`.
    """

    def run(self, task: str, **options: Unpack[RunOptions]) -> Opening[Run]:
        """Return a training run, with `async with` or `await`. See `mlrs.Advisor.run`."""
        run = Run(self._connection, self._new_run(task, options))

        async def opening() -> Run:
            await self._connection.started()
            return run if options.get("resume_from") is None else await run.open()

        return Opening(opening)

    def sweep(self, ids: Sequence[str], **options: Unpack[SweepOptions]) -> Opening[Sweep]:
        """Open many training runs as one, with `async with` or `await`. See `mlrs.Advisor.sweep`."""
        ledger = self._new_sweep(ids, options)
        from mlrs.api.aio_sweep import Sweep  # which imports NumPy

        async def opening() -> Sweep:
            await self._connection.started()
            await self._connection.wait(self._opened(ledger))
            return Sweep(self._connection, ledger)

        return Opening(opening)

    async def push(
        self,
        path: str | os.PathLike[str],
        *,
        id: str | None = None,  # noqa: A002 # what users call it
        keep: bool = False,
        rewind: bool = False,
        timeout_s: float | None = None,
    ) -> tuple[RunInfo, ...]:
        """Send the observations that a training wrote to a file. See `mlrs.Advisor.push`."""
        action = pushed(self._connection, path, id, timeout_s, keep=keep, rewind=rewind)
        return await self._connection.act(action)

    async def runs(
        self,
        prefix: str = "",
        status: RunStatus | str | None = None,
        *,
        contains: str = "",
        model: str | None = None,
        task: str | None = None,
        tags: Mapping[str, str] | None = None,
        order: Order | None = None,
        newest_first: bool = False,
        limit: int | None = None,
    ) -> AsyncIterator[RunInfo]:
        """Iterate over the runs, each once. See `mlrs.Advisor.runs`."""
        listing = RunListing(
            limit,
            newest_first=newest_first,
            order=order,
            prefix=prefix,
            contains=contains,
            status=status,
            model=model,
            task=task,
            tags=tags,
        )
        while call := listing.next_call():
            for run in listing.new_of(await self._invoke(call)):
                yield run

    async def run_page(
        self,
        *,
        size: int = 100,
        cursor: str = "",
        prefix: str = "",
        contains: str = "",
        status: RunStatus | str | None = None,
        model: str | None = None,
        task: str | None = None,
        tags: Mapping[str, str] | None = None,
        order: Order = "recent",
    ) -> RunPage:
        """Return one page of the runs. See `mlrs.Advisor.run_page`."""
        call = run_page(
            size,
            cursor,
            prefix=prefix,
            contains=contains,
            status=status,
            model=model,
            task=task,
            tags=tags,
            order=order,
        )
        return await self._invoke(call)

    async def update_run(
        self,
        id: str,  # noqa: A002 # what users call it
        *,
        set_tags: Mapping[str, str] | None = None,
        remove_tags: Iterable[str] = (),
        note: str | None = None,
    ) -> RunInfo:
        """Change what is noted of a run. See `mlrs.Advisor.update_run`."""
        return await self._invoke(update_run(id, set_tags, remove_tags, note))

    async def get_run(self, id: str) -> RunInfo:  # noqa: A002 # what users call it
        """Return a run, with its ranks at present."""
        return await self._invoke(calls.get_run(id))

    async def get_search(self, id: str) -> Search:  # noqa: A002 # what users call it
        """Return the search of a run."""
        return await self._invoke(get_search(id))

    async def tasks(self) -> AsyncIterator[TaskInfo]:
        """Iterate over the tasks of which something is remembered, by name."""
        token = ""
        while True:
            page = await self._invoke(list_tasks(token))
            for task in page.items:
                yield task
            if not (token := page.next_token):
                return

    async def task(self, name: str) -> TaskMemory:
        """Return what is remembered of a task."""
        return await self._invoke(get_task(name))

    async def forget_task(self, name: str) -> int:
        """Forget how the runs of a task ended. See `mlrs.Advisor.forget_task`."""
        return await self._invoke(forget_task(name))

    async def delete_run(self, id: str) -> None:  # noqa: A002 # what users call it
        """Delete a run and its record."""
        session = self._connection.session
        await self._connection.perform(deleted(session, check.run_id(id), session.timeout_s))

    def watch(
        self,
        id: str,  # noqa: A002 # what users call it
        from_step: int = 0,
        *,
        follow: bool = False,
        timeout_s: float | None = None,
    ) -> AsyncIterator[RecordChunk]:
        """Iterate over the record of a run. See `mlrs.Advisor.watch`."""
        request = calls.watch_run(id, from_step, follow)
        if timeout_s is None:
            return self._connection.watch(request, None if follow else RECORD_TIMEOUT_S)
        return self._connection.watch(request, check.timeout_s(timeout_s))

    async def summary(
        self,
        id: str,  # noqa: A002 # what users call it
        *,
        from_step: int = 0,
        to_step: int | None = None,
        max_buckets: int = 1000,
        cursor: str = "",
        timeout_s: float | None = None,
    ) -> RecordSummary:
        """Return a part of a run's record in buckets. See `mlrs.Advisor.summary`."""
        call = summarize(id, from_step, to_step, max_buckets, cursor)
        return await self._connection.invoke(call, self._limit_s(timeout_s))

    async def samples(
        self, ids: Sequence[str], *, samples: int = 32, timeout_s: float | None = None
    ) -> dict[str, RecordSample]:
        """Return a few steps of many runs. See `mlrs.Advisor.samples`."""
        return await self._connection.invoke(sample(ids, samples), self._limit_s(timeout_s))

    async def run_events(self, id: str, *, after: int = 0) -> tuple[RunEvent, ...]:  # noqa: A002 # as above
        """Return what happened to a run besides its observations. See `mlrs.Advisor.run_events`."""
        return await self._invoke(list_events(id, after))

    async def models(self) -> AsyncIterator[ModelInfo]:
        """Iterate over the models that runs can name."""
        token = ""
        while True:
            page = await self._invoke(calls.list_models(token))
            for model in page.items:
                yield model
            if not (token := page.next_token):
                return

    async def model(self, name: str) -> ModelInfo:
        """Return a model by name, alias or `name@digest`."""
        return await self._invoke(calls.get_model(name))

    async def alias_changes(self, alias: str) -> tuple[AliasChange, ...]:
        """Return the models that an alias has pointed at, the newest first."""
        return await self._invoke(list_alias_changes(alias))

    async def daemon(self) -> DaemonInfo:
        """Return which daemon answers."""
        return await self._invoke(get_daemon())

    async def status(self) -> DaemonStatus:
        """Return how the daemon is."""
        return await self._invoke(get_daemon_status())

    async def adapt(
        self,
        id: str,  # noqa: A002 # what users call it
        step: int,
        alignment: float,
        *,
        validation_loss: float | None = None,
        timeout_s: float | None = None,
    ) -> Adaptation:
        """Make a meta update of a run that another process observes. See `mlrs.Advisor.adapt`."""
        call = adapt(id, step, alignment, validation_loss)
        return await self._connection.invoke(call, self._limit_s(timeout_s))

    async def adapt_gradients(
        self,
        id: str,  # noqa: A002 # what users call it
        step: int,
        validation_gradient: Any,
        direction: Any,
        *,
        data_type: str | None = None,
        validation_loss: float | None = None,
        timeout_s: float = UPLOAD_TIMEOUT_S,
    ) -> Adaptation:
        """Send both vectors of an update. See `mlrs.Advisor.adapt_gradients`."""
        call = adapt_gradients(id, step, validation_gradient, direction, data_type, validation_loss)
        return await self._connection.invoke(call, check.timeout_s(timeout_s))

    async def close(self) -> None:
        """Let the stream end in good order, within the deadline; then drop the connection."""
        await self._connection.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _invoke(self, call: Call[T]) -> T:
        return await self._connection.invoke(call, self._connection.timeout_s)
