"""Slow work during start, in a background thread that shutdown does not wait for."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


async def in_background(work: Callable[[], T], undo: Callable[[T], object] | None = None) -> T:
    """Call a function in a background thread and return its result.

    If the caller is cancelled, neither it nor the end of the process waits for the thread, as they would for
    an executor's thread. So the function must be safe to interrupt anywhere.

    Args:
        work: the function.
        undo: called in that thread with the result if the caller was cancelled before it.
    """
    result: Future[T] = Future()

    def do() -> None:
        try:
            value = work()
        except BaseException as error:  # noqa: BLE001 # re-raised in the caller, if it still waits
            if result.set_running_or_notify_cancel():
                result.set_exception(error)
        else:
            if result.set_running_or_notify_cancel():
                result.set_result(value)
            elif undo is not None:
                undo(value)

    threading.Thread(target=do, name="mlrs-start", daemon=True).start()
    return await asyncio.wrap_future(result)
