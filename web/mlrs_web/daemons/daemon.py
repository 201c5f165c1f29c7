"""The daemon as the holder of one token sees it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import mlrs
import mlrs.aio
from mlrs.errors import UnauthenticatedError
from mlrs.types import RunInfo
from mlrs_web.daemons.cache import Cache
from mlrs_web.settings import Settings

TIMEOUT_S = 10.0
"""The deadline of a call, in seconds."""
HEAVY = 4
"""How many calls that read records are made at the same time; the others wait here."""
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
        """Yield the advisor for a call that reads a record: a few at a time, so that none slows advice."""
        async with self._heavy:
            yield self.advisor

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
