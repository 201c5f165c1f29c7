"""Calls that change runs: they run to completion even if their callers are cancelled.

Otherwise memory and store might differ.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

import structlog

from mlrs_server.errors import AdvisorError, Reason
from mlrs_server.live.journal import Journal
from mlrs_server.storage import NewRun, RunKey

log = structlog.get_logger()

T = TypeVar("T")
MAX_CHANGES = 4096
"""The number of calls that may be changing runs at once, or wait to."""
LAST_FLUSH_S = 2.0
"""The time after the deadline within which the last flush may still begin, when the store becomes free."""


class RunChanges:
    """The changes under way. Used from one event loop."""

    def __init__(self, journal: Journal) -> None:
        """`journal` stores the last answers when all changes have ended."""
        self._journal = journal
        self._tasks: set[asyncio.Task[Any]] = set()

    async def to_the_end(self, change: Coroutine[Any, Any, T]) -> T:
        """Return the result of a change of a run; cancelling the caller does not stop the change.

        Raises:
            AdvisorError: too many changes are under way, or as the change.
        """
        if len(self._tasks) >= MAX_CHANGES:
            change.close()
            raise AdvisorError(
                Reason.STORE,
                f"the store does not keep up: {len(self._tasks)} calls that change runs are under way, the "
                "most that may be (see the daemon's log). Call again later",
            )
        task = asyncio.get_running_loop().create_task(change)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return await asyncio.shield(task)

    async def close(self, *, within_s: float = math.inf) -> None:
        """Wait for changes under way, and store everything.

        Changes that take longer than `within_s` are cancelled, unless the store has begun them. The last
        flush may begin `LAST_FLUSH_S` later.

        Raises:
            AdvisorError: the store cannot be written, or not in time; the message says what is not stored.
        """
        clock = asyncio.get_running_loop().time
        until = clock() + within_s
        lost = list[str]()
        if cut := await self._end(until):
            lost.append(f"{cut} calls that change runs were cut off")
        try:
            await self._journal.close(begin_within_s=max(until - clock(), 0.0) + LAST_FLUSH_S)
        except AdvisorError as error:
            lost.append(f"{self._journal.unflushed} answers are not stored: {error}")
        if lost:
            raise AdvisorError(Reason.STORE, "; ".join(lost))

    async def _end(self, until: float) -> int:
        """Wait for changes until a time of the event loop's clock; cancel the others, and return how many."""
        clock = asyncio.get_running_loop().time
        while self._tasks and (left_s := until - clock()) > 0:
            await asyncio.wait(self._tasks, timeout=None if left_s == math.inf else left_s)
        cut = list(self._tasks)
        for task in cut:
            task.cancel()
        if cut:
            await asyncio.wait(cut)
        return len(cut)


def log_runs(of_one: str, of_many: str, runs: Sequence[NewRun | RunKey], **about_one: object) -> None:
    """Log an event of runs: of one run with its details, of several runs with their number."""
    if len(runs) == 1:
        log.info(of_one, run_id=runs[0].run_id, **about_one)
    else:
        log.info(of_many, count=len(runs))
