"""Which processes are connected that send observations, by the feeder ids that they make anew.

A run has one feeder, which the store keeps with it. A process that opens a run of another feeder takes it
over. Which feeders are connected is known to each replica for itself: clients open their streams where their
runs are.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import takewhile

STREAM_WITHIN_S = 5.0
"""How long a process that has opened a run may take until its stream is there. It counts as connected
meanwhile when another would join the run again: that one, whose handle has just become stale, comes first."""

Feeder = tuple[str, str]
"""A tenant, and an id that a process of it has made."""


class Feeders:
    """The processes that send observations to this daemon. Used from one event loop."""

    def __init__(self) -> None:
        self._streams: Counter[Feeder] = Counter()
        self._awaited: dict[Feeder, float] = {}  # until when on the monotonic clock, the first to end first

    @contextmanager
    def streaming(self, tenant: str, feeder: str) -> Iterator[None]:
        """Count a stream of a process, or of one that gave no id, while it is open."""
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
        """Note that a process, or one that gave no id, has opened a run: its stream may be yet to come."""
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
        """Return whether a process has a stream open, or has just opened a run and may open one yet."""
        until = self._awaited.get((tenant, feeder), 0.0)
        return self.is_connected(tenant, feeder) or time.monotonic() < until
