"""The connected processes that send observations, by feeder id. Each process generates an id of its own.

A run has one feeder, whose id is stored with it. A process that opens a run of another feeder takes it over.
Each replica knows its own connections only: clients open their streams where their runs are.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import takewhile

STREAM_WITHIN_S = 5.0
"""The time that a process which has opened a run may take to open its stream. Until then it counts as
connected when the process that it took the run from would join the run again."""

Feeder = tuple[str, str]
"""A tenant, and the feeder id of a process."""


class Feeders:
    """The processes that send observations to this daemon. Used from one event loop."""

    def __init__(self) -> None:
        self._streams: Counter[Feeder] = Counter()
        self._awaited: dict[Feeder, float] = {}  # deadlines on the monotonic clock, ascending

    @contextmanager
    def streaming(self, tenant: str, feeder: str) -> Iterator[None]:
        """Count a stream of a process while it is open; `feeder` is "" if the process gave no id."""
        if not feeder:
            yield
            return
        key = tenant, feeder
        self._awaited.pop(key, None)
        self._streams[key] += 1
        try:
            yield
        finally:
            self._awaited.pop(key, None)
            self._streams[key] -= 1
            if not self._streams[key]:
                del self._streams[key]

    def opened(self, tenant: str, feeder: str) -> None:
        """Note that a process has opened a run and may open a stream; `feeder` is "" if it gave no id."""
        now, key = time.monotonic(), (tenant, feeder)
        for over in list(takewhile(lambda one: self._awaited[one] <= now, self._awaited)):
            del self._awaited[over]
        self._awaited.pop(key, None)
        if feeder and key not in self._streams:
            self._awaited[key] = now + STREAM_WITHIN_S

    def is_connected(self, tenant: str, feeder: str) -> bool:
        """Return whether a process has a stream open."""
        return (tenant, feeder) in self._streams

    def is_expected(self, tenant: str, feeder: str) -> bool:
        """Return whether a process has a stream open, or has just opened a run and may still open one."""
        until = self._awaited.get((tenant, feeder), 0.0)
        return self.is_connected(tenant, feeder) or time.monotonic() < until
