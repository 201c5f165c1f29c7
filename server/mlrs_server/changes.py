"""Calls that change runs: they go on to their end when their callers go away.

What is in memory and what is stored must not part half-way.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Coroutine
from typing import Any, TypeVar

from mlrs_server.errors import AdvisorError, Reason

T = TypeVar("T")
MAX_CHANGES = 4096
"""Calls that may be changing runs at once, or wait to: more than a store that works keeps waiting."""


class Changes:
    """The changes under way. Used from one event loop."""

    def __init__(self) -> None:
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

    async def end(self, until: float) -> int:
        """Let changes end until a time of the event loop's clock; cancel the others, and return how many.

        What of those the store has not begun, it will not do.
        """
        clock = asyncio.get_running_loop().time
        while self._tasks and (left_s := until - clock()) > 0:
            await asyncio.wait(self._tasks, timeout=None if left_s == math.inf else left_s)
        cut = list(self._tasks)
        for task in cut:
            task.cancel()
        if cut:
            await asyncio.wait(cut)
        return len(cut)
