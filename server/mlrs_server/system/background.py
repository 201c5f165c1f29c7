"""Slow work of a start, in a thread that a process which is told to stop meanwhile does not wait for."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


async def apart(work: Callable[[], T], undo: Callable[[T], object] | None = None) -> T:
    """Do something in a thread of its own and return what it gives.

    A caller that is cancelled leaves it to itself: neither the caller nor the end of the process waits for
    it, as they would for an executor's thread. So it must be such that breaking it off anywhere does no harm.

    Args:
        work: what to do.
        undo: what to do, in that thread, with a result that nobody takes.
    """
    result: Future[T] = Future()

    def do() -> None:
        try:
            given = work()
        except BaseException as error:  # noqa: BLE001 # for the caller, if there still is one
            if result.set_running_or_notify_cancel():
                result.set_exception(error)
        else:
            if result.set_running_or_notify_cancel():
                result.set_result(given)
            elif undo is not None:
                undo(given)

    threading.Thread(target=do, name="mlrs-start", daemon=True).start()
    return await asyncio.wrap_future(result)
