"""The daemon as the holder of one token sees it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import mlrs
import mlrs.aio
from mlrs.errors import DeadlineExceededError, UnauthenticatedError
from mlrs.types import RecordChunk, RunInfo
from mlrs_web.daemons.cache import Cache
from mlrs_web.settings import Settings

TIMEOUT_S = 10.0
"""The deadline of a call, in seconds."""
HEAVY = 4
"""How many calls that read records are made at the same time; the others wait here."""
WAIT_S = 10.0
"""How long they wait at most, in seconds."""
CHUNK_S = 20.0
"""How long a part of a whole record may take, in seconds; the client tries again for ten of them."""
WHOLE_S = 24 * 3600.0
"""How long a whole record may take, in seconds: as slow as the link is to whoever downloads it."""
VERSIONS = 20_000
"""The most runs whose versions are known."""


class Daemon:
    """A connection to the daemon, made with one token or with none.

    Attributes:
        key: tells it from those of other tokens.
        token: the token; `None`: none.
        used: when a call was last made, by the monotonic clock, in seconds.
    """

    def __init__(self, settings: Settings, token: str | None, key: int, cache: Cache) -> None:
        """To be called while the event loop runs."""
        self.key = key
        self.token = token
        self._advisor = mlrs.aio.connect(settings.target, token=token, tls=settings.tls, timeout_s=TIMEOUT_S)
        self.cache = cache
        self.used = time.monotonic()
        self._heavy = asyncio.Semaphore(HEAVY)
        self._versions: dict[str, tuple[int, float]] = {}

    @property
    def advisor(self) -> mlrs.aio.Advisor:
        """What makes its calls."""
        self.used = time.monotonic()
        return self._advisor

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[mlrs.aio.Advisor]:
        """Yield the advisor for a call that reads a record: a few at a time, so that none slows advice.

        Raises:
            DeadlineExceededError: the calls before this one take too long.
        """
        try:
            async with asyncio.timeout(WAIT_S):
                await self._heavy.acquire()
        except TimeoutError as error:
            raise DeadlineExceededError(
                f"{HEAVY} records are being read, and none of them was done within {WAIT_S:g} s; try again"
            ) from error
        try:
            yield self.advisor
        finally:
            self._heavy.release()

    async def whole_record(self, run_id: str) -> AsyncIterator[RecordChunk]:
        """Iterate over a record. While the caller does not go on, it holds no other reader up.

        Raises:
            MlrsError: as `watch` does.
            TimeoutError: the daemon stopped in the middle.
        """
        chunks = aiter(self.advisor.watch(run_id, timeout_s=WHOLE_S))
        while True:
            async with self.reading(), asyncio.timeout(CHUNK_S):
                chunk = await anext(chunks, None)
            if chunk is None:
                return
            yield chunk

    def saw(self, run: RunInfo) -> tuple[int, float]:
        """Note the state of a run that the daemon reported; return its version."""
        version = (run.next_step, run.update_time.timestamp())
        self._versions.pop(run.id, None)
        self._versions[run.id] = version
        if len(self._versions) > VERSIONS:
            del self._versions[next(iter(self._versions))]
        return version

    def version(self, run_id: str) -> tuple[int, float] | None:
        """Return the version of a run as it was reported last; `None`: it was not."""
        return self._versions.get(run_id)

    async def close(self) -> None:
        """Drop the connection."""
        await self._advisor.close()

    async def wants_token(self) -> bool:
        """Return whether the daemon refuses calls without a token; for a connection without one.

        Raises:
            MlrsError: the daemon does not answer.
        """
        try:
            await self.advisor.daemon()
        except UnauthenticatedError:
            return True
        return False
