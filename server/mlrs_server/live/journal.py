"""The journal: flushes answers that are not stored yet.

Each group logs its fresh answers. Every flush interval the logs go to the store, together with a snapshot of
each run in them, in one transaction. So the store always holds a run's record up to some step and its state
after that step, and recovery reads one row.

A flush that fails keeps its answers and is tried again, with growing pauses. Until it succeeds, observations
are answered but durable steps do not advance; once `max_unflushed` answers wait, observations are refused.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Iterable, Mapping
from concurrent.futures import Executor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import structlog

from mlrs_core.policy import Rows
from mlrs_server.errors import AdvisorError, FencedError, Reason
from mlrs_server.failpoints import reach
from mlrs_server.live.arrays import RunGroup
from mlrs_server.live.flush_batch import FlushBatch
from mlrs_server.storage import Store

log = structlog.get_logger()


REST, LONGEST_REST_S = 9, 0.5
"""The pause after a flush, as a multiple of its duration, and the longest such pause, in seconds: flushes and
advice share the interpreter."""
LATE_S = 3.0
"""The time after which a flush under way counts as a failing store: a store that hangs raises no error."""
LONGEST_PAUSE_S = 5.0
"""The longest pause between attempts at a store that fails."""


@dataclass(slots=True)
class FlushFigures:
    """Figures of flushes. Written by one thread, read by any."""

    count: int = 0
    """The number of flushes that stored something."""
    seconds: float = 0.0
    """The time that these flushes took."""
    failures: int = 0
    """The number of flushes that failed."""
    last: float = field(default_factory=time.monotonic)
    """When the last flush that stored something ended, on the monotonic clock; at first, the start."""
    failing: bool = False
    """Whether the newest flush failed, or has been under way for more than `LATE_S`."""


class Journal:
    """Flushes the logs of groups to the store. Used from one event loop."""

    def __init__(
        self,
        store: Store,
        executor: Executor,
        *,
        interval_s: float,
        on_flushed: Callable[[list[str]], None],
        max_unflushed: int,
    ) -> None:
        """Make a journal.

        Args:
            store: where answers are stored.
            executor: the store's one thread.
            interval_s: the flush interval.
            on_flushed: called with the ids of the runs that a flush has stored.
            max_unflushed: the number of answers that may wait to be stored, each of 40 bytes, and of 80 more
                where it came with extras.
        """
        self._store = store
        self._executor = executor
        self._interval_s = interval_s
        self._on_flushed = on_flushed
        self._max_unflushed = max_unflushed
        self._unflushed = 0
        self._groups: dict[RunGroup, None] = {}  # groups with something to store, in order
        self._asked: dict[RunGroup, set[int]] = {}  # rows that calls wait for to be stored
        self._pause_s = interval_s
        self.figures = FlushFigures()
        self.on_health: Callable[[bool], None] = lambda _works: None
        """Called with `False` when flushes begin to fail, and with `True` when they work again."""
        self._lock = asyncio.Lock()
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False
        self._begin_until = math.inf
        self._when_fenced: Callable[[Collection[int]], None] = _raise_fenced

    def when_fenced(self, then: Callable[[Collection[int]], None]) -> None:
        """Set what forgets the runs of shards that a flush finds to belong to another replica."""
        self._when_fenced = then

    @property
    def unflushed(self) -> int:
        """The number of answers that wait to be stored."""
        return self._unflushed

    def check_capacity(self) -> None:
        """Check that another answer may wait to be stored.

        Raises:
            AdvisorError: `max_unflushed` answers wait already.
        """
        if self._unflushed >= self._max_unflushed:
            raise AdvisorError(
                Reason.QUEUE_FULL,
                f"max_unflushed: {self._unflushed} answers wait to be stored, the most that are kept; the "
                "store does not keep up, or fails (see the daemon's log). Send the observation again later",
                field="max_unflushed",
            )

    def note(self, group: RunGroup, count: int) -> None:
        """Note that a group has logged answers or meta updates, to be stored within the flush interval."""
        self._unflushed += count
        self._groups[group] = None
        if self._timer is None:
            self._arm()

    def _arm(self) -> None:
        if self._timer is None and not self._closed:
            self._timer = asyncio.get_running_loop().call_later(self._pause_s, self._start_flush)

    def _start_flush(self) -> None:
        self._timer = None
        task = asyncio.get_running_loop().create_task(self._flush_quietly())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _flush_quietly(self) -> None:
        try:
            await self.flush()
        except AdvisorError as error:
            log.error("store_failing", problem=str(error), waiting=self._unflushed)
        except Exception as error:  # a defect: the answers stay in the log, and the flush is tried again
            log.error("flush_failed", waiting=self._unflushed, exc_info=error)

    @asynccontextmanager
    async def between_flushes(self) -> AsyncIterator[None]:
        """Keep flushes from running while the block runs."""
        async with self._lock:
            yield

    def forget(self, group: RunGroup, rows: Rows) -> None:
        """Discard the logs of rows of a group, (k,): clients send what is not durable to another replica."""
        self._unflushed -= group.log.drop(rows) + group.meta.drop(rows)
        group.extras_log.drop(rows)

    async def flush(self) -> None:
        """Store everything answered before this call.

        Cancelling the caller does not stop it: the store's thread would write all the same, and the next
        flush would write it again.

        Raises:
            AdvisorError: the store cannot be written; nothing is lost, a later flush tries again.
        """
        await self._to_the_end(self._flush())

    async def flush_rows(self, rows: Iterable[tuple[RunGroup, int]]) -> None:
        """Store everything answered before this call in some rows of groups, and nothing else.

        Calls that wait at the same time share a flush. Cancelling the caller does not stop it, see `flush`.

        Raises:
            AdvisorError: as `flush`.
        """
        wanted = dict[RunGroup, set[int]]()
        for group, row in rows:
            wanted.setdefault(group, set()).add(row)
            self._asked.setdefault(group, set()).add(row)
        if wanted:
            await self._to_the_end(self._flush_asked(wanted))

    async def _to_the_end(self, flush: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(flush)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        await asyncio.shield(task)

    async def close(self, *, begin_within_s: float = math.inf) -> None:
        """Store everything, and flush no more; begin no write after `begin_within_s` seconds.

        Raises:
            AdvisorError: the store cannot be written.
        """
        self._closed = True
        self._begin_until = time.monotonic() + begin_within_s
        if self._timer is not None:
            self._timer.cancel()
        await self.flush()

    async def _flush(self) -> None:
        async with self._lock:
            while self._groups:
                try:
                    await self._flush_once()
                except FencedError as error:
                    self._when_fenced(error.shards)
                else:
                    return

    async def _flush_asked(self, wanted: Mapping[RunGroup, set[int]]) -> None:
        """Flush the rows that a call wants, and with them those that other calls wait for by now."""
        async with self._lock:
            asked, self._asked = self._asked, {}
            for group, rows in wanted.items():  # another call's flush, which had these rows, may have failed
                asked.setdefault(group, set()).update(rows)
            while True:
                try:
                    await self._flush_once(asked)
                except FencedError as error:
                    self._when_fenced(error.shards)
                else:
                    return

    async def _flush_once(self, only: Mapping[RunGroup, Collection[int]] | None = None) -> None:
        """Store the logs of all groups, or only those of some rows."""
        groups = self._groups if only is None else dict.fromkeys(only)
        if only is None:
            self._groups = {}
        batches = list[FlushBatch]()
        loop = asyncio.get_running_loop()
        began = loop.time()
        late = loop.call_later(LATE_S, partial(self._report_health, works=False))
        try:
            for group in groups:
                if group.log.count or group.meta.applied:  # one by one, so that each batch can be put back
                    batch = FlushBatch.of(group) if only is None else FlushBatch.of(group, only[group])
                    batches += [batch] if len(batch) else []
            if not batches:
                if only is None:  # all was forgotten; leases show whether the store works
                    self._report_health(works=True)
                return
            await loop.run_in_executor(self._executor, self._store_all, batches)
            reach("journal.stored")
        except Exception as error:
            for batch in batches:
                batch.put_back()
            self._groups = groups | self._groups
            if isinstance(error, FencedError):  # the store works
                raise
            self._pause_s = min(2 * self._pause_s, max(LONGEST_PAUSE_S, self._interval_s))
            self._arm()
            self.figures.failures += 1
            self._report_health(works=False)
            raise
        finally:
            late.cancel()
        figures = self.figures
        figures.count, figures.last = figures.count + 1, time.monotonic()
        figures.seconds += loop.time() - began
        self._report_health(works=True)
        rest_s = min(REST * (loop.time() - began), LONGEST_REST_S)
        self._pause_s = max(self._interval_s, rest_s)
        self._unflushed -= sum(map(len, batches))
        self._on_flushed([run_id for batch in batches for run_id in batch.settle()])

    def _report_health(self, *, works: bool) -> None:
        """Call `on_health` if the health of the store has changed."""
        if works == self.figures.failing:
            self.figures.failing = not works
            self.on_health(works)

    def _store_all(self, batches: list[FlushBatch]) -> None:
        if time.monotonic() > self._begin_until:
            raise AdvisorError(Reason.STORE, "the store was busy, or hung, until the time to stop had come")
        reach("journal.store")
        self._store.append([batch.updates() for batch in batches])


def _raise_fenced(shards: Collection[int]) -> None:
    """Fail: a daemon with a store of its own cannot lose shards to another."""
    raise FencedError(shards)
