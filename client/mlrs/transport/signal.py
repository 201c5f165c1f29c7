"""Waiting in users' threads, on C locks only.

`threading.Condition` and `Event` are Python: Ctrl-C inside one leaves its lock held, or raises "release
unlocked lock". `Lock.acquire` with a timeout is C: when it is interrupted, it is as if it was never called.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import Generic, TypeVar, cast

T = TypeVar("T")


def held_lock() -> threading.Lock:
    """Return a locked lock, which another thread releases once."""
    lock = threading.Lock()
    lock.acquire()
    return lock


class Signal:
    """Wakes the threads that wait for an event of a run.

    Its owner allows one caller at a time; only the locks of `waiter` are acquired without that.
    """

    def __init__(self) -> None:
        self._waiting: deque[threading.Lock] = deque()

    def waiter(self) -> threading.Lock:
        """Return a lock that `notify_all` releases."""
        lock = held_lock()
        self._waiting.append(lock)
        return lock

    def forget(self, waiter: threading.Lock) -> None:
        """Remove a waiter that does not wait any more."""
        if waiter in self._waiting:
            self._waiting.remove(waiter)

    def notify_all(self) -> None:
        """Wake all threads, which then check their condition again. Not called in users' threads."""
        while self._waiting:
            self._waiting.popleft().release()


class Reply(Generic[T]):
    """The result of another thread's work, or its error."""

    def __init__(self) -> None:
        self._ready = held_lock()
        self._result: T | None = None
        self._error: BaseException | None = None

    def settle(self, result: T | None, error: BaseException | None = None) -> None:
        """Set the result or the error, once."""
        self._result, self._error = result, error
        self._ready.release()

    def wait(self, timeout_s: float) -> bool:
        """Wait for the result; return whether it came within the timeout."""
        return self._ready.acquire(timeout=timeout_s)

    def result(self) -> T:
        """Return the result, or raise the error without the traceback of the other thread."""
        if self._error is not None:
            raise self._error.with_traceback(None) from None
        return cast("T", self._result)
