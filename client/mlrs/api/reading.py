"""The methods of the threaded advisor that read what a daemon has, and change nothing."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
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
    """What an advisor reads: runs, records, tasks, models, and how the daemon is."""

    def runs(
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
    ) -> Iterator[RunInfo]:
        """Iterate over the runs, each once.

        Args:
            prefix: only runs whose ids begin with this.
            status: only runs of this status.
            contains: only runs whose ids contain this.
            model: only runs of this model: a name, or `name@digest` with at least 8 digits.
            task: only runs of this task.
            tags: only runs that have all of these tags with these values; an empty value: with any.
            order: `id`, `recent` (by the time of their last stored observation, newest first) or `created`
                (the newest run first). Default: by id.
            newest_first: the same as `order="recent"`.
            limit: at most this many. Default: all.
        """
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
            yield from listing.new_of(self._invoke(call))

    def run_page(
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
        """Return one page of the runs, for lists that are shown page by page.

        Args:
            size: at most this many, 1 to 1000. A page may have fewer runs, also where it is not the last.
            cursor: the `cursor` of the page before; empty: the first page.
            prefix: only runs whose ids begin with this.
            contains: only runs whose ids contain this.
            status: only runs of this status.
            model: only runs of this model: a name, or `name@digest` with at least 8 digits.
            task: only runs of this task.
            tags: only runs that have all of these tags with these values; an empty value: with any.
            order: `recent`: by the time of the last stored observation, the newest first; `created`: the
                newest run first; or `id`. It must be the same for all pages. By `recent`, a run that gets
                observations while pages are read may come again.
        """
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
        return self._invoke(call)

    def get_run(self, id: str) -> RunInfo:  # noqa: A002 # what users call it
        """Return a run, with its ranks at present. Raises `RunNotFoundError` if there is none."""
        return self._invoke(calls.get_run(id))

    def get_search(self, id: str) -> Search:  # noqa: A002 # what users call it
        """Return a run's search: its trials, and what it found. Raises `NoSearchError` if it had none."""
        return self._invoke(get_search(id))

    def tasks(self) -> Iterator[TaskInfo]:
        """Iterate over the tasks of which something is remembered, by name."""
        return self._listed(list_tasks)

    def task(self, name: str) -> TaskMemory:
        """Return what is remembered of a task. Raises `TaskNotFoundError` if nothing is."""
        return self._invoke(get_task(name))

    def watch(
        self,
        id: str,  # noqa: A002 # what users call it
        from_step: int = 0,
        *,
        follow: bool = False,
        timeout_s: float | None = None,
    ) -> Iterator[RecordChunk]:
        """Iterate over the record of a run.

        Args:
            id: the run's id.
            from_step: the first step to return.
            follow: whether to follow the run until it is finished. With several addresses, this continues at
                the next step when another replica takes the run over.
            timeout_s: the deadline of the whole stream, in seconds. Default: 60; with `follow`, none.
        """
        request = calls.watch_run(id, from_step, follow)
        if timeout_s is None:
            return self._watched(request, None if follow else RECORD_TIMEOUT_S)
        return self._watched(request, check.timeout_s(timeout_s))

    def summary(
        self,
        id: str,  # noqa: A002 # what users call it
        *,
        from_step: int = 0,
        to_step: int | None = None,
        max_buckets: int = 1000,
        cursor: str = "",
        timeout_s: float | None = None,
    ) -> RecordSummary:
        """Return a part of a run's record in buckets of steps, for a picture of it: any daemon can be asked.

        It has the durable steps only. Its `cursor` leads on: to the rest of a long record, and later to what
        is new, or has changed because the run was rewound.

        Args:
            id: the run's id.
            from_step: the first step wanted; the first bucket may begin before it.
            to_step: the step before which the part ends. Default: the end of the record.
            max_buckets: at most so many buckets, 1 to 4096.
            cursor: that of an earlier summary of this run, whose buckets it goes on with; `from_step` and
                `max_buckets` then have no effect, and `to_step` is that one's.
            timeout_s: the deadline, in seconds. Default: the advisor's.

        Raises:
            RunNotFoundError: there is no such run.
            InvalidArgumentError: an argument is of a wrong type or range, or the cursor is none.
        """
        call = summarize(id, from_step, to_step, max_buckets, cursor)
        return self._invoke(call, timeout_s)

    def samples(
        self, ids: Sequence[str], *, samples: int = 32, timeout_s: float | None = None
    ) -> dict[str, RecordSample]:
        """Return a few durable steps of up to 100 runs, by their ids, for small pictures of many runs.

        They are evenly spaced, at most `samples` of each run, 2 to 128. Runs that do not exist are left out.
        """
        return self._invoke(sample(ids, samples), timeout_s)

    def run_events(self, id: str, *, after: int = 0) -> tuple[RunEvent, ...]:  # noqa: A002 # as above
        """Return what happened to a run besides its observations: who opened it again, rewinds, fallbacks.

        A run keeps its newest 1000 events. Only those beyond the number `after` are returned, in order.
        Raises `RunNotFoundError` if there is no such run.
        """
        return self._invoke(list_events(id, after))

    def models(self) -> Iterator[ModelInfo]:
        """Iterate over the models that runs can name."""
        return self._listed(calls.list_models)

    def model(self, name: str) -> ModelInfo:
        """Return a model by name, alias or `name@digest`. Raises `ModelNotFoundError`."""
        return self._invoke(calls.get_model(name))

    def alias_changes(self, alias: str) -> tuple[AliasChange, ...]:
        """Return the models that an alias has pointed at, the newest first, 100 at most.

        Raises `ModelNotFoundError` if there is no such alias.
        """
        return self._invoke(list_alias_changes(alias))

    def daemon(self) -> DaemonInfo:
        """Return which daemon answers: its version, and since when it serves."""
        return self._invoke(get_daemon())

    def status(self) -> DaemonStatus:
        """Return how the daemon is: its load, its store, and the replicas beside it."""
        return self._invoke(get_daemon_status())

    @abstractmethod
    def _invoke(self, call: Call[T], timeout_s: float | None = None) -> T:
        """Make a unary call. `timeout_s`: its deadline, as a user gave it; `None`: the advisor's."""

    @abstractmethod
    def _watched(self, request: Any, timeout_s: float | None) -> Iterator[RecordChunk]:
        """Stream the record of a run. `timeout_s`: the deadline of the whole; `None`: none."""

    def _listed(self, page_call: Callable[[str], Call[Page[T]]]) -> Iterator[T]:
        """Iterate over a list, whose call of a page takes the token of that page."""
        token = ""
        while True:
            page = self._invoke(page_call(token))
            yield from page.items
            if not (token := page.next_token):
                return
