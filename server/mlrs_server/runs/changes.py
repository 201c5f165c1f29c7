"""Calls that change runs: they go on to their end when their callers go away.

Else what is in memory and what is stored might differ.
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
"""Calls that may be changing runs at once, or wait to: more than a store that works keeps waiting."""
LAST_FLUSH_S = 2.0
"""How long after its deadline the last flush may yet begin, once what the store is doing then has ended."""


class RunChanges:
    """The changes under way. Used from one event loop."""

    def __init__(self, journal: Journal) -> None:
        """`journal` stores the last answers when all changes have ended."""
        self._journal = journal
        self._tasks: set[asyncio.Task[Any]] = set()

    async def to_the_end(self, change: Coroutine[Any, Any, T]) -> T:
        """Return what a change of a run returns; if the caller goes away, the change goes on.

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
        """Let changes under way end, and store everything.

        RunChanges that take longer are cancelled: what of them the store has not begun, it will not do. The
        last flush has a moment more to begin.

        Raises:
            AdvisorError: the store cannot be written, or not in time; it says what is not stored.
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
        """Let changes end until a time of the event loop's clock; cancel the others, and return how many."""
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
    """Log what became of some runs: of one with what there is to say about it, of more how many."""
    if len(runs) == 1:
        log.info(of_one, run_id=runs[0].run_id, **about_one)
    else:
        log.info(of_many, count=len(runs))
