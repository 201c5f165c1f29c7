"""What was answered and is not stored yet.

The engine adds to the journal; every flush interval the journal goes to the store, together with a
snapshot of each run in it, in one transaction. So what is stored is always a run's record up to some
step and its state after that step, and recovery is reading one row.

A flush that fails keeps what it held and is tried again at the next interval: advice goes on, and
durable steps stand still.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np
import structlog

from mlrs_core.policy import Floats, Steps
from mlrs_server.errors import AdvisorError
from mlrs_server.runs import Bytes, Rows, RunGroup
from mlrs_server.store import Observations, RunUpdate, Store

log = structlog.get_logger()


@dataclass(frozen=True)
class Entry:
    """One engine pass over one group: a step of each of some rows, all (n,)."""

    group: RunGroup
    rows: Rows
    steps: Steps
    losses: Floats
    lrs: Floats
    reasons: Bytes


@dataclass(frozen=True)
class _Dirty:
    """The rows of one group that a flush stores."""

    group: RunGroup
    rows: Rows
    keys: Steps
    last_steps: Steps


class Journal:
    """Collects answers and flushes them to the store, from one event loop."""

    def __init__(
        self,
        store: Store,
        executor: Executor,
        *,
        interval_s: float,
        on_flushed: Callable[[list[str]], None],
    ) -> None:
        """`executor` is the store's one thread; `on_flushed` hears the ids of the runs stored."""
        self._store = store
        self._executor = executor
        self._interval_s = interval_s
        self._on_flushed = on_flushed
        self._entries: list[Entry] = []
        self._lock = asyncio.Lock()
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    def add(self, entry: Entry) -> None:
        """Add answers; they are stored within the interval."""
        self._entries.append(entry)
        self._arm()

    def _arm(self) -> None:
        if self._timer is None and not self._closed:
            self._timer = asyncio.get_running_loop().call_later(self._interval_s, self._start_flush)

    def _start_flush(self) -> None:
        self._timer = None
        task = asyncio.get_running_loop().create_task(self._flush_quietly())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _flush_quietly(self) -> None:
        try:
            await self.flush()
        except AdvisorError as error:
            log.error("store_failing", problem=str(error), waiting=len(self._entries))
        except Exception as error:  # a defect: the record is kept, and tried again
            log.error("flush_failed", waiting=len(self._entries), exc_info=error)

    async def flush(self) -> None:
        """Store everything answered before this call.

        A caller that goes away does not stop it: the store's thread would write all the same, and
        the next flush would write it again.

        Raises:
            AdvisorError: the store cannot be written; nothing is lost, a later flush tries again.
        """
        task = asyncio.get_running_loop().create_task(self._flush())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        await asyncio.shield(task)

    async def close(self) -> None:
        """Store everything and try no more.

        Raises:
            AdvisorError: the store cannot be written.
        """
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        await self.flush()

    async def _flush(self) -> None:
        async with self._lock:
            entries, self._entries = self._entries, []
            if not entries:
                return
            dirty, updates = _collect(entries)
            try:
                await asyncio.get_running_loop().run_in_executor(self._executor, self._store.append, updates)
            except Exception:
                self._entries = entries + self._entries
                self._arm()
                raise
            self._settle(dirty)

    def _settle(self, dirty: list[_Dirty]) -> None:
        """Move durable steps on, of the rows that are still the same runs."""
        for part in dirty:
            same = part.group.keys[part.rows] == part.keys
            part.group.durable_step[part.rows[same]] = part.last_steps[same]
        self._on_flushed([part.group.run_ids[row] for part in dirty for row in part.rows])


def _collect(entries: list[Entry]) -> tuple[list[_Dirty], list[RunUpdate]]:
    """Gather entries by group and run."""
    by_group: dict[RunGroup, list[Entry]] = {}
    for entry in entries:
        by_group.setdefault(entry.group, []).append(entry)
    dirty, updates = [], []
    for group, parts in by_group.items():
        part, some = _collect_group(group, parts)
        dirty.append(part)
        updates.extend(some)
    return dirty, updates


def _collect_group(group: RunGroup, entries: list[Entry]) -> tuple[_Dirty, list[RunUpdate]]:
    rows = np.concatenate([entry.rows for entry in entries])
    order = np.argsort(rows, kind="stable")  # entries are in the order of steps already
    rows = rows[order]
    steps = np.concatenate([entry.steps for entry in entries])[order]
    losses = np.concatenate([entry.losses for entry in entries])[order]
    lrs = np.concatenate([entry.lrs for entry in entries])[order]
    reasons = np.concatenate([entry.reasons for entry in entries])[order]
    starts = np.flatnonzero(np.diff(rows, prepend=-1))
    ends = np.append(starts[1:], len(rows))
    updates = [
        RunUpdate(
            key=int(group.keys[rows[start]]),
            first_step=int(steps[start]),
            observations=Observations(losses[start:end], lrs[start:end], reasons[start:end]),
            snapshot=group.snapshot(int(rows[start])),
        )
        for start, end in zip(starts.tolist(), ends.tolist(), strict=True)
    ]
    unique = rows[starts]
    return _Dirty(group, unique, group.keys[unique], steps[ends - 1]), updates
