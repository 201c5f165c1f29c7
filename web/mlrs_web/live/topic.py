"""What several pages follow: it is polled while somebody does, and never twice at a time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection
from typing import Protocol

from mlrs.errors import DeadlineExceededError, MlrsError, UnauthenticatedError, UnavailableError
from mlrs_web.live.follower import Event, Follower
from mlrs_web.views.plain import encoded

AWAY_PAUSE_S = 1.0
"""The pause after a poll that the daemon did not answer, in seconds."""
_logger = logging.getLogger("mlrs")


class Source(Protocol):
    """What is polled."""

    async def poll(self, followers: Collection[Follower]) -> bool:
        """Ask the daemon, and give the followers what is new; return whether anything was."""

    def pause_s(self, unchanged: int) -> float:
        """Return the pause before the next poll after so many polls without anything new, in seconds."""


class Topic:
    """Polls a source for its followers."""

    def __init__(self, source: Source, refused: Callable[[], None]) -> None:
        """`refused` is called when the daemon does not accept the token any more."""
        self._source = source
        self._refused = refused
        self._followers: set[Follower] = set()
        self._task: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._away = ""

    def join(self, follower: Follower) -> None:
        """Let a page follow; the next poll comes at once."""
        self._followers.add(follower)
        self._wake.set()
        if self._away:
            _tell_away(follower, self._away)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._poll_while_followed())

    def leave(self, follower: Follower) -> bool:
        """Let a page go; return whether somebody follows still. Without anyone, polls stop."""
        self._followers.discard(follower)
        if not self._followers and self._task is not None:
            self._task.cancel()
        return bool(self._followers)

    def close(self) -> None:
        """End the streams of all followers."""
        for follower in self._followers:
            follower.close()

    def end_session(self, session: str) -> None:
        """End the streams of a browser. See `Hub.end_session`."""
        for follower in self._followers:
            if follower.session == session:
                follower.close()

    async def _poll_while_followed(self) -> None:
        unchanged = 0
        while self._followers:
            self._wake.clear()
            followers = list(self._followers)
            try:
                unchanged = 0 if await self._source.poll(followers) else unchanged + 1
                self._is_back(followers)
                pause_s = self._source.pause_s(unchanged)
            except (UnavailableError, DeadlineExceededError) as error:
                self._is_away(str(error))
                pause_s = AWAY_PAUSE_S
            except MlrsError as error:
                self._fail(error)
                return
            except Exception as error:
                _logger.exception("a defect of mlrs; please report it")
                self._fail(error)
                return
            for follower in followers:
                follower.begin()
            await self._pause(pause_s)

    async def _pause(self, pause_s: float) -> None:
        try:
            async with asyncio.timeout(pause_s):
                await self._wake.wait()
        except TimeoutError:
            pass

    def _is_away(self, message: str) -> None:
        self._away = message
        for follower in self._followers:
            _tell_away(follower, message)

    def _is_back(self, followers: Collection[Follower]) -> None:
        if self._away:
            self._away = ""
            for follower in followers:
                follower.forget("away")
                follower.put(Event("back", b"{}"))
                follower.forget("back")

    def _fail(self, error: Exception) -> None:
        """End the streams; the browsers connect again, and the answers to that say what is wrong."""
        if isinstance(error, UnauthenticatedError):
            self._refused()
        for follower in self._followers:
            follower.begin(error)


def _tell_away(follower: Follower, message: str) -> None:
    follower.put(Event("away", encoded({"message": message})))
