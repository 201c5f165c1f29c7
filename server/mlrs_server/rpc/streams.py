"""The open StreamAdvice calls; a drain ends each one after its current step."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from mlrs_server.errors import draining


class OpenStream:
    """An open call."""

    def __init__(self) -> None:
        self.reading = False
        """Whether the call is waiting for a message."""
        self.draining = False
        """Whether the call ends after its current step."""
        self._task = asyncio.current_task()

    def drain(self) -> None:
        """End the stream after its current step."""
        self.draining = True
        if self.reading and self._task is not None:
            self._task.cancel()

    def uncancel_drained(self) -> bool:
        """Return whether `drain` cancelled the stream's task; if so, take the cancellation back."""
        return self.draining and self.reading and self._task is not None and not self._task.uncancel()


class OpenStreams:
    """All open calls. Used from one event loop."""

    def __init__(self) -> None:
        self._open: set[OpenStream] = set()
        self._draining = False

    def count(self) -> int:
        """Return the number of open calls. May be called on any thread."""
        return len(self._open)

    def check_open(self) -> None:
        """Raise if the daemon is shutting down."""
        if self._draining:
            raise draining()

    @contextmanager
    def opened(self) -> Iterator[OpenStream]:
        """Register a stream of the current task; if a drain interrupts its wait, the block ends normally.

        Raises:
            AdvisorError: the daemon is shutting down.
        """
        self.check_open()
        stream = OpenStream()
        self._open.add(stream)
        try:
            yield stream
        except asyncio.CancelledError:
            if not stream.uncancel_drained():
                raise
        finally:
            self._open.discard(stream)

    def drain(self) -> None:
        """Refuse new streams, and end each open one after its current step."""
        self._draining = True
        for stream in self._open:
            stream.drain()
