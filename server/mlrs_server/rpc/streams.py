"""The StreamAdvice calls that are open, and how a drain ends each after the step that it is in."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from mlrs_server.errors import draining


class OpenStream:
    """An open call: whether it waits for a message, and whether it was told to end."""

    def __init__(self) -> None:
        self.reading = False
        """Whether it waits for a message."""
        self.draining = False
        """Whether it was told to end."""
        self._task = asyncio.current_task()

    def drain(self) -> None:
        """Make the stream end after the step that it is in."""
        self.draining = True
        if self.reading and self._task is not None:
            self._task.cancel()

    def was_woken(self) -> bool:
        """Return whether it is by `drain` that the stream's task was cancelled; it then goes on."""
        return self.draining and self.reading and self._task is not None and not self._task.uncancel()


class OpenStreams:
    """All open calls. Used from one event loop."""

    def __init__(self) -> None:
        self._open: set[OpenStream] = set()
        self._draining = False

    def check_going(self) -> None:
        """Raise if the daemon is about to stop."""
        if self._draining:
            raise draining()

    @contextmanager
    def opened(self) -> Iterator[OpenStream]:
        """Have a stream open, on the task that calls this; where a drain wakes it, the block just ends.

        Raises:
            AdvisorError: the daemon is about to stop.
        """
        self.check_going()
        stream = OpenStream()
        self._open.add(stream)
        try:
            yield stream
        except asyncio.CancelledError:
            if not stream.was_woken():
                raise
        finally:
            self._open.discard(stream)

    def drain(self) -> None:
        """Open no more streams, and let each that is open finish its step."""
        self._draining = True
        for stream in self._open:
            stream.drain()
