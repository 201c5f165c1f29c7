"""What was answered and is not stored yet.

The engine adds to the journal; every flush interval the journal goes to the store, together with a
snapshot of each run in it, in one transaction. So what is stored is always a run's record up to some
step and its state after that step, and recovery is reading one row.

A flush that fails keeps what it held and is tried again at the next interval: advice goes on, and
durable steps stand still.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import structlog

from mlrs_core.policy import Floats, Rows, States, Steps
from mlrs_server.errors import AdvisorError
from mlrs_server.ledger import Bytes, Records
from mlrs_server.runs import RunGroup, snapshot_of
from mlrs_server.store import Observations, RunUpdate, Store

log = structlog.get_logger()


class Entry(NamedTuple):
    """Fresh answers of one group, in their order, all (n,)."""

    group: RunGroup
    rows: Rows
    steps: Steps
    losses: Floats
    lrs: Floats
    reasons: Bytes


@dataclass(frozen=True)
class _Batch:
    """What a flush stores of one group: answers sorted by row, and copies of what the runs are after them."""

    group: RunGroup
    rows: Rows
    """The rows that were answered, (k,)."""
    bounds: npt.NDArray[np.intp]
    """Where their answers begin, and the end of the last, (k + 1,)."""
    steps: Steps
    losses: Floats
    lrs: Floats
    reasons: Bytes
    records: Records
    """(k,)."""
    states: States
    """(k, state_size)."""

    @classmethod
    def of(cls, group: RunGroup, entries: list[Entry]) -> _Batch:
        """Gather the entries of a group."""
        rows, steps, losses, lrs, reasons = (
            np.concatenate(columns) for columns in list(zip(*entries, strict=True))[1:]
        )
        order = np.argsort(rows, kind="stable")  # entries are in the order of steps already
        rows = rows[order]
        starts = np.flatnonzero(np.diff(rows, prepend=-1))
        unique = rows[starts]
        return cls(
            group,
            unique,
            np.append(starts, len(rows)),
            steps[order],
            losses[order],
            lrs[order],
            reasons[order],
            group.records[unique],
            group.states[unique],
        )

    def updates(self) -> Iterator[RunUpdate]:
        """Yield what to store of each run; on any thread."""
        for index, (start, end) in enumerate(pairwise(self.bounds.tolist())):
            yield RunUpdate(
                key=int(self.records["key"][index]),
                first_step=int(self.steps[start]),
                observations=Observations(
                    self.losses[start:end], self.lrs[start:end], self.reasons[start:end]
                ),
                snapshot=snapshot_of(self.records[index], self.states[index]),
            )

    def settle(self) -> list[str]:
        """Move durable steps on, of the rows that are still the same runs; return the ids of the rows."""
        records = self.group.records
        same = records["key"][self.rows] == self.records["key"]
        records["durable_step"][self.rows[same]] = self.steps[self.bounds[1:] - 1][same]
        return [self.group.run_ids[row] for row in self.rows]


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
            batches = _batches(entries)
            try:
                await asyncio.get_running_loop().run_in_executor(self._executor, self._store_all, batches)
            except Exception:
                self._entries = entries + self._entries
                self._arm()
                raise
            self._on_flushed([run_id for batch in batches for run_id in batch.settle()])

    def _store_all(self, batches: list[_Batch]) -> None:
        self._store.append([update for batch in batches for update in batch.updates()])


def _batches(entries: list[Entry]) -> list[_Batch]:
    """Gather entries by group."""
    by_group: dict[RunGroup, list[Entry]] = {}
    for entry in entries:
        by_group.setdefault(entry.group, []).append(entry)
    return [_Batch.of(group, some) for group, some in by_group.items()]
