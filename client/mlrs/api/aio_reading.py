"""The methods of the asyncio advisor that read what a daemon has, and change nothing."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, TypeVar

from mlrs.protocol.routing import Call
from mlrs.values import arguments as check
from mlrs.values.alias_types import AliasChange
from mlrs.values.daemon_types import DaemonInfo, DaemonStatus
from mlrs.values.notes import Order
from mlrs.values.options import RECORD_TIMEOUT_S
from mlrs.values.record_types import RecordSample, RecordSummary, RunEvent
from mlrs.values.search_types import Search
from mlrs.values.task_memory import TaskMemory
from mlrs.values.task_types import TaskInfo
from mlrs.values.types import ModelInfo, RecordChunk, RunInfo, RunPage, RunStatus
from mlrs.wire import calls
from mlrs.wire.alias_calls import list_alias_changes
from mlrs.wire.daemon_calls import get_daemon, get_daemon_status
from mlrs.wire.list_calls import Page, RunListing, run_page
from mlrs.wire.record_calls import list_events, sample, summarize
from mlrs.wire.search_calls import get_search
from mlrs.wire.task_calls import get_task, list_tasks

T = TypeVar("T")


class Reading(ABC):
    """What an advisor reads. See `mlrs.api.reading.Reading`."""

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

    async def get_run(self, id: str) -> RunInfo:  # noqa: A002 # what users call it
        """Return a run, with its ranks at present."""
        return await self._invoke(calls.get_run(id))

    async def get_search(self, id: str) -> Search:  # noqa: A002 # what users call it
        """Return the search of a run."""
        return await self._invoke(get_search(id))

    async def tasks(self) -> AsyncIterator[TaskInfo]:
        """Iterate over the tasks of which something is remembered, by name."""
        async for task in self._listed(list_tasks):
            yield task

    async def task(self, name: str) -> TaskMemory:
        """Return what is remembered of a task."""
        return await self._invoke(get_task(name))

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
            return self._watched(request, None if follow else RECORD_TIMEOUT_S)
        return self._watched(request, check.timeout_s(timeout_s))

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
        return await self._invoke(call, timeout_s)

    async def samples(
        self, ids: Sequence[str], *, samples: int = 32, timeout_s: float | None = None
    ) -> dict[str, RecordSample]:
        """Return a few steps of many runs. See `mlrs.Advisor.samples`."""
        return await self._invoke(sample(ids, samples), timeout_s)

    async def run_events(self, id: str, *, after: int = 0) -> tuple[RunEvent, ...]:  # noqa: A002 # as above
        """Return what happened to a run besides its observations. See `mlrs.Advisor.run_events`."""
        return await self._invoke(list_events(id, after))

    async def models(self) -> AsyncIterator[ModelInfo]:
        """Iterate over the models that runs can name."""
        async for model in self._listed(calls.list_models):
            yield model

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

    @abstractmethod
    async def _invoke(self, call: Call[T], timeout_s: float | None = None) -> T:
        """Make a unary call. `timeout_s`: its deadline, as a user gave it; `None`: the advisor's."""

    @abstractmethod
    def _watched(self, request: Any, timeout_s: float | None) -> AsyncIterator[RecordChunk]:
        """Stream the record of a run. `timeout_s`: the deadline of the whole; `None`: none."""

    async def _listed(self, page_call: Callable[[str], Call[Page[T]]]) -> AsyncIterator[T]:
        """Iterate over a list, whose call of a page takes the token of that page."""
        token = ""
        while True:
            page = await self._invoke(page_call(token))
            for item in page.items:
                yield item
            if not (token := page.next_token):
                return
