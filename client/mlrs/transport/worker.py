"""The thread in which the threaded client makes its calls: gRPC's Python code is not safe for Ctrl-C.

A small event loop: jobs come from a `SimpleQueue`, which is written in C and can be filled from anywhere, and
from timers. No job may wait for long, except the last one.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue

Job = Callable[[], object]
_logger = logging.getLogger("mlrs")


class Worker:
    """A thread that runs jobs, in the order in which they are queued or due."""

    def __init__(self) -> None:
        self._jobs: SimpleQueue[Job] = SimpleQueue()
        self._timers: list[tuple[float, int, Job]] = []
        self._order = itertools.count()
        self._stopping = False
        self._thread = threading.Thread(target=self._work, name="mlrs", daemon=True)
        self._thread.start()

    def put(self, job: Job) -> None:
        """Queue a job; does not wait. Called from any thread."""
        self._jobs.put(job)

    def put_later(self, delay_s: float, job: Job) -> None:
        """Queue a job after a delay. Called in the worker's thread only."""
        heapq.heappush(self._timers, (time.monotonic() + delay_s, next(self._order), job))

    def stop(self) -> None:
        """End after the present job. Called in the worker's thread only."""
        self._stopping = True

    def join(self, timeout_s: float) -> None:
        """Wait until the thread has ended."""
        self._thread.join(timeout_s)

    def _work(self) -> None:
        while not self._stopping:
            try:
                job: Job = self._jobs.get(timeout=self._next_due_s())
            except Empty:
                job = heapq.heappop(self._timers)[2]
            try:
                job()
            except Exception:
                _logger.exception("a defect of mlrs; please report it")

    def _next_due_s(self) -> float | None:
        return max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else None
