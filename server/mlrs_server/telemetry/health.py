"""What health checks say of the store; advice goes on without it, so the rest of the daemon stays healthy."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from grpc_health.v1 import health, health_pb2

STORE = "mlrs.v1.Store"
"""The name that the store has for health checks."""
_STATUS = {
    True: health_pb2.HealthCheckResponse.SERVING,
    False: health_pb2.HealthCheckResponse.NOT_SERVING,
}


class StoreHealth:
    """Whether the store works, as far as those who use it have found: all must agree that it does."""

    def __init__(self) -> None:
        self._failing: set[str] = set()
        self._checks: health.aio.HealthServicer | None = None
        self._lock = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def works(self) -> bool:
        """Whether nobody has found it failing; on any thread."""
        return not self._failing

    async def tell(self, checks: health.aio.HealthServicer) -> None:
        """Have health checks answered so, from now on."""
        self._checks = checks
        await self._pass_on()

    def says(self, who: str) -> Callable[[bool], None]:
        """Return what one of those who use the store calls with whether it works for them."""

        def say(works: bool) -> None:  # noqa: FBT001  # what it is told is this alone
            before = self.works
            (self._failing.discard if works else self._failing.add)(who)
            if self.works != before:
                task = asyncio.get_running_loop().create_task(self._pass_on())
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

        return say

    async def _pass_on(self) -> None:
        async with self._lock:  # the last to come has the newest word
            if self._checks is not None:
                await self._checks.set(STORE, _STATUS[self.works])
