"""What one page has not been sent yet: of each kind of event the newest, never a backlog."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Event:
    """A server-sent event."""

    kind: str
    """Its name."""
    data: bytes
    """JSON in one line."""
    id: str = ""
    """What the browser sends when it connects again; empty: nothing new."""


class Follower:
    """A page that follows something.

    Attributes:
        cursor: where the page's record ends; moves on as the page takes events.
        session: the id of the session of the page's browser; `None`: it has none.
        begun: done after the first poll; its exception says why there is nothing to follow.
    """

    def __init__(self, cursor: str = "", session: str | None = None) -> None:
        """To be called while the event loop runs."""
        self.cursor = cursor
        self.session = session
        self.begun: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._pending: dict[str, Event] = {}
        self._last: dict[str, int] = {}
        self._is_closed = False
        self._changed = asyncio.Event()

    def waits_for(self, kind: str) -> bool:
        """Return whether the page has taken the last event of a kind."""
        return kind not in self._pending

    def put(self, event: Event, what: bytes = b"") -> bool:
        """Give the page an event, in place of one of its kind that waits, if it is new; return whether it is.

        Args:
            event: the event.
            what: what has to differ from the last event of its kind. Default: its data.
        """
        new = hash(what or event.data)  # the data of many pages would be much to keep
        if self._last.get(event.kind) == new:
            return False
        self._last[event.kind] = new
        self._pending[event.kind] = event
        self._changed.set()
        return True

    def forget(self, kind: str) -> None:
        """Let the next event of a kind count as new, whatever it says."""
        self._last.pop(kind, None)

    def begin(self, error: Exception | None = None) -> None:
        """Say that the first poll was made; after an error, the page is told it, or its stream ends."""
        if not self.begun.done():
            if error is None:
                self.begun.set_result(None)
            else:
                self.begun.set_exception(error)
                self.begun.exception()  # whoever waited may have left
        if error is not None:
            self.close()

    def close(self) -> None:
        """End the page's stream. Its browser connects again, and is told why if there is a reason."""
        self._is_closed = True
        self._changed.set()

    async def take(self, within_s: float) -> list[Event] | None:
        """Wait for what the page has not been sent, and return it; empty: nothing yet. `None`: the end."""
        try:
            async with asyncio.timeout(within_s):
                await self._changed.wait()
        except TimeoutError:
            return []
        if self._is_closed:
            return None
        self._changed.clear()
        events, self._pending = list(self._pending.values()), {}
        for event in events:
            self.cursor = event.id or self.cursor
        return events
