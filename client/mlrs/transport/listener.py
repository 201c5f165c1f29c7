"""The thread that tells a user's function about each advice of a run (`on_advice`), as far as it keeps up."""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeAlias

from mlrs.ledger.entries import Entry
from mlrs.transport.signal import held_lock
from mlrs.values.advised_step import AdvisedStep
from mlrs.values.options import OnAdvice

MAX_WAITING = 4096
"""The most steps that wait to be told; what comes while so many wait is not told."""

_logger = logging.getLogger("mlrs")
_Lock = type(threading.Lock())
_Told: TypeAlias = Any
"""A run's id and an answered observation of it; a lock, which the thread releases when it comes to it, as all
that was put into the queue before has been told then; or `None`, the end."""


class Listener:
    """Tells a function about answered observations, in their order, in a thread of its own.

    Attributes:
        untold: how many observations were not told, because the function did not keep up.
    """

    def __init__(self, function: OnAdvice) -> None:
        """Start the thread."""
        self.untold = 0
        self._function = function
        self._is_closed = False
        self._queue: SimpleQueue[_Told] = SimpleQueue()
        telling = _Telling(function, weakref.ref(self))
        self._thread = threading.Thread(
            target=telling.tell_all, args=[self._queue], name="mlrs-on-advice", daemon=True
        )
        self._thread.start()
        weakref.finalize(self, self._queue.put, None).atexit = False

    def put(self, run_id: str, entry: Entry) -> None:
        """Have an answered observation of a run told, unless too many wait; does not wait."""
        if self._queue.qsize() >= MAX_WAITING:
            self.untold += 1
        else:
            self._queue.put((run_id, entry))

    def again(self) -> Listener:
        """Return another listener of the same function, for a run that continues after this one is closed."""
        other = Listener(self._function)
        other.untold = self.untold
        return other

    def flush(self, timeout_s: float) -> None:
        """Wait until everything so far was told, but no longer than `timeout_s`."""
        if self._is_closed or threading.current_thread() is self._thread:  # called by the function itself
            return
        told = held_lock()
        self._queue.put(told)
        told.acquire(timeout=timeout_s)

    def close(self, timeout_s: float) -> None:
        """Flush, and end the thread."""
        self.flush(timeout_s)
        self._is_closed = True
        self._queue.put(None)


class _Telling:
    """Calls the function. Does not keep the listener alive, so that the thread ends where it is dropped."""

    def __init__(self, function: OnAdvice, listener: Callable[[], Listener | None]) -> None:
        self._function = function
        self._listener = listener
        self._has_failed = False
        self._has_lagged = False

    def tell_all(self, queue: SimpleQueue[_Told]) -> None:
        """Tell everything in a queue, up to its end."""
        while (item := queue.get()) is not None:
            try:
                if isinstance(item, tuple):
                    self._tell(*item)
                elif (flush := getattr(self._function, "flush", None)) is not None:
                    flush()
            except BaseException as error:  # noqa: BLE001 # SystemExit, too, must not end the thread
                self._failed(error)
            if isinstance(item, _Lock):
                item.release()

    def _tell(self, run_id: str, entry: Entry) -> None:
        if not self._has_lagged and (listener := self._listener()) is not None and listener.untold:
            self._has_lagged = True
            _logger.warning(
                "run %r: on_advice does not keep up: %d steps wait for it, the most that are kept, and what"
                " comes meanwhile is not told; run.untold_steps counts that",
                run_id,
                MAX_WAITING,
            )
        advice = entry.result()
        self._function(AdvisedStep(run_id, entry.step, entry.loss, advice.learning_rate, advice.reason))

    def _failed(self, error: BaseException) -> None:
        if not self._has_failed:
            self._has_failed = True
            _logger.error(
                "on_advice raised an error; training goes on, and further errors of it are not logged",
                exc_info=error,
            )
