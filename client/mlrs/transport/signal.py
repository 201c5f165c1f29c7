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
    """Return a lock that somebody else is to release, once."""
    lock = threading.Lock()
    lock.acquire()
    return lock


class Signal:
    """What the threads that wait for something of a run are waiting on.

    Not for several callers at a time, but for `held_lock.acquire`; its owner holds a lock.
    """

    def __init__(self) -> None:
        self._waiting: deque[threading.Lock] = deque()

    def waiter(self) -> threading.Lock:
        """Return a lock that `notify_all` releases."""
        lock = held_lock()
        self._waiting.append(lock)
        return lock

    def forget(self, waiter: threading.Lock) -> None:
        """Let go of a waiter that waits no more."""
        if waiter in self._waiting:
            self._waiting.remove(waiter)

    def notify_all(self) -> None:
        """Let each thread look again. Not called in users' threads."""
        while self._waiting:
            self._waiting.popleft().release()


class Reply(Generic[T]):
    """What another thread will say: a result, or an error."""

    def __init__(self) -> None:
        self._ready = held_lock()
        self._result: T | None = None
        self._error: BaseException | None = None

    def settle(self, result: T | None, error: BaseException | None = None) -> None:
        """Say it; once."""
        self._result, self._error = result, error
        self._ready.release()

    def wait(self, timeout_s: float) -> bool:
        """Return whether it was said, within the timeout."""
        return self._ready.acquire(timeout=timeout_s)

    def result(self) -> T:
        """Return what was said. Raises what was said to have gone wrong, without how it came to that here."""
        if self._error is not None:
            raise self._error.with_traceback(None) from None
        return cast("T", self._result)
